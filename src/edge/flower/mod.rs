//! Flower's HTTP API under `[compat] flower`: scripts for Flower 2 only need another address.
//!
//! Answers have Flower's members, statuses and texts, but come from the ledger: they include tasks from before a restart, and a token
//! that is limited to some task names sees only those. A token may be sent as `Authorization: Bearer`, or as the password of `Basic`
//! with any user name. Submissions are checked like any other request.

mod apply;
mod arguments;
mod control;
mod outcome;
mod tasks;
mod view;
mod workers;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::Value;

use crate::edge::state::Edge;

/// The routes, below `prefix`.
pub fn router(prefix: &str) -> Router<Edge> {
    let at = |path: &str| format!("{prefix}{path}");
    Router::new()
        .route(&at("/healthcheck"), get(health))
        .route(&at("/api/workers"), get(workers::list))
        .route(&at("/api/worker/shutdown/{worker}"), post(control::shutdown))
        .route(&at("/api/worker/pool/restart/{worker}"), post(control::restart))
        .route(&at("/api/worker/pool/grow/{worker}"), post(control::grow))
        .route(&at("/api/worker/pool/shrink/{worker}"), post(control::shrink))
        .route(&at("/api/worker/pool/autoscale/{worker}"), post(control::autoscale))
        .route(&at("/api/worker/queue/add-consumer/{worker}"), post(control::add_consumer))
        .route(&at("/api/worker/queue/cancel-consumer/{worker}"), post(control::cancel_consumer))
        .route(&at("/api/tasks"), get(tasks::list))
        .route(&at("/api/task/types"), get(tasks::types))
        .route(&at("/api/queues/length"), get(tasks::queue_lengths))
        .route(&at("/api/task/info/{id}"), get(tasks::info))
        .route(&at("/api/task/apply/{name}"), post(apply::apply))
        .route(&at("/api/task/async-apply/{name}"), post(apply::async_apply))
        .route(&at("/api/task/send-task/{name}"), post(apply::send))
        .route(&at("/api/task/result/{id}"), get(outcome::result))
        .route(&at("/api/task/abort/{id}"), post(outcome::abort))
        .route(&at("/api/task/revoke/{id}"), post(outcome::revoke))
        .route(&at("/api/task/timeout/{name}"), post(control::timeout))
        .route(&at("/api/task/rate-limit/{name}"), post(control::rate_limit))
}

/// The longest wait of any request. Flower's clients send no `Prefer`, so the wait must fit into the request timeout.
fn longest_wait(edge: &Edge) -> Duration {
    edge.limits.wait.min(edge.http.request_timeout)
}

async fn health() -> Response {
    plain(StatusCode::OK, "OK")
}

/// Marks an answer that must not become a problem document, because it is a refusal in Flower's form.
#[derive(Debug, Clone, Copy)]
pub struct AsItIs;

fn json(value: &Value) -> Response {
    answer(StatusCode::OK, "application/json; charset=UTF-8", value.to_string())
}

/// A refusal in Flower's form: plain text with the content type of its pages.
fn plain(status: StatusCode, text: &str) -> Response {
    answer(status, "text/html; charset=UTF-8", text.to_owned())
}

/// A refusal without text: Flower's task handlers do not say what was wrong.
fn empty(status: StatusCode) -> Response {
    plain(status, "")
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.extensions_mut().insert(AsItIs);
    response
}
