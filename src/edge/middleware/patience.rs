//! The time a request may take until the head of its answer: its own limit, and what the client wants to wait on top.

use std::time::Duration;

use axum::extract::Request;

use crate::edge::extract::wanted_wait;
use crate::edge::state::Edge;

const BATCH: &str = "/v1/tasks/batch";

/// `None` for a stream of lines, which takes as long as it takes: each part of it has the limit for itself.
pub fn of(edge: &Edge, request: &Request) -> Option<Duration> {
    if request.uri().path() == BATCH {
        return None;
    }
    let wait = wanted_wait(request.headers()).ok().flatten().unwrap_or_default().min(edge.limits.wait);
    // The body has the same limit again: a slow one gets its own answer.
    Some(edge.http.request_timeout * 2 + wait)
}
