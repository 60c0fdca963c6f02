//! A call whose client wants to hear of its progress: a stream of notifications, and the result as its last message.
//!
//! The task is on disk before the stream begins, so a client that goes away loses nothing: its id was said, and it runs on. The stream
//! reads the task's own events, through the same router and in the caller's name; a shutdown, or the end of the patience, ends it with
//! the id to ask for.

use std::convert::Infallible;
use std::time::Duration;

use async_stream::stream;
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::Response;
use celery::task::json;
use celery::task::progress::Progress;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::inner::Answer;
use super::tasks::result;
use super::tools::pointer;

/// One event of a task at most: a result may be large.
const MAX_EVENT: usize = 16 << 20;
/// A client that said nothing else is told of progress for so long.
pub(super) const PATIENCE: Duration = Duration::from_mins(10);

/// A call that was submitted.
pub(super) struct Submitted {
    /// Of the call.
    pub id: Value,
    pub token: Value,
    pub task: String,
    /// What the submission answered.
    pub answer: Answer,
    pub patience: Duration,
}

/// The stream of a call, from the stream of its task's events.
pub(super) fn response(call: Submitted, events: Body) -> Response {
    let mut response = Response::new(Body::from_stream(messages(call, events)));
    response.headers_mut().insert(header::CONTENT_TYPE, axum::http::HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(header::CACHE_CONTROL, axum::http::HeaderValue::from_static("no-store"));
    response
}

fn messages(call: Submitted, events: Body) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
    let until = Instant::now() + call.patience;
    stream! {
        let (mut events, mut reader, mut count) = (events.into_data_stream(), Reader::default(), 0.0);
        while let Ok(Some(Ok(bytes))) = tokio::time::timeout_at(until, events.next()).await {
            if bytes.starts_with(b":") {
                // What keeps that stream open keeps this one open.
                yield Ok(Bytes::from_static(b":\n\n"));
            }
            for event in reader.read(&bytes) {
                if event.kind == "end" {
                    let body = serde_json::from_str(&event.data).unwrap_or(Value::Null);
                    yield Ok(message(&answer(&call.id, result(&Answer { status: StatusCode::OK, body }))));
                    return;
                }
                if let Some(told) = notification(&call.token, &event.data, &mut count) {
                    yield Ok(message(&told));
                }
            }
        }
        yield Ok(message(&answer(&call.id, pointer(&call.task, &call.answer))));
    }
}

fn answer(id: &Value, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

fn message(value: &Value) -> Bytes {
    format!("event: message\ndata: {value}\n\n").into()
}

/// What `update_state` said. The protocol wants numbers that grow: what does not is told with the last number.
fn notification(token: &Value, data: &str, count: &mut f64) -> Option<Value> {
    let event: Value = serde_json::from_str(data).ok()?;
    let meta = event.get("meta").filter(|meta| meta.is_object())?;
    let read = Progress::read(&json::verbatim(meta.to_string()).ok()?).unwrap_or_default();
    let (grown, total) = match read.done {
        Some(done) if done > *count => (done, read.total),
        _ => (*count + 1e-6, read.total),
    };
    *count = grown;
    let mut params = json!({"progressToken": token, "progress": grown});
    if let Some(total) = total {
        params["total"] = json!(total);
    }
    params["message"] = json!(read.message.unwrap_or_else(|| event["status"].as_str().unwrap_or_default().to_owned()));
    Some(json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}))
}

struct Event {
    kind: String,
    data: String,
}

/// Cuts a stream of server-sent events into events. One that is too long is dropped.
#[derive(Default)]
struct Reader {
    rest: Vec<u8>,
}

impl Reader {
    fn read(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.rest.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.rest.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&block);
            let field =
                |name: &str| text.lines().filter_map(|line| line.strip_prefix(name)).collect::<Vec<_>>().join("\n");
            let kind = field("event: ");
            if !kind.is_empty() {
                events.push(Event { kind, data: field("data: ") });
            }
        }
        if self.rest.len() > MAX_EVENT {
            self.rest.clear();
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_wherever_the_bytes_are() {
        let text =
            "retry: 1000\nid: 1\nevent: progress\ndata: {\"a\":\ndata: 1}\n\n:\n\nid: 2\nevent: end\ndata: {}\n\n";
        for at in 1..text.len() {
            let mut reader = Reader::default();
            let mut events = reader.read(&text.as_bytes()[..at]);
            events.extend(reader.read(&text.as_bytes()[at..]));
            let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
            assert_eq!(kinds, ["progress", "end"], "cut at {at}");
            assert_eq!(events[0].data, "{\"a\":\n1}");
        }
    }

    #[test]
    fn progress_only_grows() {
        let mut count = 0.0;
        let mut told =
            |meta: &str| notification(&json!("t"), &format!(r#"{{"status": "CRAWLING", "meta": {meta}}}"#), &mut count);
        let first = told(r#"{"current": 3, "total": 10, "message": "page 3"}"#).unwrap();
        assert_eq!(first["params"], json!({"progressToken": "t", "progress": 3.0, "total": 10.0, "message": "page 3"}));
        let again = told(r#"{"current": 2}"#).unwrap();
        assert!(again["params"]["progress"].as_f64().unwrap() > 3.0);
        assert_eq!(again["params"]["message"], "CRAWLING");
        assert!(told("null").is_none());
    }
}
