//! The timeout of a request until the head of its answer: the general limit plus the client's `Prefer: wait`.

use std::time::Duration;

use axum::extract::Request;

use crate::edge::extract::wanted_wait;
use crate::edge::state::Edge;

const BATCH: &str = "/v1/tasks/batch";

/// `None` for a stream of lines, which may take any time: each of its parts has its own timeout.
pub fn of(edge: &Edge, request: &Request) -> Option<Duration> {
    if request.uri().path() == BATCH {
        return None;
    }
    let wait = wanted_wait(request.headers()).ok().flatten().unwrap_or_default().min(edge.limits.wait);
    // Reading the body has the same limit again: a slow body gets a more specific answer.
    Some(edge.http.request_timeout * 2 + wait)
}
