//! The timeout of a request until the head of its answer: the general limit plus the client's `Prefer: wait`.

use std::time::Duration;

use axum::extract::{MatchedPath, Request};

use crate::edge::extract::wanted_wait;
use crate::edge::state::Edge;

const BATCH: &str = "/v1/tasks/batch";

/// `None` for a stream of lines and for a file, which take as long as they take: each part of them has the limit for itself.
pub fn of(edge: &Edge, request: &Request) -> Option<Duration> {
    let takes_file = |route: &MatchedPath| edge.catalog.takes_file(route.as_str());
    if request.uri().path() == BATCH || request.extensions().get::<MatchedPath>().is_some_and(takes_file) {
        return None;
    }
    let wait = wanted_wait(request.headers()).ok().flatten().unwrap_or_default().min(edge.limits.wait);
    // Reading the body has the same limit again: a slow body gets a more specific answer.
    Some(edge.http.request_timeout * 2 + wait)
}
