//! A call whose client wants to hear of its progress: notifications, and the result as the last message of the stream.
//!
//! The task is on disk before the first notification, which says its id, so a client that goes away loses nothing: it runs on. What is
//! told are the task's own events, read through the same router and in the caller's name; a shutdown ends them, and so does the end of
//! the patience: then the answer says the id to ask for.

use std::time::Duration;

use axum::body::Body;
use celery::task::json;
use celery::task::progress::Progress;
use futures_util::StreamExt;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::{Peer, RoleServer};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The largest event that is read, in bytes: a result may be large.
const MAX_EVENT: usize = 16 << 20;
/// A client that said nothing else is told of progress for so long.
pub(super) const PATIENCE: Duration = Duration::from_mins(10);

/// A client that hears of progress.
pub(super) struct Listener {
    pub peer: Peer<RoleServer>,
    pub token: ProgressToken,
    /// The client has gone away.
    pub gone: CancellationToken,
}

impl Listener {
    /// `None` when nobody listens any more.
    async fn tell(&self, told: ProgressNotificationParam) -> Option<()> {
        self.peer.notify_progress(told).await.ok()
    }
}

/// Tells what a task's events say. Returns its end, unless the patience or the stream of events ends before.
pub(super) async fn follow(listener: &Listener, id: &str, events: Body, patience: Duration) -> Option<Value> {
    let until = Instant::now() + patience;
    let following = async {
        // The answer becomes a stream with the first message, and is kept open from then on.
        let accepted = ProgressNotificationParam::new(listener.token.clone(), 0.0);
        listener.tell(accepted.with_message(format!("{id} is accepted"))).await?;
        let (mut events, mut reader, mut count) = (events.into_data_stream(), Reader::default(), 0.0);
        while let Some(Ok(bytes)) = events.next().await {
            for event in reader.read(&bytes) {
                if event.kind == "end" {
                    return Some(serde_json::from_str(&event.data).unwrap_or(Value::Null));
                }
                if let Some(told) = notification(&listener.token, &event.data, &mut count) {
                    listener.tell(told).await?;
                }
            }
        }
        None
    };
    tokio::select! {
        ended = tokio::time::timeout_at(until, following) => ended.ok().flatten(),
        () = listener.gone.cancelled() => None,
    }
}

/// What `update_state` said. The protocol wants numbers that grow: what does not is told with the last number.
fn notification(token: &ProgressToken, data: &str, count: &mut f64) -> Option<ProgressNotificationParam> {
    let event: Value = serde_json::from_str(data).ok()?;
    let meta = event.get("meta").filter(|meta| meta.is_object())?;
    let read = Progress::read(&json::verbatim(meta.to_string()).ok()?).unwrap_or_default();
    *count = read.done.filter(|done| *done > *count).unwrap_or(*count + 1e-6);
    let message = read.message.unwrap_or_else(|| event["status"].as_str().unwrap_or_default().to_owned());
    let told = ProgressNotificationParam::new(token.clone(), *count).with_message(message);
    Some(match read.total {
        Some(total) => told.with_total(total),
        None => told,
    })
}

struct Event {
    kind: String,
    data: String,
}

/// Cuts a stream of server-sent events into events. One that is too long is dropped.
#[derive(Default)]
struct Reader {
    rest: Vec<u8>,
    /// How much of `rest` has no end of an event in it.
    searched: usize,
}

impl Reader {
    fn read(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.rest[self.searched..].windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.rest.drain(..self.searched + end + 2).collect();
            self.searched = 0;
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
        self.searched = self.rest.len().saturating_sub(1);
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmcp::model::NumberOrString;
    use serde_json::json;

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
        let (mut count, token) = (0.0, ProgressToken(NumberOrString::String("t".into())));
        let mut told =
            |meta: &str| notification(&token, &format!(r#"{{"status": "CRAWLING", "meta": {meta}}}"#), &mut count);
        let first = told(r#"{"current": 3, "total": 10, "message": "page 3"}"#).unwrap();
        let written = serde_json::to_value(first).unwrap();
        assert_eq!(written, json!({"progressToken": "t", "progress": 3.0, "total": 10.0, "message": "page 3"}));
        let again = told(r#"{"current": 2}"#).unwrap();
        assert!(again.progress > 3.0);
        assert_eq!(again.message.as_deref(), Some("CRAWLING"));
        assert!(told("null").is_none());
    }
}
