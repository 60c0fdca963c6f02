//! Sends log lines of tasks: collects them for a tenth of a second, sends them as worker events, and drops them when there are too many.
//! No task waits for it.
//!
//! [`TaskLogs`] takes what handlers log with `tracing`, from INFO on; commands log on standard error. Lines are numbered within
//! their run before any is dropped, so a reader sees the gaps.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context as Scope;

use super::context::Context;
use super::events::{Events, timestamp};
use celery::task::TaskId;
use celery::task_log::{LONGEST_LINE, LogLine, MOST_LINES, MOST_TEXT, TaskLog};

/// Most lines that wait in one process.
const CAPACITY: usize = 2_000;
/// How long lines are collected.
const PERIOD: Duration = Duration::from_millis(100);
/// Targets whose lines are left out: the worker's own lines during a run do not belong to the task.
const OWN: [&str; 4] = ["taskgate_worker", "taskgate_broker", "taskgate_celery", "taskgate_runtime"];

tokio::task_local! {
    /// The run whose handler logs.
    pub(crate) static CURRENT: Context;
}

/// A layer for `tracing_subscriber` that makes task logs of what handlers log.
///
/// ```
/// use tracing_subscriber::layer::SubscriberExt as _;
///
/// let subscriber = tracing_subscriber::registry().with(taskgate_worker::TaskLogs);
/// # drop(subscriber);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct TaskLogs;

impl<S: Subscriber> Layer<S> for TaskLogs {
    fn on_event(&self, event: &Event<'_>, _: Scope<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || OWN.iter().any(|own| metadata.target().starts_with(own)) {
            return;
        }
        // Outside of a run, the line belongs to no task.
        let _ = CURRENT.try_with(|context| {
            let mut text = Text::default();
            event.record(&mut text);
            for line in text.written().lines() {
                context.log(level(*metadata.level()), line);
            }
        });
    }
}

/// Python's name of the level.
fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

/// The message, followed by the fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn written(mut self) -> String {
        if !self.message.is_empty() && !self.fields.is_empty() {
            self.message.push(' ');
        }
        self.message + &self.fields
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            let space = if self.fields.is_empty() { "" } else { " " };
            write!(self.fields, "{space}{}={value:?}", field.name())
        };
        written.expect("a String takes every write");
    }
}

/// A line of a run, with its number.
pub(crate) struct Said {
    uuid: TaskId,
    retries: i32,
    seq: i64,
    line: LogLine,
}

/// The sending side for lines. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LogSink(mpsc::Sender<Said>);

/// Numbers the lines of one run.
#[derive(Default)]
pub(crate) struct Counter(Mutex<i64>);

/// The waiting lines, for the one task that sends them.
pub(crate) struct LogOutbox {
    source: mpsc::Receiver<Said>,
    events: Events,
}

impl LogSink {
    pub fn new(events: Events) -> (Self, LogOutbox) {
        let (sink, source) = mpsc::channel(CAPACITY);
        (Self(sink), LogOutbox { source, events })
    }

    /// Queues one line of a run. A line that does not fit is dropped, but still takes its number.
    pub fn say(&self, counter: &Counter, uuid: &TaskId, retries: u32, level: &str, text: &str) {
        let line = LogLine::new(timestamp(), level, &short(text));
        let retries = i32::try_from(retries).unwrap_or(i32::MAX);
        // Numbered and queued under one lock, so that the lines of a multi-threaded run are sent in order.
        let mut next = counter.0.lock().expect("nothing panics under this lock");
        let _ = self.0.try_send(Said { uuid: uuid.clone(), retries, seq: *next, line });
        *next += 1;
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(LONGEST_LINE) {
        None => text.to_owned(),
        Some((end, _)) => format!("{} … ({} bytes more)", &text[..end], text.len() - end),
    }
}

impl LogOutbox {
    /// Sends until all senders are gone.
    pub async fn run(mut self) {
        let mut said = Vec::with_capacity(CAPACITY);
        while self.source.recv_many(&mut said, CAPACITY).await > 0 {
            tokio::time::sleep(PERIOD).await;
            // What came meanwhile goes along, as far as there is room: whoever writes without a pause is not waited for.
            while said.len() < CAPACITY
                && let Ok(more) = self.source.try_recv()
            {
                said.push(more);
            }
            for log in gathered(said.drain(..).collect()) {
                self.events.log(&log);
            }
        }
    }
}

/// Groups lines into events; the lines in an event are from one run, in order and without gaps.
fn gathered(mut said: VecDeque<Said>) -> Vec<TaskLog> {
    let mut logs: Vec<(TaskLog, usize)> = Vec::new();
    while let Some(Said { uuid, retries, seq, line }) = said.pop_front() {
        let size = line.text.len();
        let last = logs.iter_mut().rev().find(|(log, _)| log.uuid == uuid && log.retries == retries);
        if let Some((log, bytes)) = last {
            let next = log.seq + i64::try_from(log.lines.len()).unwrap_or(i64::MAX);
            if seq == next && log.lines.len() < MOST_LINES && *bytes + size <= MOST_TEXT {
                log.lines.push(line);
                *bytes += size;
                continue;
            }
            log.dropped = (seq - next).max(0);
        }
        logs.push((TaskLog { uuid, retries, seq, lines: vec![line], dropped: 0 }, size));
    }
    logs.into_iter().map(|(log, _)| log).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(uuid: &str, seq: i64) -> Said {
        let line = LogLine { at: 1.0, level: "INFO".to_owned(), text: seq.to_string() };
        Said { uuid: TaskId::parse(uuid).unwrap(), retries: 0, seq, line }
    }

    #[test]
    fn lines_of_a_run_travel_together_and_a_gap_is_told() {
        let lines = [said("a", 0), said("b", 0), said("a", 1), said("a", 5)];
        let logs = gathered(lines.into_iter().collect());
        let shown: Vec<_> = logs.iter().map(|log| (log.uuid.as_str(), log.seq, log.lines.len(), log.dropped)).collect();
        assert_eq!(shown, [("a", 0, 2, 3), ("b", 0, 1, 0), ("a", 5, 1, 0)]);
    }

    #[test]
    fn an_event_has_a_bound() {
        let logs = gathered((0..450).map(|seq| said("a", seq)).collect());
        assert_eq!(logs.iter().map(|log| log.lines.len()).collect::<Vec<_>>(), [200, 200, 50]);
    }

    #[test]
    fn a_long_line_says_how_much_is_missing() {
        let line = short(&"x".repeat(LONGEST_LINE + 10));
        assert!(line.ends_with("… (10 bytes more)") && line.len() < LONGEST_LINE + 40);
    }
}
