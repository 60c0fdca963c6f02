//! Follows a task to its end, reconnecting as often as needed: each connection continues after the last event received.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use reqwest::Response;

use super::connection::{Answer, Client, Failure};
use runtime::uri::encoded;

/// How long a gateway may be unreachable while a task is followed.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);
/// Limit of one event: return values may be large.
const MOST_BYTES: usize = 64 << 20;

/// One event of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub id: Option<String>,
    pub kind: String,
    pub data: String,
}

/// Returns the result body once the task has ended. `see` is called with every event before that.
pub async fn follow(client: &Client, id: &str, mut see: impl FnMut(&Event)) -> Result<Answer, Failure> {
    let path = format!("/v1/tasks/{}/events", encoded(id));
    let (mut last, mut seen_at): (Option<String>, Option<Instant>) = (None, None);
    loop {
        let pause = match client.stream(&path, last.as_deref()).await {
            Ok(response) if response.status().as_u16() == 204 => return finished(client, id).await,
            Ok(response) => {
                let mut events = Events::new(response);
                while let Some(event) = events.next().await {
                    last = event.id.clone().or(last);
                    if event.kind == "end" {
                        return Ok(Answer { text: event.data });
                    }
                    see(&event);
                }
                seen_at = Some(Instant::now());
                events.retry
            }
            Err(Failure::Unreachable(_)) if seen_at.is_some_and(|at| at.elapsed() < PATIENCE) => PAUSE,
            Err(failure) => return Err(failure),
        };
        tokio::time::sleep(pause).await;
    }
}

/// Calls `see` with every event of an endless stream, reconnecting as often as needed, until it returns false.
pub async fn watch_all(client: &Client, path: &str, mut see: impl FnMut(&Event) -> bool) -> Result<(), Failure> {
    let (mut last, mut seen_at): (Option<String>, Option<Instant>) = (None, None);
    loop {
        let pause = match client.stream(path, last.as_deref()).await {
            Ok(response) => {
                seen_at = Some(Instant::now());
                let mut events = Events::new(response);
                while let Some(event) = events.next().await {
                    last = event.id.clone().or(last);
                    if !see(&event) {
                        return Ok(());
                    }
                }
                events.retry
            }
            Err(Failure::Unreachable(_)) if seen_at.is_some_and(|at| at.elapsed() < PATIENCE) => PAUSE,
            Err(failure) => return Err(failure),
        };
        tokio::time::sleep(pause).await;
    }
}

/// The result body of a task that has ended already.
async fn finished(client: &Client, id: &str) -> Result<Answer, Failure> {
    client.get(&format!("/result/{}", encoded(id))).await
}

/// Reads server-sent events.
struct Events {
    response: Option<Response>,
    reader: Reader,
    ready: VecDeque<Event>,
    /// The server's `retry`: how long to wait before reconnecting.
    retry: Duration,
}

impl Events {
    fn new(response: Response) -> Self {
        Self { response: Some(response), reader: Reader::default(), ready: VecDeque::new(), retry: PAUSE }
    }

    /// `None` when the stream has ended or broken off.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            match self.response.as_mut()?.chunk().await {
                Ok(Some(bytes)) => {
                    let (ready, retry) = (&mut self.ready, &mut self.retry);
                    self.reader.read(&bytes, |event| ready.push_back(event), |pause| *retry = pause);
                    if self.reader.held() > MOST_BYTES {
                        self.response = None;
                    }
                }
                Ok(None) | Err(_) => self.response = None,
            }
        }
    }
}

/// The part of an event that was received so far.
#[derive(Default)]
struct Reader {
    line: Vec<u8>,
    event: Event,
    has_data: bool,
}

impl Reader {
    fn held(&self) -> usize {
        self.line.len() + self.event.data.len()
    }

    fn read(&mut self, bytes: &[u8], mut event: impl FnMut(Event), mut retry: impl FnMut(Duration)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                let line = String::from_utf8_lossy(&line);
                self.take(line.trim_end_matches(['\n', '\r']), &mut event, &mut retry);
            }
        }
    }

    fn take(&mut self, line: &str, event: &mut impl FnMut(Event), retry: &mut impl FnMut(Duration)) {
        if line.is_empty() {
            let found = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                event(found);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.event.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.event.kind),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.has_data = true;
                self.event.data.push_str(value);
            }
            "retry" => {
                if let Ok(millis) = value.parse::<u64>() {
                    retry(Duration::from_millis(millis).min(PATIENCE));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_whatever_the_pieces_they_come_in() {
        let text = ":\n\nretry: 1500\n\nid: 4\nevent: progress\ndata: {\"ä\":\ndata: 1}\n\nid: 5\r\nevent: end\r\ndata: {}\r\n\r\n";
        for size in [1, 2, 7, 1_000] {
            let (mut reader, mut events, mut pause) = (Reader::default(), Vec::new(), Duration::ZERO);
            for piece in text.as_bytes().chunks(size) {
                reader.read(piece, |event| events.push(event), |given| pause = given);
            }
            let first = Event { id: Some("4".into()), kind: "progress".into(), data: "{\"ä\":\n1}".into() };
            let second = Event { id: Some("5".into()), kind: "end".into(), data: "{}".into() };
            assert_eq!((events, pause), (vec![first, second], Duration::from_millis(1_500)), "in pieces of {size}");
        }
    }
}
