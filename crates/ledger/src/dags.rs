//! The part of the ledger that keeps DAGs: the whole as a document, and the parts that the gateway has to send.
//!
//! Invariants: a part is sent in the transaction that removes its row ([`Dags::release_part`]), so it is sent once, by whichever replica
//! comes first; its tasks leave `waiting` in the same transaction. Whether its turn has come is read from the tasks before it.

use async_trait::async_trait;

use super::{Error, Event, Message};
use crate::applied::Applied;
use celery::task::{Phase, TaskId};
use runtime::clock::Time;

/// A DAG as a submission brings it. Its root is the submission's.
#[derive(Debug, Clone)]
pub struct NewDag {
    pub root_id: TaskId,
    /// JSON text.
    pub document: String,
    pub parts: Vec<NewPart>,
    /// Tasks that are in the ledger, and those of the submission that follow them, by index.
    pub joins: Vec<(TaskId, usize)>,
}

#[derive(Debug, Clone)]
pub struct NewPart {
    /// The tasks that start it, by index. All of them wait for the same.
    pub entries: Vec<usize>,
    /// JSON text.
    pub document: String,
}

/// A part whose turn has come.
#[derive(Debug, Clone)]
pub struct ReadyPart {
    pub no: i64,
    pub document: String,
}

/// A task that is sent now.
#[derive(Debug, Clone)]
pub struct Release {
    pub id: TaskId,
    pub message: Message,
    /// Not before.
    pub due_at: Option<Time>,
    pub expires_at: Option<Time>,
}

#[async_trait]
pub trait Dags: Send + Sync {
    /// The document of the DAG with this root.
    async fn dag(&self, root: &TaskId) -> Result<Option<String>, Error>;

    /// Whether a part waits for its turn.
    async fn has_parts(&self) -> Result<bool, Error>;

    /// Up to `limit` parts after this number of which all predecessors have succeeded, oldest first.
    async fn ready_parts(&self, after: i64, limit: i64) -> Result<Vec<ReadyPart>, Error>;

    /// Removes the part and sends those of its tasks that still wait. Nothing when somebody else removed it.
    async fn release_part(&self, no: i64, releases: &[Release], at: Time) -> Result<Vec<Event>, Error>;

    /// Removes up to `limit` parts whose turn will never come: a predecessor ended badly. Answers how many.
    async fn drop_parts(&self, limit: i64) -> Result<u64, Error>;

    /// Removes up to `limit` documents whose root was submitted before and is pruned.
    async fn forget_dags(&self, before: Time, limit: i64) -> Result<u64, Error>;
}

/// Places those that still wait. Answers the changed tasks, and those of `releases` that it placed.
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
    /// When a pass over the outbox must look at it. It is on no replica's direct way.
    pub(crate) fn wake_at(&self, at: Time) -> i64 {
        let due = self.due_at.map_or(at.0, |due| due.0.max(at.0)).saturating_add(1);
        due.min(self.expires_at.map_or(i64::MAX, |at| at.0))
    }
}
