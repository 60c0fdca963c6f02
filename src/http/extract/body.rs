//! The request body as JSON text: its type, size, encoding and depth are checked, its content is not.
//!
//! A body that is too large is answered at once. What its sender still sends is read and dropped for a while, because a sender
//! that is cut off while writing does not read the answer.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;

use crate::http::problem::Problem;
use crate::http::slugs;
use crate::http::state::Edge;
use crate::lifecycle::OnExit;

/// How long the rest of a body that is too large is read.
const DRAIN_TIME: Duration = Duration::from_secs(60);

/// The body's text; empty when there is none. Not yet parsed.
#[derive(Debug)]
pub struct JsonText(pub String);

impl FromRequest<Edge> for JsonText {
    type Rejection = Problem;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let bytes = match tokio::time::timeout(edge.http.request_timeout, read(body, &head.headers, edge)).await {
            Ok(bytes) => bytes?,
            Err(_) => return Err(Problem::new(&slugs::REQUEST_TIMEOUT)),
        };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(String::new()));
        }
        if bytes.as_ref() != b"{}" {
            check_type(&head.headers)?;
        }
        let text = String::from_utf8(bytes.into()).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Problem::new(&slugs::INVALID_JSON).detail(format!("the body is not UTF-8: byte {at} is wrong"))
        })?;
        check_depth(&text, edge.limits.depth)?;
        Ok(Self(text))
    }
}

async fn read(mut body: Body, headers: &HeaderMap, edge: &Edge) -> Result<Bytes, Problem> {
    let limit = edge.limits.body;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        // Who asked first (`Expect: 100-continue`) has sent nothing yet.
        if !headers.contains_key(header::EXPECT) {
            drain(body, edge, 0);
        }
        return Err(too_large(limit));
    }
    let mut bytes = Vec::with_capacity(announced.unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::new(&slugs::INVALID_JSON).detail("the body did not arrive whole").caused_by(error)
        })?;
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > limit {
            drain(body, edge, bytes.len());
            return Err(too_large(limit));
        }
        bytes.extend_from_slice(data);
    }
    Ok(bytes.into())
}

fn too_large(limit: usize) -> Problem {
    Problem::new(&slugs::PAYLOAD_TOO_LARGE).detail(format!("the body has more than {limit} bytes"))
}

/// Reads on in the background, so that the answer and the rest of the body pass each other.
fn drain(mut body: Body, edge: &Edge, read: usize) {
    let most = edge.limits.drain;
    edge.tasks.spawn("drain", OnExit::Nothing, move |stop| async move {
        let mut read = read;
        let rest = async {
            while let Some(Ok(frame)) = body.frame().await {
                read += frame.data_ref().map_or(0, Bytes::len);
                if read > most {
                    break;
                }
            }
        };
        tokio::select! { () = stop.cancelled() => {} _ = tokio::time::timeout(DRAIN_TIME, rest) => {} }
    });
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json")) {
        return Ok(());
    }
    let detail = if given.is_empty() { "Content-Type is missing".to_owned() } else { format!("{given:?} is not JSON") };
    Err(Problem::new(&slugs::UNSUPPORTED_MEDIA_TYPE).detail(detail))
}

/// Counts brackets outside of strings, so that no reader that follows recurses without bound.
fn check_depth(text: &str, limit: usize) -> Result<(), Problem> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > limit {
                    return Err(Problem::new(&slugs::INVALID_JSON)
                        .detail(format!("the body is nested deeper than {limit} levels")));
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_of_strings() {
        assert!(check_depth(r#"["[[[[\"[[", [1]]"#, 2).is_ok());
        assert!(check_depth("[[[1]]]", 2).is_err());
        assert!(check_depth("[[1],[2],[3]]", 2).is_ok());
    }
}
