//! `Accept`: chooses between a stream and a JSON document.

use axum::http::{HeaderMap, header};

/// Whether the client wants a JSON document rather than a stream: it names `application/json` and no `text/event-stream`.
pub fn wants_json(headers: &HeaderMap) -> bool {
    let named = |kind: &str| {
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| {
            value.split(',').any(|range| range.split(';').next().is_some_and(|range| range.trim() == kind))
        })
    };
    named("application/json") && !named("text/event-stream")
}
