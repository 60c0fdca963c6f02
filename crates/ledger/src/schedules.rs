//! Schedules in the ledger.
//!
//! Invariant: a schedule's row moves forward only in the transaction that submits its tick. The replica that moves the row submits the
//! tick; a second replica finds the row moved (or locked) and does nothing. A crash undoes the move and the submission together.

use std::time::Duration;

use async_trait::async_trait;

use super::{Conflict, Cursor, Error, Inserted, Page, Submission};
use celery::task::{Json, TaskId};
use runtime::clock::Time;

/// How long a prepared firing may wait for its commit. Meanwhile its rows are locked, and the feed does not advance.
pub const MOST_AHEAD: Duration = Duration::from_millis(500);

/// A schedule's row.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// A UUID; ticks derive their task ids from it.
    pub id: String,
    pub name: String,
    /// The namespace of the keys in its call; `None` for none.
    pub namespace: Option<String>,
    /// Grows with every edit, but not when it fires.
    pub version: i64,
    /// The signature's fields, the timetable and the policies, as the client sent them.
    pub document: Json,
    pub paused: bool,
    pub created_at: Time,
    pub updated_at: Time,
    /// Intervals count from here.
    pub anchor_at: Time,
    pub next: Option<NextTick>,
    pub last_tick_at: Option<Time>,
    /// When it last fired.
    pub last_run_at: Option<Time>,
    pub last_task_id: Option<TaskId>,
    /// The numbers of the first and the last task of the last firing.
    pub last_tasks: Option<(i64, i64)>,
}

/// A tick, and when it fires, including its jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextTick {
    pub tick: Time,
    pub due_at: Time,
}

/// The new values of a schedule. The row must still have the version `expected` and the next tick `seen`: otherwise a tick that fires
/// meanwhile could be scheduled again.
#[derive(Debug, Clone)]
pub struct Edit {
    pub expected: i64,
    pub seen: Option<Time>,
    pub at: Time,
    pub document: Json,
    pub paused: bool,
    pub anchor_at: Time,
    pub next: Option<NextTick>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    Done,
    NameTaken,
    /// The configuration has created a schedule of this name before.
    SeededBefore,
}

/// The outcome of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Fired,
    /// A policy skipped it.
    Skipped,
    /// No gateway fired it in time.
    Missed,
    /// It could not be submitted.
    Failed,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::Skipped => "skipped",
            Self::Missed => "missed",
            Self::Failed => "failed",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Fired, Self::Skipped, Self::Missed, Self::Failed].into_iter().find(|outcome| outcome.as_str() == text)
    }
}

/// A tick to record, with its submission.
#[derive(Debug, Clone)]
pub struct NewRun {
    pub scheduled_at: Time,
    pub fired_at: Time,
    pub outcome: Outcome,
    pub reason: Option<String>,
    pub task_id: Option<TaskId>,
    /// Only with `Fired`.
    pub submission: Option<Submission>,
}

/// All past ticks of a schedule, and its next tick.
#[derive(Debug, Clone)]
pub struct Firing {
    pub schedule_id: String,
    pub version: i64,
    /// The tick that the row must still be waiting for.
    pub expected: Time,
    /// The newest of the runs' ticks.
    pub last_tick_at: Time,
    pub next: Option<NextTick>,
    pub runs: Vec<NewRun>,
}

/// One answer per run: the result of its submission, if it has one.
pub type Fired = Vec<Option<Result<Inserted, Conflict>>>;

#[derive(Debug, Clone)]
pub struct Run {
    pub no: i64,
    pub scheduled_at: Time,
    pub fired_at: Time,
    pub outcome: Outcome,
    pub reason: Option<String>,
    pub task_id: Option<TaskId>,
}

/// Tasks of one firing that have not ended.
#[derive(Debug, Clone)]
pub struct Firings {
    pub schedule: String,
    pub first_no: i64,
    pub last_no: i64,
}

#[async_trait]
pub trait Schedules: Send + Sync {
    /// Creates a schedule. With `seed` (it comes from the configuration) its name is stored for ever, so that a deleted one is not created again.
    async fn create_schedule(&self, schedule: &Schedule, seed: bool) -> Result<Created, Error>;

