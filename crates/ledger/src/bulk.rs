//! The part of the ledger that keeps operations on many tasks: what is asked, how far it is, what became of it.
//!
//! A step is counted once, whoever tries: it moves the row from the number of steps that its worker read, and only while the
//! operation runs. So an operation goes on after a restart where it was, and a pause or a cancellation holds from the next step on.

use async_trait::async_trait;
use std::str::FromStr;

use super::Error;
use runtime::clock::Time;

/// What is done to each task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkAction {
    /// Its message is sent again as a new task.
    Retry,
    Revoke,
    /// As retry, and it leaves the dead letters.
    Requeue,
    /// It leaves the dead letters.
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
    /// A repeated request of the same id has the same one.
    pub fingerprint: String,
    pub who: String,
    pub who_id: Option<String>,
    /// `None` where counting them all would take too long.
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
    /// All tasks of this number and above are done; `None` before the first step.
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

/// What the row says after a step: sums, not differences.
#[derive(Debug, Clone)]
pub struct BulkStep {
    pub at_no: Option<i64>,
    pub done: i64,
    pub skipped: i64,
    pub failed: i64,
    pub outcomes: String,
    pub errors: String,
    /// Nothing is left.
    pub is_last: bool,
    pub at: Time,
}

#[async_trait]
pub trait Bulks: Send + Sync {
    /// False when there is one of this id already.
    async fn create_bulk(&self, bulk: &NewBulk) -> Result<bool, Error>;

    async fn bulk(&self, id: &str) -> Result<Option<Bulk>, Error>;

    /// Newest first.
    async fn bulks(&self, limit: i64) -> Result<Vec<Bulk>, Error>;

    /// The running one with the lowest number above `after`.
    async fn next_bulk(&self, after: i64) -> Result<Option<Bulk>, Error>;

    /// Notes a step after the one that `bulk` tells of; false when it was noted already, or the operation does not run any more.
    async fn advance_bulk(&self, bulk: &Bulk, step: &BulkStep) -> Result<bool, Error>;

    /// Changes the state of one that has not ended; false when it has, or is not there.
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
