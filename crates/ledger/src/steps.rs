//! Edges between tasks in the ledger, for the service that repairs canvases that are stuck.

use async_trait::async_trait;

use super::{EdgeKind, Error, Message, Task};
use celery::task::TaskId;

/// An edge with the task at its other end, without the large texts.
#[derive(Debug, Clone)]
pub struct Neighbour {
    /// The number of the requested task.
    pub of: i64,
    pub kind: EdgeKind,
    pub task: Task,
}

#[async_trait]
pub trait Steps: Send + Sync {
    /// The successors of these tasks.
    async fn successors(&self, task_nos: &[i64]) -> Result<Vec<Neighbour>, Error>;

    /// The predecessors of these tasks.
    async fn predecessors(&self, task_nos: &[i64]) -> Result<Vec<Neighbour>, Error>;

    /// Stores the message of a step that a worker had to send, so that the gateway can publish it. False when the ledger has a message
    /// already, or does not know the task.
    async fn keep_message(&self, id: &TaskId, message: &Message) -> Result<bool, Error>;

    /// Adds the reason to a task that failed without one. This is not a change of its state, so it gets no `seq`.
    async fn explain(&self, id: &TaskId, reason: &str) -> Result<bool, Error>;
}
