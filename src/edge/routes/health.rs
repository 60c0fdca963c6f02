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
    /// It accepts tasks.
    ready: bool,
    /// `up` or `down`. It is up when it takes writes.
    #[schema(value_type = String, example = "up")]
    ledger: &'static str,
    /// `up` or `down`; tasks are accepted without it and published later. `unused` where the gateway only reads.
    #[schema(value_type = String, example = "up")]
    redis: &'static str,
    /// Why the ledger is down, or Redis: in the server's own words, with what helps. Left out when nothing is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
    /// `active` when this process records what workers say, `standby` when another one does.
    #[schema(value_type = String, example = "active")]
    recorder: &'static str,
    /// `read` where the gateway only reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "read")]
    role: Option<&'static str>,
    /// Where the gateway only reads: seconds that its replica of the ledger is behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_seconds: Option<f64>,
}

/// Whether the process runs
#[utoipa::path(get, path = "/livez", tag = "operation", operation_id = "livez",
    responses((status = 200, description = "It runs", body = String, content_type = "text/plain")))]
pub async fn livez() -> Described {
    Described("ok\n".into_response())
}

/// As `/livez`, under the name that others give it
#[utoipa::path(get, path = "/healthz", tag = "operation", operation_id = "healthz",
    responses((status = 200, description = "It runs", body = String, content_type = "text/plain")))]
pub async fn healthz() -> Described {
    livez().await
}

/// Whether the process accepts tasks
///
/// 200 while the ledger takes writes (one is tried each second, and rolled back), also when Redis is away; in the role `read`, while the ledger answers. At start it waits for the first try at Redis, at most 3 seconds.
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