    async fn schedule(&self, name: &str) -> Result<Option<Schedule>, Error>;

    /// Schedules by name, after this one.
    async fn schedules(&self, after: Option<&str>, limit: i64) -> Result<Vec<Schedule>, Error>;

    /// Edits a schedule; returns the new version, or `None` when the row is gone, has another version, or has moved.
    async fn edit_schedule(&self, id: &str, edit: &Edit) -> Result<Option<i64>, Error>;

    /// Deletes a schedule with its runs. False when it is gone or has another version.
    async fn delete_schedule(&self, id: &str, expected: Option<i64>) -> Result<bool, Error>;

    /// Schedules that are due at or before `until`, soonest first.
    async fn upcoming(&self, until: Time, limit: i64) -> Result<Vec<Schedule>, Error>;

    /// The unfinished tasks of these firings: (schedule's name, task).
    async fn still_running(&self, firings: &[Firings]) -> Result<Vec<(String, TaskId)>, Error>;

    /// Moves each schedule forward, submits and records its runs, all in one commit that is not made before `at` (at most
    /// [`MOST_AHEAD`] from now). `None` for a schedule that another replica has locked or fired, or that was edited.
    async fn fire(&self, firings: &[Firing], at: Time) -> Result<Vec<Option<Fired>>, Error>;

    /// Records a run by hand: the schedule's next tick does not change. `None` when the schedule is gone.
    async fn run_schedule(&self, id: &str, run: &NewRun) -> Result<Option<Fired>, Error>;

    /// Newest first.
    async fn runs(&self, schedule_id: &str, page: &Page) -> Result<(Vec<Run>, Option<Cursor>), Error>;

    /// Removes up to `limit` runs from before `before`; returns how many.
    async fn prune_runs(&self, before: Time, limit: i64) -> Result<i64, Error>;
}

/// A run's row, after the attempt to submit it.
pub(super) struct RunRow {
    pub scheduled_at: Time,
    pub fired_at: Time,
    pub outcome: Outcome,
    pub reason: Option<String>,
    pub task_id: Option<TaskId>,
}

/// The changes of runs to the schedule's row.
#[derive(Default)]
pub(super) struct Last {
    pub run_at: Option<Time>,
    pub task_id: Option<TaskId>,
    pub tasks: Option<(i64, i64)>,
}

/// Decides what to write, from the answers to a schedule's submissions (in order, one per run with a submission).
pub(super) fn settle(
    runs: &[NewRun],
    answers: &mut impl Iterator<Item = Result<Inserted, Conflict>>,
) -> (Vec<RunRow>, Last, Fired) {
    let mut last = Last::default();
    let (mut rows, mut fired) = (Vec::with_capacity(runs.len()), Vec::with_capacity(runs.len()));
    for run in runs {
        let answer = run.submission.as_ref().and_then(|_| answers.next());
        rows.push(row(run, answer.as_ref()));
        if let Some(Ok(inserted)) = &answer {
            last.run_at = Some(run.fired_at);
            last.task_id.clone_from(&run.task_id);
            last.tasks = inserted.task_nos.first().copied().zip(inserted.task_nos.last().copied());
        }
        fired.push(answer);
    }
    (rows, last, fired)
}

/// The answer when a run by hand is a repetition, for which nothing is written.
pub(super) fn repetition(answers: &[Result<Inserted, Conflict>]) -> Option<Fired> {
    match answers {
        [Err(repeated @ (Conflict::Replay(_) | Conflict::KeyReused))] => Some(vec![Some(Err(repeated.clone()))]),
        _ => None,
    }
}

