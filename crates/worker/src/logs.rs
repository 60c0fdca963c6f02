//! Sends log lines of tasks: collects them for a tenth of a second, sends them as worker events, and drops them when there are too many.
//! No task waits for it.
//!
//! [`TaskLogs`] takes what handlers log with `tracing`, from INFO on; commands log on standard error. Lines are numbered within
//! their run before any is dropped, so a reader sees the gaps. The log of a run is bounded: a last line says that it ends, and whatever
//! follows costs almost nothing.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
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
/// Last lines of runs that may wait besides: they are sent although many lines wait.
const RESERVE: usize = 256;
/// The log of a run ends when it has written this many times what may be sent of it, however much of that was dropped.
const WRITTEN: u64 = 16;
/// What a line counts besides its text, so that empty lines have an end too.
const LINE_BYTES: u64 = 32;
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
            if context.log_has_ended() {
                return;
            }
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

/// A line of a run, with its number, and how many lines before it were dropped since the last one that was queued.
pub(crate) struct Said {
    uuid: TaskId,
    retries: i32,
    seq: i64,
    dropped: i64,
    line: LogLine,
}

/// The sending side for lines. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LogSink {
    lines: mpsc::Sender<Said>,
    /// How many bytes are sent of one run, and the line that passes them: by it a gateway with the same bound knows that there is more.
    most: u64,
}

/// Numbers the lines of one run, and knows when its log has ended.
#[derive(Default)]
pub(crate) struct Counter {
    count: Mutex<Count>,
    has_ended: AtomicBool,
}

#[derive(Default)]
struct Count {
    next: i64,
    /// Lines since the last one that was queued.
    dropped: i64,
    /// Bytes of the lines that were queued.
    sent: u64,
    /// Bytes of all lines.
    written: u64,
}

/// The waiting lines, for the one task that sends them.
pub(crate) struct LogOutbox {
    source: mpsc::Receiver<Said>,
    events: Events,
}

impl Counter {
    /// Whether no further line is taken.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }
}

impl LogSink {
    /// `most`: how many bytes of text are sent of one run.
    pub fn new(events: Events, most: u64) -> (Self, LogOutbox) {
        let (lines, source) = mpsc::channel(CAPACITY + RESERVE);
        (Self { lines, most }, LogOutbox { source, events })
    }

    /// Queues one line of a run. A line that does not fit is dropped, but still takes its number.
    pub fn say(&self, counter: &Counter, uuid: &TaskId, retries: u32, level: &str, text: &str) {
        // Numbered and queued under one lock, so that the lines of a multi-threaded run are sent in order.
        let mut count = counter.count.lock().expect("nothing panics under this lock");
        if counter.has_ended() {
            return;
        }
        let retries = i32::try_from(retries).unwrap_or(i32::MAX);
        let said =
            |count: &Count, line| Said { uuid: uuid.clone(), retries, seq: count.next, dropped: count.dropped, line };
        let text = short(text);
        let size = (text.len() as u64).saturating_add(1);
        count.written = count.written.saturating_add(size + LINE_BYTES);
        if count.sent > self.most || count.written > self.most.saturating_mul(WRITTEN) {
            counter.has_ended.store(true, Ordering::Relaxed);
            let _ = self.lines.try_send(said(&count, self.last_line()));
            return;
        }
        let has_room = self.lines.capacity() > RESERVE;
        if has_room && self.lines.try_send(said(&count, LogLine::new(timestamp(), level, &text))).is_ok() {
            (count.sent, count.dropped) = (count.sent + size, 0);
        } else {
            count.dropped += 1;
        }
        count.next += 1;
    }

