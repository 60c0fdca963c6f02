//! Server-sent events: frames, keep-alive comments, and the end at shutdown.
//!
//! A stream is pulled: nothing is fetched while its reader does not read, and the watch behind it bounds what is queued. A comment is
//! sent after every quiet `sse_heartbeat`, so that proxies do not cut the connection.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use async_stream::stream;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio_stream::{Stream, StreamExt};

use super::extract::Caller;
use super::problem::Problem;
use super::slugs;
use super::state::Edge;
use runtime::clock;

/// How soon readers reconnect after a stream ends. It is sent with the first event, because some readers turn a lone field into an event.
const RETRY: &str = "retry: 1000\n";
const COMMENT: &str = ":\n\n";

/// The last frame of a stopping replica, with a random retry time, so that readers reconnect at different times.
fn going() -> Bytes {
    format!("retry: {}\n\n", 500 + rand::random_range(0..1_500)).into()
}

/// The first event of a stream, with the retry time.
fn opening(frame: &[u8]) -> Bytes {
    [RETRY.as_bytes(), frame].concat().into()
}

/// Encodes an event. JSON text passed through from clients may contain line breaks, so each line of `data` gets its own field.
pub fn frame(id: impl std::fmt::Display, event: &str, data: &impl Serialize) -> Bytes {
    let json = serde_json::to_string(data).expect("a view is JSON");
    let mut text = format!("id: {id}\nevent: {event}\n");
    for line in json.split(['\n', '\r']) {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    text.into()
}

/// Takes a place among the open streams, or refuses when there are too many.
pub fn admit(edge: &Edge, caller: &Caller) -> Result<Place, Problem> {
    let of_token = match caller.0.id() {
        Some(id) => Some(edge.token_streams.enter(id, edge.http.max_streams_per_token).ok_or_else(|| {
            Problem::new(&slugs::TOO_MANY_TOKEN_STREAMS)
                .detail(format!("{} streams of the token are open", edge.http.max_streams_per_token))
                .retry_after(std::time::Duration::from_secs(5))
        })?),
        None => None,
    };
    let permit = edge.streams.clone().try_acquire_owned().map_err(|_| {
        Problem::new(&slugs::TOO_MANY_STREAMS)
            .detail(format!("{} streams are open", edge.http.max_streams))
            .retry_after(std::time::Duration::from_secs(5))
    })?;
    Ok(Place { _permit: permit, _of_token: of_token })
}

/// A place among the open streams of the process and of the token, released when the stream is dropped.
pub struct Place {
    _permit: OwnedSemaphorePermit,
    _of_token: Option<Entered>,
}

/// The open streams of each token.
#[derive(Debug, Clone, Default)]
pub struct TokenStreams(Arc<Mutex<HashMap<String, usize>>>);

impl TokenStreams {
    fn enter(&self, token: &str, most: usize) -> Option<Entered> {
        let mut counts = self.0.lock().expect("nothing panics under this lock");
        let count = counts.get(token).copied().unwrap_or(0);
        if count >= most {
            return None;
        }
        counts.insert(token.to_owned(), count + 1);
        Some(Entered { streams: self.clone(), token: token.to_owned() })
    }
}

/// One stream of a token; no longer counted when dropped.
#[derive(Debug)]
struct Entered {
    streams: TokenStreams,
    token: String,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut counts = self.streams.0.lock().expect("nothing panics under this lock");
        if let Some(count) = counts.get_mut(&self.token) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.token);
            }
        }
    }
}

/// The response that sends these frames until they end, the reader disconnects, or the process stops.
pub fn answer(
    edge: &Edge,
    caller: &Caller,
    place: Place,
    frames: impl Stream<Item = Bytes> + Send + 'static,
) -> Response {
    let (heartbeat, stop, revoked) = (edge.http.sse_heartbeat, edge.stop.clone(), caller.0.ended());
    let expiry = caller.0.expires_at().map(|end| end.since(clock::now()));
    // There may be ten thousand streams, so keep each small: a pinned box can be moved cheaply.
    let mut frames = Box::pin(frames);
    let body = stream! {
        let _place = place;
        let mut expired = pin!(async move {
            match expiry {
                Some(span) => tokio::time::sleep(span).await,
                None => std::future::pending().await,
            }
        });
        let mut is_first = true;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    yield Ok::<_, Infallible>(going());
                    break;
                }
                // A stream ends with its token; when the client reconnects, it learns why.
                () = revoked.cancelled() => break,
                () = &mut expired => break,
                frame = tokio::time::timeout(heartbeat, frames.next()) => match frame {
                    Ok(Some(frame)) => yield Ok(if std::mem::take(&mut is_first) { opening(&frame) } else { frame }),
                    Ok(None) => break,
                    Err(_) => yield Ok(Bytes::from_static(COMMENT.as_bytes())),
                },
            }
        }
    };
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The 204 answer, which tells the reader not to reconnect, because nothing will follow.
pub fn over() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_a_token_are_counted_until_they_end() {
        let streams = TokenStreams::default();
        let first = streams.enter("a", 2).unwrap();
        let second = streams.enter("a", 2).unwrap();
        assert!(streams.enter("a", 2).is_none() && streams.enter("b", 2).is_some());
        drop(first);
        assert!(streams.enter("a", 2).is_some());
        drop(second);
        assert!(streams.0.lock().unwrap().is_empty(), "nothing is kept of tokens without streams");
    }

    #[test]
    fn the_first_event_says_when_to_come_back() {
        let first = opening(&frame(7, "state", &serde_json::json!({})));
        assert_eq!(first, "retry: 1000\nid: 7\nevent: state\ndata: {}\n\n");
    }

    #[test]
    fn a_frame_has_id_event_and_data() {
        let bytes = frame(7, "state", &serde_json::json!({"a": 1}));
        assert_eq!(bytes, "id: 7\nevent: state\ndata: {\"a\":1}\n\n");
    }

    #[test]
    fn line_breaks_inside_verbatim_json_do_not_break_the_frame() {
        let raw = celery::task::json::verbatim("{\"a\":\n1}".to_owned()).unwrap();
        assert_eq!(frame(1, "end", &raw), "id: 1\nevent: end\ndata: {\"a\":\ndata: 1}\n\n");
    }
}