fn row(run: &NewRun, answer: Option<&Result<Inserted, Conflict>>) -> RunRow {
    let (outcome, reason, task_id) = match answer {
        Some(Err(Conflict::TaskId(id))) => {
            (Outcome::Skipped, Some("this tick was fired before".to_owned()), Some(id.clone()))
        }
        Some(Err(Conflict::Joined(id))) => {
            (Outcome::Skipped, Some(format!("its unique key is held by {id}")), Some(id.clone()))
        }
        Some(Err(Conflict::Limited { key, .. })) => {
            (Outcome::Skipped, Some(format!("the limit of {key} refused it")), None)
        }
        Some(Err(Conflict::GroupId(_) | Conflict::Replay(_) | Conflict::KeyReused)) => {
            (Outcome::Failed, Some("the ledger holds its group or key already".to_owned()), None)
        }
        Some(Ok(_)) | None => (run.outcome, run.reason.clone(), run.task_id.clone()),
    };
    RunRow { scheduled_at: run.scheduled_at, fired_at: run.fired_at, outcome, reason, task_id }
}

/// Plain columns of `schedule`, by name.
pub(super) struct ScheduleRow {
    pub schedule_id: String,
    pub name: String,
    pub version: i64,
    pub paused: bool,
    pub created_at: i64,
    pub updated_at: i64,
    pub anchor_at: i64,
    pub next_run_at: Option<i64>,
    pub due_at: Option<i64>,
    pub last_tick_at: Option<i64>,
    pub last_run_at: Option<i64>,
    pub last_first_no: Option<i64>,
    pub last_last_no: Option<i64>,
    pub last_task_id: Option<String>,
    pub document: String,
    pub namespace: Option<String>,
}

macro_rules! schedule_columns {
    () => {
        "schedule_id, name, version, paused, created_at, updated_at, anchor_at, next_run_at, due_at, last_tick_at, \
         last_run_at, last_first_no, last_last_no, last_task_id, document, namespace"
    };
}
pub(super) use schedule_columns;

macro_rules! read_schedule_row {
    ($row:expr) => {
        $crate::schedules::read_schedule_row!($row; schedule_id, name, version, paused, created_at, updated_at,
            anchor_at, next_run_at, due_at, last_tick_at, last_run_at, last_first_no, last_last_no, last_task_id, document, namespace)
    };
    ($row:expr; $($column:ident),+) => {
        $crate::schedules::ScheduleRow { $($column: $row.try_get(stringify!($column))?),+ }
    };
}
pub(super) use read_schedule_row;

impl TryFrom<ScheduleRow> for Schedule {
    type Error = Error;

    fn try_from(row: ScheduleRow) -> Result<Self, Error> {
        let corrupt = |column| Error::Corrupt { table: "schedule", column, row: row.schedule_id.clone() };
        let document = super::rows::json(Some(row.document)).ok().flatten().ok_or_else(|| corrupt("document"))?;
        let last_task_id = row.last_task_id.as_ref().map(TaskId::parse).transpose();
        Ok(Self {
            last_task_id: last_task_id.map_err(|_| corrupt("last_task_id"))?,
            name: row.name,
            namespace: row.namespace,
            version: row.version,
            document,
            paused: row.paused,
            created_at: Time(row.created_at),
            updated_at: Time(row.updated_at),
            anchor_at: Time(row.anchor_at),
            next: row.next_run_at.zip(row.due_at).map(|(tick, due)| NextTick { tick: Time(tick), due_at: Time(due) }),
            last_tick_at: row.last_tick_at.map(Time),
            last_run_at: row.last_run_at.map(Time),
            last_tasks: row.last_first_no.zip(row.last_last_no),
            id: row.schedule_id,
        })
    }
}

/// Plain columns of `schedule_run`.
pub(super) fn run(
    no: i64,
    (scheduled_at, fired_at): (i64, i64),
    outcome: &str,
    reason: Option<String>,
    task_id: Option<String>,
) -> Result<Run, Error> {
    let corrupt = |column| Error::Corrupt { table: "schedule_run", column, row: no.to_string() };
    Ok(Run {
        no,
        scheduled_at: Time(scheduled_at),
        fired_at: Time(fired_at),
        outcome: Outcome::parse(outcome).ok_or_else(|| corrupt("outcome"))?,
        reason,
        task_id: task_id.map(TaskId::parse).transpose().map_err(|_| corrupt("task_id"))?,
    })
}