    fn last_line(&self) -> LogLine {
        let most = self.most;
        let text =
            format!("the log ends here: the worker sends at most {most} bytes of an attempt, what follows is not kept");
        LogLine::new(timestamp(), "NOTE", &text)
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
    while let Some(Said { uuid, retries, seq, dropped, line }) = said.pop_front() {
        let size = line.text.len();
        let last = logs.iter_mut().rev().find(|(log, _)| log.uuid == uuid && log.retries == retries);
        match last {
            Some((log, bytes)) if dropped == 0 && log.lines.len() < MOST_LINES && *bytes + size <= MOST_TEXT => {
                log.lines.push(line);
                *bytes += size;
                continue;
            }
            Some((log, _)) => log.dropped = dropped,
            // The lines before these have been sent already.
            None if dropped > 0 => {
                let gap = TaskLog { uuid: uuid.clone(), retries, seq: seq - dropped, lines: Vec::new(), dropped };
                logs.push((gap, 0));
            }
            None => {}
        }
        logs.push((TaskLog { uuid, retries, seq, lines: vec![line], dropped: 0 }, size));
    }
    logs.into_iter().map(|(log, _)| log).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(uuid: &str, seq: i64, dropped: i64) -> Said {
        let line = LogLine { at: 1.0, level: "INFO".to_owned(), text: seq.to_string() };
        Said { uuid: TaskId::parse(uuid).unwrap(), retries: 0, seq, dropped, line }
    }

    /// A sink of that bound, and the lines that it queues.
    fn sink(most: u64) -> (LogSink, mpsc::Receiver<Said>) {
        let (lines, source) = mpsc::channel(CAPACITY + RESERVE);
        (LogSink { lines, most }, source)
    }

    fn queued(source: &mut mpsc::Receiver<Said>) -> Vec<Said> {
        std::iter::from_fn(|| source.try_recv().ok()).collect()
    }

    #[test]
    fn lines_of_a_run_travel_together_and_a_gap_is_told() {
        let lines = [said("a", 0, 0), said("b", 0, 0), said("a", 1, 0), said("a", 5, 3), said("c", 7, 2)];
        let logs = gathered(lines.into_iter().collect());
        let shown: Vec<_> = logs.iter().map(|log| (log.uuid.as_str(), log.seq, log.lines.len(), log.dropped)).collect();
        assert_eq!(shown, [("a", 0, 2, 3), ("b", 0, 1, 0), ("a", 5, 1, 0), ("c", 5, 0, 2), ("c", 7, 1, 0)]);
    }

    #[test]
    fn an_event_has_a_bound() {
        let logs = gathered((0..450).map(|seq| said("a", seq, 0)).collect());
        assert_eq!(logs.iter().map(|log| log.lines.len()).collect::<Vec<_>>(), [200, 200, 50]);
    }

    #[test]
    fn at_the_bound_one_last_line_says_so() {
        let (sink, mut source) = sink(20);
        let (counter, id) = (Counter::default(), TaskId::parse("a").unwrap());
        for text in ["123456789", "123456789", "x", "y"] {
            sink.say(&counter, &id, 0, "INFO", text);
        }
        assert!(counter.has_ended());
        let lines = queued(&mut source);
        let shown: Vec<_> = lines.iter().map(|said| (said.seq, said.line.level.as_str())).collect();
        assert_eq!(shown, [(0, "INFO"), (1, "INFO"), (2, "INFO"), (3, "NOTE")]);
        assert!(lines[3].line.text.contains("at most 20 bytes of an attempt"), "{}", lines[3].line.text);
    }

    #[test]
    fn a_run_that_writes_faster_than_is_sent_has_an_end_and_its_last_line_is_sent() {
        let (sink, mut source) = sink(1 << 20);
        let (counter, id) = (Counter::default(), TaskId::parse("a").unwrap());
        let mut written = 0;
        while !counter.has_ended() {
            sink.say(&counter, &id, 0, "INFO", "");
            written += 1;
        }
        assert!(written < 600_000, "{written} empty lines");
        let lines = queued(&mut source);
        assert_eq!(lines.len(), CAPACITY + 1, "nothing but what may wait, and the last line");
        let last = lines.last().unwrap();
        assert_eq!(
            (last.line.level.as_str(), last.seq, last.dropped),
            ("NOTE", written - 1, written - 1 - CAPACITY as i64)
        );
    }

    #[test]
    fn a_long_line_says_how_much_is_missing() {
        let line = short(&"x".repeat(LONGEST_LINE + 10));
        assert!(line.ends_with("… (10 bytes more)") && line.len() < LONGEST_LINE + 40);
    }
}
