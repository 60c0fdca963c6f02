//! The time a request may take until the head of its answer: its own limit, and what the client wants to wait on top.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::time::Duration;

use crate::http::extract::wanted_wait;
use crate::http::problem::Problem;
use crate::http::slugs;
use crate::http::state::Edge;

const BATCH: &str = "/v1/tasks/batch";

/// Gives up on handlers that do not answer.
pub async fn limit(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    // A stream of lines takes as long as it takes; each part of it has the limit for itself.
    if request.uri().path() == BATCH {
        return next.run(request).await;
    }
    let wait = wanted_wait(request.headers()).ok().flatten().unwrap_or_default().min(edge.limits.wait);
    // The body has the same limit again: a slow one gets its own answer.
    let patience = edge.http.request_timeout * 2 + wait;
    match tokio::time::timeout(patience, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(&slugs::OVERLOADED).retry_after(Duration::from_secs(1)).into_response(),
    }
}
