//! Reads tasks and groups from the ledger; works while Redis is down, and after Redis has lost its data.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Gateway;
use crate::guard::tokens::Visibility;
use celery::task::{GroupId, TaskId};
use ledger::{EdgeKind, Error, Group, Message, Task};
use runtime::clock::Time;

/// What an id refers to.
#[derive(Debug)]
pub enum Found {
    Task(Arc<Task>),
    Group(Group),
    /// Finished and pruned at this time.
    Pruned(Time),
    /// This ledger never saw it.
    Unknown,
}

/// Nodes and edges.
pub type Graph = (Vec<Task>, Vec<(TaskId, TaskId, EdgeKind)>);

impl Gateway {
    /// As [`Gateway::find`], for a caller that may see only some tasks: for the others it gets `Unknown` at once.
    pub async fn find_for(&self, visibility: &Visibility, id: &str, patience: Duration) -> Result<Found, Error> {
        if !visibility.is_limited() {
            return self.find(id, patience).await;
        }
        let found = self.find(id, Duration::ZERO).await?;
        match &found {
            Found::Task(task) if visibility.sees_task(task) => {}
            Found::Group(group) if visibility.sees_group(group) => {}
            // The name of a pruned task is not known any more, so it cannot be shown.
            Found::Task(_) | Found::Group(_) | Found::Pruned(_) | Found::Unknown => return Ok(Found::Unknown),
        }
        if patience.is_zero() { Ok(found) } else { self.find(id, patience).await }
    }

    /// Looks up an id, first as a task. With `patience` it waits that long for the end.
    pub async fn find(&self, id: &str, patience: Duration) -> Result<Found, Error> {
        let Ok(task_id) = TaskId::parse(id) else { return Ok(Found::Unknown) };
        let task = if patience.is_zero() {
            self.reads.task(&task_id).await?
        } else {
            self.watcher.wait(&task_id, patience).await?.map(Arc::new)
        };
        if let Some(task) = task {
            return Ok(Found::Task(self.restored(task).await));
        }
        self.find_group(id, patience).await
    }

    async fn find_group(&self, id: &str, patience: Duration) -> Result<Found, Error> {
        let Ok(group_id) = GroupId::parse(id) else { return Ok(Found::Unknown) };
        let group = if patience.is_zero() {
            self.ledger.group(&group_id).await?
        } else {
            self.watcher.wait_for_group(&group_id, patience).await?
        };
        match group {
            Some(group) => Ok(Found::Group(group)),
            None => match self.ledger.tombstone(id).await? {
                Some(at) => Ok(Found::Pruned(at)),
                None => self.find_undrained(id, patience).await,
            },
        }
    }

    /// Finds a committed call in an inbox even if it is not drained yet.
    async fn find_undrained(&self, id: &str, patience: Duration) -> Result<Found, Error> {
        let Ok(task_id) = TaskId::parse(id) else { return Ok(Found::Unknown) };
        let deadline = Instant::now() + patience;
        let Some(task) = self.enqueued(&task_id, patience).await? else { return Ok(Found::Unknown) };
        let left = deadline.saturating_duration_since(Instant::now());
        if task.is_undrained() || left.is_zero() {
            return Ok(Found::Task(Arc::new(task)));
        }
        Ok(self.watcher.wait(&task_id, left).await?.map_or(Found::Unknown, |task| Found::Task(Arc::new(task))))
    }

    /// A task with its message.
    pub async fn task_with_message(&self, id: &TaskId) -> Result<Option<(Task, Option<Message>)>, Error> {
        let Some(task) = self.ledger.task(id).await? else { return Ok(None) };
        let message = self.ledger.message(id).await?;
        Ok(Some((task, message)))
    }

    /// All tasks of the canvas that a task belongs to, and the edges between them.
    pub async fn graph(&self, id: &TaskId) -> Result<Option<Graph>, Error> {
        self.ledger.graph(id).await
    }
}
