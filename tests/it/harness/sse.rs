//! A reader of server-sent events that sees comments too, and gives up after a deadline.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;

use super::wait::DEADLINE;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    pub id: Option<String>,
    /// `message` when the stream named none.
    pub event: String,
    pub data: String,
}

impl Event {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The id as a number.
    #[track_caller]
    pub fn seq(&self) -> u64 {
        self.id.as_deref().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no numeric id in {self:?}"))
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Item {
    Event(Event),
    Comment(String),
}

pub struct Sse {
    response: reqwest::Response,
    buffer: Vec<u8>,
    ready: VecDeque<Item>,
}

impl Sse {
    pub fn new(response: reqwest::Response) -> Self {
        Self { response, buffer: Vec::new(), ready: VecDeque::new() }
    }

    /// The next event, comments skipped; `None` at the end of the stream.
    ///
    /// # Panics
    /// When nothing comes within the usual deadline.
    pub async fn next(&mut self) -> Option<Event> {
        self.next_within(DEADLINE).await
    }

    pub async fn next_within(&mut self, deadline: Duration) -> Option<Event> {
        let next = async {
            loop {
                match self.item().await? {
                    Item::Event(event) => return Some(event),
                    Item::Comment(_) => {}
                }
            }
        };
        tokio::time::timeout(deadline, next).await.unwrap_or_else(|_| panic!("no event within {deadline:?}"))
    }

    /// The events before the next comment.
    pub async fn until_comment(&mut self, deadline: Duration) -> Vec<Event> {
        let mut seen = Vec::new();
        let next = async {
            while let Item::Event(event) = self.item().await.expect("the stream goes on") {
                seen.push(event);
            }
        };
        tokio::time::timeout(deadline, next).await.unwrap_or_else(|_| panic!("no comment within {deadline:?}"));
        seen
    }

    /// All events until and with the first named `name`.
    pub async fn until(&mut self, name: &str) -> Vec<Event> {
        let mut seen = Vec::new();
        while let Some(event) = self.next().await {
            let last = event.event == name;
            seen.push(event);
            if last {
                return seen;
            }
        }
        panic!("the stream ended without {name}: {seen:?}");
    }

    /// All events until the server closes the stream.
    pub async fn rest(&mut self) -> Vec<Event> {
        let mut seen = Vec::new();
        while let Some(event) = self.next().await {
            seen.push(event);
        }
        seen
    }

    async fn item(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            let bytes = self.response.chunk().await.ok().flatten()?;
            self.buffer.extend_from_slice(&bytes);
            while let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                self.ready.extend(parse(&String::from_utf8(block).expect("events are UTF-8")));
            }
        }
    }
}

/// One block, up to its empty line: comments in it, and at most one event.
fn parse(block: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let (mut id, mut name, mut data) = (None, None, Vec::new());
    for line in block.lines().filter(|line| !line.is_empty()) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => items.push(Item::Comment(value.to_owned())),
            "id" => id = Some(value.to_owned()),
            "event" => name = Some(value.to_owned()),
            "data" => data.push(value.to_owned()),
            _ => {}
        }
    }
    if !data.is_empty() {
        let event = name.unwrap_or_else(|| "message".to_owned());
        items.push(Item::Event(Event { id, event, data: data.join("\n") }));
    }
    items
}

#[test]
fn comments_and_events_are_told_apart() {
    let items = parse(": alive\nid: 4\nevent: progress\ndata: {\"a\":\ndata: 1}\n\n");
    let event = Event { id: Some("4".into()), event: "progress".into(), data: "{\"a\":\n1}".into() };
    assert_eq!(items, [Item::Comment("alive".into()), Item::Event(event)]);
}
