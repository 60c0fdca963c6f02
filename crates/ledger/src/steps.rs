//! The part of the ledger that keeps canvases from being stuck: which task follows which.

use async_trait::async_trait;

use super::{EdgeKind, Error, Message, Task};
use celery::task::TaskId;

/// One edge with the task at its other end, without the large texts.
#[derive(Debug, Clone)]
pub struct Neighbour {
    /// The number that was asked for.
    pub of: i64,
    pub kind: EdgeKind,
    pub task: Task,
}

#[async_trait]
pub trait Steps: Send + Sync {
    /// What follows these tasks.
    async fn successors(&self, task_nos: &[i64]) -> Result<Vec<Neighbour>, Error>;

    /// What these tasks wait for.
    async fn predecessors(&self, task_nos: &[i64]) -> Result<Vec<Neighbour>, Error>;

    /// Keeps the message of a step that a worker was to send, so that it can be published from here. False when the ledger has
    /// one already, or does not know the task.
    async fn keep_message(&self, id: &TaskId, message: &Message) -> Result<bool, Error>;

    /// Adds the reason to a task that failed without one. No change of its state: it gets no `seq`.
    async fn explain(&self, id: &TaskId, reason: &str) -> Result<bool, Error>;
}
