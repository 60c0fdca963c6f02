//! `Prefer: wait=N` (RFC 7240): the client prefers to wait for the final answer.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};

use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;

static PREFER: HeaderName = HeaderName::from_static("prefer");

/// How long to wait for the end of the task; zero without `wait`. Never longer than `limits.wait`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Prefer {
    pub wait: Duration,
}

impl FromRequestParts<Edge> for Prefer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Problem> {
        let wait = wanted(&parts.headers)?.unwrap_or_default();
        Ok(Self { wait: wait.min(edge.limits.wait) })
    }
}

/// The requested `wait`. Other preferences are ignored.
///
/// # Errors
/// When it is not a number of seconds.
pub fn wanted(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    for value in headers.get_all(&PREFER) {
        let refused = || {
            Problem::new(&slugs::INVALID_HEADER)
                .detail("Prefer: wait must be a whole number of seconds, such as wait=10")
                .error("Prefer", "wait must be a whole number of seconds")
        };
        let text = value.to_str().map_err(|_| refused())?;
        for preference in text.split([',', ';']) {
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            if name.trim().eq_ignore_ascii_case("wait") {
                let seconds: u32 = value.trim().trim_matches('"').parse().map_err(|_| refused())?;
                return Ok(Some(Duration::from_secs(seconds.into())));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefer(text: &str) -> Result<Option<Duration>, ()> {
        let mut headers = HeaderMap::new();
        headers.insert("prefer", text.parse().unwrap());
        wanted(&headers).map_err(|_| ())
    }

    #[test]
    fn wait_is_found_among_other_preferences() {
        assert_eq!(prefer("respond-async, wait=10"), Ok(Some(Duration::from_secs(10))));
        assert_eq!(prefer("Wait = \"3\"; foo=bar"), Ok(Some(Duration::from_secs(3))));
        assert_eq!(prefer("return=minimal"), Ok(None));
        assert_eq!(prefer("wait=soon"), Err(()));
        assert_eq!(prefer("wait=-1"), Err(()));
    }
}
