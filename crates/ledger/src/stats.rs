//! Statistics in the ledger: figures by minute, by hour and for all time.
//!
//! Invariant: an event is counted exactly once. A fold states the feed position that it starts from, and the mark moves with the figures
//! in one transaction; if two replicas fold the same events, one of them changes nothing.

use async_trait::async_trait;

use super::Error;
use celery::task::Phase;
use runtime::clock::Time;

/// All measures.
pub const MEASURES: [&str; 25] = [
    "accepted",
    "received",
    "started",
    "retried",
    "rejected",
    "succeeded",
    "failed",
    "revoked",
    "expired",
    "skipped",
    "lost",
    "ignored",
    "wait",
    "run",
    "wait_us",
    "run_us",
    "error",
    "raised",
    "samples",
    "queue_waiting",
    "queue_age_ms",
    "worker_samples",
    "worker_active",
    "worker_slots",
    "worker_kib",
];

/// The status of a task whose message its worker rejected: the worker no longer has it, and its outcome is unknown.
pub const REJECTED: &str = "REJECTED";

/// The time that a figure covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Span {
    /// Since the ledger was created: never shrinks, so it can be a counter.
    Ever,
    Minute,
    Hour,
}

impl Span {
    pub const ALL: [Self; 3] = [Self::Ever, Self::Minute, Self::Hour];

    /// Its length in seconds; zero for all time.
    pub const fn secs(self) -> i32 {
        match self {
            Self::Ever => 0,
            Self::Minute => 60,
            Self::Hour => 3_600,
        }
    }

    /// The beginning of the span that contains a moment.
    pub fn start(self, at: Time) -> Time {
        match i64::from(self.secs()) * 1_000_000 {
            0 => Time(0),
            micros => Time(at.0 - at.0.rem_euclid(micros)),
        }
    }
}

/// The key of a figure.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counted {
    pub span: Span,
    pub at: Time,
    /// A phase, `accepted`, `started`, `wait`, `run`, …
    pub measure: &'static str,
    /// The bucket of a histogram; -1 for a plain count.
    pub bucket: i16,
    /// The task's name; empty while it is unknown.
    pub name: String,
    /// For `raised` it begins with the exception, see [`raised`].
    pub queue: String,
}

/// The key by which failures are counted within a task's name: the exception's class and the queue, in one text.
pub fn raised(exception: &str, queue: &str) -> String {
    format!("{exception}{SEPARATOR}{queue}")
}

/// The exception's class and the queue.
pub fn raised_parts(text: &str) -> (&str, &str) {
    text.split_once(SEPARATOR).unwrap_or((text, ""))
}

/// A character that no class name contains.
const SEPARATOR: char = '\u{1f}';

/// A kind of failure.
#[derive(Debug, Clone, PartialEq)]
pub struct FailureKind {
    pub fingerprint: String,
    pub name: String,
    pub kind: String,
    /// The innermost frame of the traceback.
    pub frame: Option<String>,
    /// The message of the newest failure.
    pub message: String,
    pub first_at: Time,
    pub last_at: Time,
    pub last_task_id: String,
}

/// The fields of a finished task that statistics need.
#[derive(Debug, Clone)]
pub struct Ended {
    pub task_no: i64,
    pub submitted_at: Time,
    pub due_at: Option<Time>,
    pub started_at: Option<Time>,
    pub finished_at: Option<Time>,
    /// Seconds.
    pub runtime: Option<f64>,
    pub failure_type: Option<String>,
    pub failure_message: Option<String>,
    pub traceback: Option<String>,
}

/// What a section of the feed adds to the figures.
#[derive(Debug, Default)]
pub struct Tally {
    /// The feed position up to which it was read.
    pub to: i64,
    pub counts: Vec<Count>,
    pub ends: Vec<End>,
}

/// A count of events with the same fields: first events, and events of counted phases. Ends are listed one by one.
#[derive(Debug)]
pub struct Count {
    /// The beginning of their minute.
    pub at: Time,
    /// Whether they are the first events of their tasks.
    pub is_first: bool,
    pub phase: Phase,
    pub status: String,
    pub name: Option<String>,
    pub queue: Option<String>,
    pub amount: i64,
}

/// An event that ended its task.
#[derive(Debug)]
pub struct End {
    pub at: Time,
    pub phase: Phase,
    pub task_id: String,
    pub name: Option<String>,
    pub queue: Option<String>,
    pub ended: Ended,
}

/// Which figures to read.
#[derive(Debug, Clone)]
pub struct Window {
    pub span: Span,
    /// Inclusive.
    pub from: Time,
    /// Exclusive.
    pub to: Time,
    /// Figures are summed over this many microseconds, at least the span's length.
    pub step_micros: i64,
    pub measures: Vec<&'static str>,
    /// Task names; empty for all.
    pub names: Vec<String>,
    pub queues: Vec<String>,
    /// Whether to return a figure per name, or one for all names.
    pub by_name: bool,
    /// Whether to return a figure per queue, or one for all queues.
    pub by_queue: bool,
}

