//! `task-log`: a worker event with lines that a task logged or printed. It is not Celery's; the Python package and our worker send it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::event::{Event, Kind};
use super::json::{self, Members};
use super::time;
use crate::task::TaskId;

/// The event's type.
pub const KIND: &str = "task-log";
/// Lines in one event.
pub const MOST_LINES: usize = 200;
/// Bytes of text in one event.
pub const MOST_TEXT: usize = 64 << 10;
/// Characters of one line.
pub const LONGEST_LINE: usize = 8_192;

/// Lines of one attempt, in order.
#[derive(Debug, Clone)]
pub struct TaskLog {
    pub uuid: TaskId,
    /// The attempt: 0 for the first.
    pub retries: i32,
    /// Number of the first line, counted within the attempt.
    pub seq: i64,
    pub lines: Vec<LogLine>,
    /// How many lines after these were dropped.
    pub dropped: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// Seconds since 1970.
    pub at: f64,
    /// Python's name of the level.
    pub level: String,
    pub text: String,
}

impl TaskLog {
    /// Reads an event, if it is a `task-log` and valid.
    pub fn read(event: &Event) -> Option<Self> {
        let Kind::Other { kind, members } = &event.kind else { return None };
        if kind != KIND {
            return None;
        }
        let member = |name: &str| members.iter().find(|(key, _)| key == name).map(|(_, value)| value.get());
        let number = |name: &str| member(name).and_then(|text| text.parse::<i64>().ok()).filter(|number| *number >= 0);
        let uuid: String = serde_json::from_str(member("uuid")?).ok()?;
        let lines: Vec<LogLine> = serde_json::from_str(member("lines")?).ok()?;
        Some(Self {
            uuid: TaskId::parse(uuid).ok()?,
            retries: i32::try_from(number("retries").unwrap_or(0)).ok()?,
            seq: number("seq")?,
            lines: lines.into_iter().take(MOST_LINES * 10).map(LogLine::cut).collect(),
            dropped: number("dropped").unwrap_or(0),
        })
    }

    /// The event, as a worker sends it.
    pub fn event(&self, hostname: &str, pid: i64, clock: i64, timestamp: Timestamp) -> Event {
        let text = |value: serde_json::Value| json::written(value.to_string());
        let members: Members = vec![
            ("uuid".to_owned(), text(self.uuid.as_str().into())),
            ("retries".to_owned(), text(self.retries.into())),
            ("seq".to_owned(), text(self.seq.into())),
            ("lines".to_owned(), text(serde_json::to_value(&self.lines).expect("texts and numbers are JSON"))),
            ("dropped".to_owned(), text(self.dropped.into())),
        ];
        let kind = Kind::Other { kind: KIND.to_owned(), members };
        Event { hostname: hostname.to_owned(), pid: Some(pid), clock, utcoffset: 0.0, timestamp, kind }
    }
}

impl LogLine {
    pub fn new(at: Timestamp, level: &str, text: &str) -> Self {
        Self { at: time::to_unix(at), level: level.to_owned(), text: text.to_owned() }.cut()
    }

    /// Cuts the line to the maximum length.
    fn cut(mut self) -> Self {
        if let Some((end, _)) = self.text.char_indices().nth(LONGEST_LINE + 64) {
            self.text.truncate(end);
        }
        if let Some((end, _)) = self.level.char_indices().nth(16) {
            self.level.truncate(end);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_read() {
        let at: Timestamp = "2026-11-30T10:00:00Z".parse().unwrap();
        let log = TaskLog {
            uuid: TaskId::parse("t").unwrap(),
            retries: 2,
            seq: 7,
            lines: vec![LogLine::new(at, "INFO", "eins \u{1F600}")],
            dropped: 3,
        };
        let payload = crate::event::encode_one(&log.event("w@h", 1, 2, at), "celeryev", "tag");
        let events = Event::decode(&payload).unwrap();
        assert_eq!(events[0].routing_key(), "task.log");
        let read = TaskLog::read(&events[0]).unwrap();
        assert_eq!((read.uuid.as_str(), read.retries, read.seq, read.dropped), ("t", 2, 7, 3));
        assert_eq!(read.lines, log.lines);
    }

    #[test]
    fn what_cannot_be_meant_is_no_log() {
        let event = |text: &str| {
            let kind =
                Kind::Other { kind: KIND.to_owned(), members: json::Fields::parse(text).unwrap().members(|_| true) };
            Event {
                hostname: String::new(),
                pid: None,
                clock: 0,
                utcoffset: 0.0,
                timestamp: Timestamp::UNIX_EPOCH,
                kind,
            }
        };
        for text in [
            r#"{"uuid": "t", "lines": []}"#,
            r#"{"uuid": "t", "seq": -1, "lines": []}"#,
            r#"{"uuid": 5, "seq": 0, "lines": []}"#,
            r#"{"uuid": "t", "seq": 0, "lines": [{"at": "x"}]}"#,
        ] {
            assert!(TaskLog::read(&event(text)).is_none(), "{text}");
        }
        let long = format!(
            r#"{{"uuid": "t", "seq": 0, "lines": [{{"at": 1, "level": "INFO", "text": "{}"}}]}}"#,
            "x".repeat(20_000)
        );
        assert!(TaskLog::read(&event(&long)).unwrap().lines[0].text.len() < 8_400);
    }
}
