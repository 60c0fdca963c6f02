//! `/livez` (and `/healthz`) and `/readyz`.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::edge::answer::{Described, text};
use crate::edge::state::Edge;
use crate::tell::health::Trouble;

/// What this process depends on.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// Whether the process accepts tasks.
    ready: bool,
    /// `up` or `down`. It is up when it takes writes.
    #[schema(value_type = String, example = "up")]
    ledger: &'static str,
    /// `up` or `down`; while it is down, tasks are accepted and published later. `unused` if the gateway only reads.
    #[schema(value_type = String, example = "up")]
    redis: &'static str,
    /// Why the ledger or Redis is down: the server's own error, and what helps. Left out when both are up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
    /// `active` when this process records worker events and results, `standby` when another one does.
    #[schema(value_type = String, example = "active")]
    recorder: &'static str,
    /// `read` if the gateway only reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "read")]
    role: Option<&'static str>,
    /// If the gateway only reads: how many seconds its replica of the ledger lags behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_seconds: Option<f64>,
}

/// Whether the process runs
#[utoipa::path(get, path = "/livez", tag = "operation", operation_id = "livez",
    responses((status = 200, description = "It runs", body = String, content_type = "text/plain")))]
pub async fn livez() -> Described {
    Described("ok\n".into_response())
}

/// Same as `/livez`
#[utoipa::path(get, path = "/healthz", tag = "operation", operation_id = "healthz",
    responses((status = 200, description = "It runs", body = String, content_type = "text/plain")))]
pub async fn healthz() -> Described {
    livez().await
}

/// Whether the process accepts tasks
///
/// 200 while the ledger takes writes (a write is tried every second, and rolled back), even while Redis is down; with `--role read`,
/// while the ledger answers. At start it waits for the first attempt to reach Redis, at most 3 seconds.
#[utoipa::path(get, path = "/readyz", tag = "operation", operation_id = "readyz",
    responses(
        (status = 200, description = "It accepts", body = Readiness),
        (status = 503, description = "The ledger does not accept", body = Readiness),
    ))]
pub async fn readyz(State(edge): State<Edge>) -> Described {
    let health = &edge.health;
    health.first_try().await;
    let word = |is_up| if is_up { "up" } else { "down" };
    let ready = health.ledger_is_up() && !edge.stop.is_cancelled();
    let reason = |what: &str, trouble: Option<Trouble>| Some(format!("{what}: {}", trouble?.reason));
    let (ledger, redis) = (reason("ledger", health.ledger_trouble()), reason("redis", health.redis_trouble()));
    let view = Readiness {
        ready,
        ledger: word(health.ledger_is_up()),
        redis: if edge.reads_only { "unused" } else { word(health.redis_is_up()) },
        reasons: ledger.into_iter().chain(redis).collect(),
        recorder: if edge.gateway.is_recording() { "active" } else { "standby" },
        role: edge.reads_only.then_some("read"),
        lag_seconds: edge.reads_only.then(|| health.lag().as_secs_f64()),
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Described((status, [(header::CONTENT_TYPE, "application/json")], text(&view)).into_response())
}
