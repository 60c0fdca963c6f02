//! `/livez` and `/readyz`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::submission::{json_response, text};
use crate::edge::state::Edge;

/// What this process depends on.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// It accepts tasks.
    ready: bool,
    /// `up` or `down`.
    #[schema(value_type = String, example = "up")]
    ledger: &'static str,
    /// `up` or `down`; tasks are accepted without it and published later.
    #[schema(value_type = String, example = "up")]
    redis: &'static str,
    /// `active` when this process records what workers say, `standby` when another one does.
    #[schema(value_type = String, example = "active")]
    recorder: &'static str,
}

/// Whether the process runs
#[utoipa::path(get, path = "/livez", tag = "operation", operation_id = "livez",
    responses((status = 200, description = "It runs", body = String, content_type = "text/plain")))]
pub async fn livez() -> &'static str {
    "ok\n"
}

/// Whether the process accepts tasks
///
/// 200 while the ledger accepts, also when Redis is away. At start it waits for the first try at Redis, at most 3 seconds.
#[utoipa::path(get, path = "/readyz", tag = "operation", operation_id = "readyz",
    responses(
        (status = 200, description = "It accepts", body = Readiness),
        (status = 503, description = "The ledger does not accept", body = Readiness),
    ))]
pub async fn readyz(State(edge): State<Edge>) -> Response {
    edge.health.first_try().await;
    let word = |is_up| if is_up { "up" } else { "down" };
    let ready = edge.health.ledger_is_up() && !edge.stop.is_cancelled();
    let view = Readiness {
        ready,
        ledger: word(edge.health.ledger_is_up()),
        redis: word(edge.health.redis_is_up()),
        recorder: if edge.gateway.is_recording() { "active" } else { "standby" },
    };
    json_response(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text(&view))
}
