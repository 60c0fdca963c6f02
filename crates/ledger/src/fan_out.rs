//! Large fan-outs in the ledger: accepted as a single row, and written as tasks in pieces.

use async_trait::async_trait;

use super::{Error, Inserted, Submission};
use celery::task::{GroupId, TaskId};

/// A submitted fan-out. Its group is in the same submission and counts all its tasks.
#[derive(Debug, Clone)]
pub struct NewFanOut {
    pub group_id: GroupId,
    /// The id of its first task.
    pub root_id: TaskId,
    pub total: i32,
    /// JSON text from which the tasks are built.
    pub plan: String,
}

/// A fan-out whose tasks are not all written yet.
#[derive(Debug, Clone)]
pub struct FanOut {
    pub no: i64,
    pub group_id: GroupId,
    pub root_id: TaskId,
    pub total: i32,
    /// The number of tasks written so far.
    pub written: i32,
    pub plan: String,
}

#[async_trait]
pub trait FanOuts: Send + Sync {
    /// The oldest fan-out with a number above `after`.
    async fn next_fan_out(&self, after: i64) -> Result<Option<FanOut>, Error>;

    /// Writes the next tasks and advances `written` in one transaction. `None` when another replica wrote them, so each piece is written only
    /// once.
    async fn write_piece(&self, fan_out: &FanOut, piece: &Submission) -> Result<Option<Inserted>, Error>;
}

impl FanOut {
    /// The number of written tasks after `piece`.
    pub(super) fn after(&self, piece: &Submission) -> i32 {
        self.written.saturating_add(i32::try_from(piece.tasks.len()).unwrap_or(i32::MAX))
    }
}
