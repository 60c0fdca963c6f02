//! Operations on many tasks in the ledger: the request, the progress, the outcome.
//!
//! A step is counted only once: its update requires the number of steps that the service read before, and that the operation still runs.
//! So an operation continues after a restart, and a pause or a cancellation takes effect at the next step.

use async_trait::async_trait;
use std::str::FromStr;

use super::Error;
use runtime::clock::Time;

/// The action on each task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkAction {
    /// Send its message again as a new task.
    Retry,
    Revoke,
    /// As retry, and remove it from the dead letters.
    Requeue,
    /// Remove it from the dead letters.
    Dismiss,
}

impl BulkAction {
    pub const ALL: [Self; 4] = [Self::Retry, Self::Revoke, Self::Requeue, Self::Dismiss];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Revoke => "revoke",
            Self::Requeue => "requeue",
            Self::Dismiss => "dismiss",
        }
    }
}

impl FromStr for BulkAction {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|action| action.as_str() == text).ok_or(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkState {
    Running,
    Paused,
    Cancelled,
    Done,
}

impl BulkState {
    pub const ALL: [Self; 4] = [Self::Running, Self::Paused, Self::Cancelled, Self::Done];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
            Self::Done => "done",
        }
    }

    pub fn is_final(self) -> bool {
        matches!(self, Self::Cancelled | Self::Done)
    }
}

impl FromStr for BulkState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(())
    }
}

#[derive(Debug, Clone)]
pub struct NewBulk {
    pub id: String,
    pub action: BulkAction,
    /// JSON.
    pub plan: String,
    /// The hash of the request; a repeated request has the same.
    pub fingerprint: String,
    pub who: String,
    pub who_id: Option<String>,
    /// `None` if counting would take too long.
    pub total: Option<i64>,
    pub at: Time,
}

#[derive(Debug, Clone)]
pub struct Bulk {
    pub no: i64,
    pub id: String,
    pub action: BulkAction,
    pub state: BulkState,
    pub plan: String,
    pub fingerprint: String,
    pub who: String,
    pub who_id: Option<String>,
    pub steps: i32,
    /// All tasks with this number and above are done; `None` before the first step.
    pub at_no: Option<i64>,
    pub total: Option<i64>,
    pub done: i64,
    pub skipped: i64,
    pub failed: i64,
    /// JSON: an object of counts.
    pub outcomes: String,
    /// JSON: a list of the last refusals.
    pub errors: String,
    pub created_at: Time,
    pub changed_at: Time,
    pub finished_at: Option<Time>,
}

/// The row's values after a step: totals, not differences.
#[derive(Debug, Clone)]
pub struct BulkStep {
    pub at_no: Option<i64>,
    pub done: i64,
    pub skipped: i64,
    pub failed: i64,
    pub outcomes: String,
    pub errors: String,
    /// Whether no task is left.
    pub is_last: bool,
    pub at: Time,
}

#[async_trait]
pub trait Bulks: Send + Sync {
    /// False when the id exists already.
    async fn create_bulk(&self, bulk: &NewBulk) -> Result<bool, Error>;

    async fn bulk(&self, id: &str) -> Result<Option<Bulk>, Error>;

    /// Newest first: all, or those that this token started.
    async fn bulks(&self, limit: i64, who_id: Option<&str>) -> Result<Vec<Bulk>, Error>;

    /// The running operation with the lowest number above `after`.
    async fn next_bulk(&self, after: i64) -> Result<Option<Bulk>, Error>;

    /// Records the step after the state in `bulk`; false when it was recorded already, or the operation no longer runs.
    async fn advance_bulk(&self, bulk: &Bulk, step: &BulkStep) -> Result<bool, Error>;

    /// Changes the state of an unfinished operation; false when it has ended, or does not exist.
    async fn set_bulk_state(&self, id: &str, state: BulkState, at: Time) -> Result<bool, Error>;
}

/// The columns of a [`Bulk`], in the order of its fields.
macro_rules! bulk_columns {
    () => {
        "bulk_no, bulk_id, action, state, plan, fingerprint, who, who_id, steps, at_no, total, done, skipped, failed, outcomes, \
         errors, created_at, changed_at, finished_at"
    };
}
pub(super) use bulk_columns;

/// Reads a [`Bulk`] from a row of either driver.
macro_rules! read_bulk {
    ($row:expr) => {{
        let row = $row;
        let id: String = row.try_get("bulk_id")?;
        let corrupt = |column| $crate::Error::Corrupt { table: "bulk", column, row: id.clone() };
        Ok($crate::Bulk {
            no: row.try_get("bulk_no")?,
            action: row.try_get::<String, _>("action")?.parse().map_err(|()| corrupt("action"))?,
            state: row.try_get::<String, _>("state")?.parse().map_err(|()| corrupt("state"))?,
            plan: row.try_get("plan")?,
            fingerprint: row.try_get("fingerprint")?,
            who: row.try_get("who")?,
            who_id: row.try_get("who_id")?,
            steps: row.try_get("steps")?,
            at_no: row.try_get("at_no")?,
            total: row.try_get("total")?,
            done: row.try_get("done")?,
            skipped: row.try_get("skipped")?,
            failed: row.try_get("failed")?,
            outcomes: row.try_get("outcomes")?,
            errors: row.try_get("errors")?,
            created_at: runtime::clock::Time(row.try_get("created_at")?),
            changed_at: runtime::clock::Time(row.try_get("changed_at")?),
            finished_at: row.try_get::<Option<i64>, _>("finished_at")?.map(runtime::clock::Time),
            id,
        })
    }};
}
pub(super) use read_bulk;
