//! The part of the ledger that keeps large fan-outs: accepted whole in one row, written out as tasks piece by piece.

use async_trait::async_trait;

use super::{Error, Inserted, Submission};
use celery::task::{GroupId, TaskId};

/// A fan-out as a submission brings it. Its group is in the same submission and counts all its tasks.
#[derive(Debug, Clone)]
pub struct NewFanOut {
    pub group_id: GroupId,
    /// The id that its first task gets.
    pub root_id: TaskId,
    pub total: i32,
    /// JSON text: what the tasks are made from.
    pub plan: String,
}

/// One that is not written out yet.
#[derive(Debug, Clone)]
pub struct FanOut {
    pub no: i64,
    pub group_id: GroupId,
    pub root_id: TaskId,
    pub total: i32,
    /// Tasks that are written.
    pub written: i32,
    pub plan: String,
}

#[async_trait]
pub trait FanOuts: Send + Sync {
    /// The oldest with a number above `after`.
    async fn next_fan_out(&self, after: i64) -> Result<Option<FanOut>, Error>;

    /// Writes the next tasks, in one transaction with the note that they are written. `None` when somebody else wrote them: a
    /// piece is written once, whoever tries.
    async fn write_piece(&self, fan_out: &FanOut, piece: &Submission) -> Result<Option<Inserted>, Error>;
}

impl FanOut {
    /// The count after `piece`.
    pub(super) fn after(&self, piece: &Submission) -> i32 {
        self.written.saturating_add(i32::try_from(piece.tasks.len()).unwrap_or(i32::MAX))
    }
}
