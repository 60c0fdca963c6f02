//! `Last-Event-ID`: the last event that a reader of a stream has.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::edge::problem::Problem;
use crate::edge::slugs;

/// The number of the last event that the client has; `None` for a new reader.
#[derive(Debug, Clone, Copy)]
pub struct LastEventId(pub Option<i64>);

impl<S: Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get("last-event-id") else { return Ok(Self(None)) };
        let text = value.to_str().unwrap_or("?").trim();
        // A browser that never had an id sends an empty one.
        if text.is_empty() {
            return Ok(Self(None));
        }
        let number =
            text.parse::<i64>().ok().filter(|number| *number >= 0 && text.bytes().all(|byte| byte.is_ascii_digit()));
        match number {
            Some(number) => Ok(Self(Some(number))),
            None => Err(Problem::new(&slugs::INVALID_HEADER)
                .detail("Last-Event-ID must be the id of an event of this stream: a whole number")
                .error("Last-Event-ID", "must be a whole number of 0 or more")),
        }
    }
}
