//! `/metrics`: Prometheus text.
//!
//! Only the recorder's replica shows the fleet's metrics: boards and alerts sum over all replicas, and would count everything once
//! per replica. A scraper of a single replica or a load balancer must request them.

use axum::extract::{OriginalUri, State};
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use metrics::gauge;

use crate::edge::answer::{Described, Query, Refused};
use crate::edge::extract::metrics_query;
use crate::edge::fleet;
use crate::edge::state::Edge;

/// Metrics for Prometheus
///
/// `taskgate_…` of this process; `celery_…` of the fleet, from the ledger: only at the recorder's replica, so that a sum over all
/// replicas counts everything once. With `fleet=true` any replica shows them, with `fleet=false` none.
#[utoipa::path(get, path = "/metrics", tag = "operation", operation_id = "metrics",
    params(("fleet" = Option<bool>, Query, description = "Whether the fleet's figures are shown. Default: by the replica that records")),
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain")))]
pub async fn metrics(State(edge): State<Edge>, OriginalUri(uri): OriginalUri) -> Result<Described, Refused<Query>> {
    let shows_fleet = metrics_query(&uri)?.unwrap_or_else(|| edge.gateway.is_recording());
    now(&edge);
    let mut text = edge.metrics.as_ref().map(metrics_exporter_prometheus::PrometheusHandle::render).unwrap_or_default();
    if shows_fleet {
        text.push_str(&fleet::text(&edge.gateway).await);
    }
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(Described(([(header::CONTENT_TYPE, kind)], text).into_response()))
}

/// Updates gauges that are computed for each scrape.
fn now(edge: &Edge) {
    let open = edge.http.max_streams.saturating_sub(edge.streams.available_permits());
    gauge!("taskgate_sse_streams").set(open as f64);
    gauge!("taskgate_recorder_active").set(f64::from(u8::from(edge.gateway.is_recording())));
    for pool in edge.gateway.pools() {
        let busy = pool.open.saturating_sub(pool.idle);
        gauge!("taskgate_pool_connections", "pool" => pool.name, "state" => "busy").set(f64::from(busy));
        gauge!("taskgate_pool_connections", "pool" => pool.name, "state" => "idle").set(f64::from(pool.idle));
        gauge!("taskgate_pool_connections_max", "pool" => pool.name).set(f64::from(pool.most));
    }
}
