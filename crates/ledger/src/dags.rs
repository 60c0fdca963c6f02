//! DAGs in the ledger: each as one document, and the parts that the gateway still has to send.
//!
//! Invariants: a part is sent in the transaction that removes its row ([`Dags::release_part`]), so only the first replica sends it; its
//! tasks leave `waiting` in the same transaction. A part may be sent when all tasks before it have succeeded.

use async_trait::async_trait;

use super::{Error, Event, Message};
use crate::applied::Applied;
use celery::task::{Phase, TaskId};
use runtime::clock::Time;

/// The DAG of a submission. Its root is the submission's root.
#[derive(Debug, Clone)]
pub struct NewDag {
    pub root_id: TaskId,
    /// JSON text.
    pub document: String,
    pub parts: Vec<NewPart>,
    /// Edges from tasks that are in the ledger already to tasks of the submission, by index.
    pub joins: Vec<(TaskId, usize)>,
}

#[derive(Debug, Clone)]
pub struct NewPart {
    /// The part's first tasks, by index. All of them wait for the same tasks.
    pub entries: Vec<usize>,
    /// JSON text.
    pub document: String,
}

/// A part that may be sent now.
#[derive(Debug, Clone)]
pub struct ReadyPart {
    pub no: i64,
    pub document: String,
}

/// A task of a part, with its finished message.
#[derive(Debug, Clone)]
pub struct Release {
    pub id: TaskId,
    pub message: Message,
    /// The task is not published before this time.
    pub due_at: Option<Time>,
    pub expires_at: Option<Time>,
}

#[async_trait]
pub trait Dags: Send + Sync {
    /// The document of the DAG with this root.
    async fn dag(&self, root: &TaskId) -> Result<Option<String>, Error>;

    /// Whether any part has not been sent yet.
    async fn has_parts(&self) -> Result<bool, Error>;

    /// Up to `limit` parts with numbers above `after` whose predecessors have all succeeded, oldest first.
    async fn ready_parts(&self, after: i64, limit: i64) -> Result<Vec<ReadyPart>, Error>;

    /// Removes the part and sends those of its tasks that still wait. Does nothing when another replica has removed the part.
    async fn release_part(&self, no: i64, releases: &[Release], at: Time) -> Result<Vec<Event>, Error>;

    /// Removes up to `limit` parts that can never be sent, because a predecessor did not succeed. Returns how many.
    async fn drop_parts(&self, limit: i64) -> Result<u64, Error>;

    /// Removes up to `limit` documents whose root was submitted before this time and is pruned.
    async fn forget_dags(&self, before: Time, limit: i64) -> Result<u64, Error>;
}

/// Moves the tasks that still wait to `accepted` or `held`. Returns the changed tasks, and the releases of those tasks.
pub(crate) fn released<'a>(
    tasks: Vec<super::Task>,
    releases: &'a [Release],
    at: Time,
) -> (Applied, Vec<(i64, &'a Release)>) {
    let waiting: Vec<super::Task> = tasks.into_iter().filter(|task| task.phase == Phase::Waiting).collect();
    let found = |release: &'a Release| Some((waiting.iter().find(|task| task.id == release.id)?.no, release));
    let sent: Vec<(i64, &Release)> = releases.iter().filter_map(found).collect();
    let mut applied = Applied::new(waiting);
    for (_, release) in &sent {
        let phase = if release.due_at.is_some_and(|due| due > at) { Phase::Held } else { Phase::Accepted };
        applied.place(&release.id, phase, Some("all that it waits for has succeeded"), at);
    }
    (applied, sent)
}

impl Release {
    /// When a pass over the outbox must check the task: after `at`, which marks tasks that no replica publishes directly.
    pub(crate) fn wake_at(&self, at: Time) -> i64 {
        let due = self.due_at.map_or(at.0, |due| due.0.max(at.0)).saturating_add(1);
        due.min(self.expires_at.map_or(i64::MAX, |at| at.0))
    }
}
