//! `/metrics`: Prometheus text.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use crate::http::fleet;
use crate::http::state::Edge;

/// Metrics for Prometheus
///
/// `taskgate_…` of this process; `celery_…` of the fleet, from the ledger: the same at every replica.
#[utoipa::path(get, path = "/metrics", tag = "operation", operation_id = "metrics",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain")))]
pub async fn metrics(State(edge): State<Edge>) -> Response {
    let mut text = edge.metrics.as_ref().map(metrics_exporter_prometheus::PrometheusHandle::render).unwrap_or_default();
    text.push_str(&fleet::text(&edge.gateway).await);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