/// A sum of figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    pub at: Time,
    pub measure: String,
    pub bucket: i16,
    /// Empty unless `by_name`.
    pub name: String,
    /// Empty unless `by_queue`.
    pub queue: String,
    pub amount: i64,
}

#[async_trait]
pub trait Stats: Send + Sync {
    /// The feed position up to which events are counted.
    async fn folded(&self) -> Result<i64, Error>;

    /// Adds up at most `limit` events after a position of the feed.
    async fn tally(&self, from: i64, limit: i64) -> Result<Tally, Error>;

    /// The fields of these tasks for the statistics; pruned tasks are missing.
    async fn ended(&self, task_nos: &[i64]) -> Result<Vec<Ended>, Error>;

    /// Adds the amounts and moves the mark in one transaction; false, without any change, when the mark is not at `from`.
    async fn fold(
        &self,
        from: i64,
        to: i64,
        amounts: &[(Counted, i64)],
        failures: &[FailureKind],
    ) -> Result<bool, Error>;

    /// Adds amounts that do not come from events; the keys of a call must be distinct.
    async fn sample(&self, amounts: &[(Counted, i64)]) -> Result<(), Error>;

    /// The figures, ascending by time.
    async fn figures(&self, window: &Window) -> Result<Vec<Figure>, Error>;

    /// These kinds of failures; unknown ones are missing.
    async fn failure_kinds(&self, fingerprints: &[String]) -> Result<Vec<FailureKind>, Error>;

    /// Deletes figures of this span that began before.
    async fn forget_figures(&self, span: Span, before: Time) -> Result<i64, Error>;
}

impl FailureKind {
    /// Merges two records of the same kind.
    pub fn merge(&mut self, other: Self) {
        self.first_at = self.first_at.min(other.first_at);
        if other.last_at >= self.last_at {
            (self.last_at, self.message, self.last_task_id) = (other.last_at, other.message, other.last_task_id);
        }
    }
}

/// Reads rows of both adapters' statements, by column index.
macro_rules! read_ended {
    ($row:expr) => {{
        let row = $row;
        Ok::<_, $crate::Error>($crate::Ended {
            task_no: row.try_get(0)?,
            submitted_at: ::runtime::clock::Time(row.try_get(1)?),
            due_at: row.try_get::<Option<i64>, _>(2)?.map(::runtime::clock::Time),
            started_at: row.try_get::<Option<i64>, _>(3)?.map(::runtime::clock::Time),
            finished_at: row.try_get::<Option<i64>, _>(4)?.map(::runtime::clock::Time),
            runtime: row.try_get(5)?,
            failure_type: row.try_get(6)?,
            failure_message: row.try_get(7)?,
            traceback: row.try_get(8)?,
        })
    }};
}
pub(super) use read_ended;

macro_rules! read_end {
    ($row:expr) => {{
        let row = $row;
        let ended = $crate::stats::read_ended!(row)?;
        Ok::<_, $crate::Error>($crate::End {
            at: ::runtime::clock::Time(row.try_get(9)?),
            phase: $crate::rows::phase(row.try_get(10)?, "event", ended.task_no)?,
            task_id: row.try_get(11)?,
            name: row.try_get(12)?,
            queue: row.try_get(13)?,
            ended,
        })
    }};
}
pub(super) use read_end;

macro_rules! read_count {
    ($row:expr) => {{
        let row = $row;
        Ok::<_, $crate::Error>($crate::Count {
            at: ::runtime::clock::Time(row.try_get(0)?),
            is_first: row.try_get(1)?,
            phase: $crate::rows::phase(row.try_get(2)?, "event", 0)?,
            status: row.try_get(3)?,
            name: row.try_get(4)?,
            queue: row.try_get(5)?,
            amount: row.try_get(6)?,
        })
    }};
}
pub(super) use read_count;

macro_rules! read_figure {
    ($row:expr) => {{
        let row = $row;
        Ok::<_, $crate::Error>($crate::Figure {
            at: ::runtime::clock::Time(row.try_get(0)?),
            measure: row.try_get(1)?,
            bucket: row.try_get(2)?,
            name: row.try_get(3)?,
            queue: row.try_get(4)?,
            amount: row.try_get(5)?,
        })
    }};
}
pub(super) use read_figure;

macro_rules! read_failure_kind {
    ($row:expr) => {{
        let row = $row;
        Ok::<_, $crate::Error>($crate::FailureKind {
            fingerprint: row.try_get(0)?,
            name: row.try_get(1)?,
            kind: row.try_get(2)?,
            frame: row.try_get(3)?,
            message: row.try_get(4)?,
            first_at: ::runtime::clock::Time(row.try_get(5)?),
            last_at: ::runtime::clock::Time(row.try_get(6)?),
            last_task_id: row.try_get(7)?,
        })
    }};
}
pub(super) use read_failure_kind;
