//! Revokes tasks, with a verdict that says what is certain.
//!
//! `prevented` is a guarantee, so it is given only when the gateway had the message: it was never published (and the delivery's
//! marker now forbids that), or exactly this message was removed from its list. Otherwise the verdict is `signalled`: a worker has
//! the message, and the revoke was broadcast. A revoke is stored until the task ends, and sent again to workers that come online,
//! also when Redis was down meanwhile.

use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::Gateway;
use super::way::is_fanout;
use crate::live::direct::DIRECT_DEADLINE;
use crate::reconcile::removal::Removal;
use celery::commands::revoke_arguments;
use celery::task::{Phase, TaskId, pause};
use ledger::{EdgeKind, News, Revocation, Source, Task, Withdrawn};
use runtime::clock::{self, Time};

/// How long the answer waits for confirmation that the task ended.
pub(super) const CONFIRMATION: Duration = Duration::from_secs(2);

/// The detail for brokers without lists.
const STAYS: &str = "its message stays in the queue, because the broker removes no single message; the workers were told to refuse \
    it; those that come online later are told too, and may have taken it by then";

/// A request to revoke.
#[derive(Debug, Clone)]
pub struct RevokeRequest {
    /// Also stop it if it is running.
    pub terminate: bool,
    /// One of [`celery::commands::SIGNALS`].
    pub signal: String,
    /// The reason, for the task's history.
    pub reason: Option<String>,
}

impl RevokeRequest {
    /// A request that also stops a running task, with SIGTERM.
    pub fn terminating(reason: &str) -> Self {
        Self { terminate: true, signal: "SIGTERM".to_owned(), reason: Some(reason.to_owned()) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// We removed its message, so it will never run.
    Prevented,
    /// A worker has it, and the revoke was broadcast.
    Signalled,
    /// It had already ended.
    TooLate,
}

#[derive(Debug, Clone)]
pub struct Revoked {
    pub task_id: TaskId,
    pub verdict: Verdict,
    /// Whether the task is known to have stopped.
    pub confirmed: bool,
    /// One sentence that gives the evidence.
    pub detail: String,
}

#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    #[error("this ledger never saw {0}")]
    Unknown(TaskId),
    /// The revoke is recorded and will be carried out.
    #[error("Redis cannot be reached")]
    Redis(#[from] broker::Error),
    #[error("the ledger failed")]
    Ledger(#[from] ledger::Error),
}

impl Gateway {
    /// Revokes one task.
    ///
    /// # Cancel safety
    /// A dropped call may have revoked; asking again gives the verdict.
    pub async fn revoke(&self, id: &TaskId, request: &RevokeRequest) -> Result<Revoked, RevokeError> {
        self.revoke_until(id, request, Instant::now() + CONFIRMATION).await
    }

    /// As [`Gateway::revoke`], but waits for a confirmation only until `until`.
    pub(super) async fn revoke_until(
        &self,
        id: &TaskId,
        request: &RevokeRequest,
        until: Instant,
    ) -> Result<Revoked, RevokeError> {
        let task = match self.ledger.task(id).await? {
            Some(task) => task,
            None => {
                let left = until.saturating_duration_since(Instant::now());
                let enqueued = self.enqueued(id, left).await?.filter(|task| !task.is_undrained());
                enqueued.ok_or_else(|| RevokeError::Unknown(id.clone()))?
            }
        };
        if task.phase.is_final() {
            return Ok(too_late(&task));
        }
        let now = clock::now();
        let task = self.ledger.request_revoke(id, now).await?.unwrap_or(task);
        let revoking = Revoking { gateway: self, request, now, until };
        let revoked = revoking.revoke(task).await?;
        info!(task.id = %id, verdict = ?revoked.verdict, "revoked task {id}: {}", revoked.detail);
        Ok(revoked)
    }
}

/// A revoke in progress.
struct Revoking<'a> {
    gateway: &'a Gateway,
    request: &'a RevokeRequest,
    now: Time,
    /// How long to wait for a confirmation.
    until: Instant,
}

impl Revoking<'_> {
    async fn revoke(&self, task: Task) -> Result<Revoked, RevokeError> {
        match task.phase {
            Phase::Held => self.withdraw(task, "it was held, and was never published").await,
            Phase::Waiting if task.is_replaced() => self.published(task).await,
            Phase::Waiting => self.step(task).await,
            Phase::Accepted => self.accepted(task).await,
            _ => self.published(task).await,
        }
    }

    /// Only the ledger has the task, so removing its outbox row is enough.
    async fn withdraw(&self, task: Task, evidence: &str) -> Result<Revoked, RevokeError> {
        match self.gateway.ledger.withdraw(&task.id, self.news(&task)).await? {
            Withdrawn::Done(events) => {
                self.gateway.hub.publish(&events);
                Ok(prevented(&task, evidence))
            }
            Withdrawn::Published(task) => self.published(*task).await,
            Withdrawn::Finished(task) => Ok(too_late(&task)),
            Withdrawn::Unknown => Err(RevokeError::Unknown(task.id)),
        }
    }

    /// Revokes a canvas step that is still inside its predecessor's message: the ledger ends it, and workers are told to refuse it in
    /// case it is sent.
    async fn step(&self, task: Task) -> Result<Revoked, RevokeError> {
        let before = self.gateway.ledger.predecessors(&[task.no]).await?;
        if before.iter().any(|step| step.kind != EdgeKind::After && step.task.phase == Phase::Succeeded) {
            return self.published(task).await;
        }
        self.remember(&task).await?;
        let revoked = self.withdraw(task.clone(), "its turn had not come, and workers refuse it").await?;
        // The revoke is stored: workers that cannot be told now are told when they come online.
        let _ = self.broadcast(&task).await;
        let _ = self.remove(&task).await;
        Ok(revoked)
    }

    /// Revokes a task whose push may be in flight. The delivery's marker decides: if it is set here first, the message is never pushed.
    async fn accepted(&self, task: Task) -> Result<Revoked, RevokeError> {
        // A task that waits for room in its queue is never on the direct path, so removing its row is enough.
        let queue = task.queue.as_deref().unwrap_or_default();
        let takes_turns = !is_fanout(task.options.spread.as_ref());
        if takes_turns && self.gateway.windows.of(queue, task.options.fair.is_some()).is_some() {
            return self.withdraw(task, "it waited in the ledger, and was never published").await;
        }
        let Some(lists) = self.gateway.broker.lists() else { return self.unmarked(task).await };
        let tag = task.id.delivery_tag(task.delivery);
        let fresh = match lists.forbid(&tag, self.now).await {
            Ok(fresh) => fresh,
            Err(error) => {
                self.remember(&task).await?;
                return Err(error.into());
            }
        };
        // Read after setting the marker: an earlier publication is recorded by now, or has left its own marker.
        let task = match self.gateway.ledger.task(&task.id).await? {
            Some(task) if task.phase.is_final() => return Ok(too_late(&task)),
            Some(task) => task,
            None => return Err(RevokeError::Unknown(task.id)),
        };
        if fresh && task.phase.is_ours() {
            self.end(&task).await?;
            return Ok(prevented(&task, "it was not published yet, and its delivery is forbidden"));
        }
        self.published(task).await
    }

    /// Revokes a task on a broker without markers: a push in flight cannot be stopped. After the deadline of pushes none can be in
    /// flight, and the outbox has the task.
    async fn unmarked(&self, task: Task) -> Result<Revoked, RevokeError> {
        if self.now.since(task.submitted_at) > DIRECT_DEADLINE {
            return self.withdraw(task, "it waited in the ledger, and was never published").await;
        }
        self.published(task).await
    }

    /// Revokes a task whose message is in the broker or at a worker.
    async fn published(&self, task: Task) -> Result<Revoked, RevokeError> {
        self.remember(&task).await?;
        if pause::is_held_here(task.queue.as_deref()) && self.gateway.revoke_wait(&task.id).await? {
            let after = self.gateway.watcher.wait(&task.id, self.left()).await?.unwrap_or(task);
            return Ok(signalled(&after, after.phase == Phase::Revoked, "it waited, and waits no more"));
        }
        let with_worker = matches!(task.phase, Phase::Received | Phase::Running);
        if !with_worker && let Some(evidence) = self.remove(&task).await? {
            self.end(&task).await?;
            return Ok(prevented(&task, evidence));
        }
        // The task may have ended, or been removed by another revoke, meanwhile.
        match self.gateway.ledger.task(&task.id).await? {
            Some(task) if task.phase.is_final() => Ok(too_late(&task)),
            Some(task) => self.signal(task).await,
            None => Err(RevokeError::Unknown(task.id)),
        }
    }

    async fn remove(&self, task: &Task) -> Result<Option<&'static str>, broker::Error> {
        Removal::new(self.gateway.ledger.clone(), self.gateway.broker.clone()).remove(task).await
    }

    /// Broadcasts the revoke and waits a moment for the end.
    async fn signal(&self, task: Task) -> Result<Revoked, RevokeError> {
        let listeners = self.broadcast(&task).await?;
        if listeners == 0 {
            return Ok(signalled(&task, false, "no worker listens now; it is told to workers when they come online"));
        }
        if task.phase == Phase::Running && !self.request.terminate {
            return Ok(signalled(&task, false, "it runs and goes on: terminate was not asked for"));
        }
        let after = self.gateway.watcher.wait(&task.id, self.left()).await?.unwrap_or(task);
        Ok(match after.phase {
            Phase::Revoked | Phase::Expired => signalled(&after, true, "the worker confirmed it"),
            phase if phase.is_final() => signalled(&after, false, &format!("it {phase} before the revoke took effect")),
            Phase::Queued if self.gateway.broker.lists().is_none() => signalled(&after, false, STAYS),
            _ => signalled(&after, false, "the revoke was broadcast; no worker has confirmed it yet"),
        })
    }

    /// How long the answer may still wait for a confirmation.
    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    async fn broadcast(&self, task: &Task) -> Result<i64, broker::Error> {
        let arguments = revoke_arguments(&[task.id.as_str()], self.request.terminate, &self.request.signal);
        self.gateway.broker.broadcast("revoke", &arguments).await
    }

    async fn remember(&self, task: &Task) -> Result<(), ledger::Error> {
        let revocation = Revocation {
            task_id: task.id.clone(),
            requested_at: self.now,
            terminate: self.request.terminate,
            signal: self.request.signal.clone(),
            reason: self.request.reason.clone(),
        };
        self.gateway.ledger.remember_revocation(&revocation).await
    }

    /// Records the end, whatever state the task has in the ledger.
    async fn end(&self, task: &Task) -> Result<(), ledger::Error> {
        end_revoked(self.gateway, &task.id, self.news(task)).await
    }

    fn news(&self, task: &Task) -> News {
        let reason = self.request.reason.clone().unwrap_or_else(|| "revoked on request".to_owned());
        News { reason: Some(reason), ..News::new(task.id.clone(), Source::Ledger, Phase::Revoked, self.now) }
    }
}

/// Ends a task whose message no longer exists anywhere, and removes its outbox row, if there is one.
pub(super) async fn end_revoked(gateway: &Gateway, id: &TaskId, news: News) -> Result<(), ledger::Error> {
    let events = match gateway.ledger.withdraw(id, news.clone()).await? {
        Withdrawn::Done(events) => events,
        Withdrawn::Published(_) => gateway.ledger.learn(&[news], true).await?,
        Withdrawn::Finished(_) | Withdrawn::Unknown => Vec::new(),
    };
    gateway.hub.publish(&events);
    Ok(())
}

fn prevented(task: &Task, evidence: &str) -> Revoked {
    Revoked {
        task_id: task.id.clone(),
        verdict: Verdict::Prevented,
        confirmed: true,
        detail: format!("it will never run: {evidence}"),
    }
}

fn signalled(task: &Task, confirmed: bool, detail: &str) -> Revoked {
    Revoked { task_id: task.id.clone(), verdict: Verdict::Signalled, confirmed, detail: detail.to_owned() }
}

fn too_late(task: &Task) -> Revoked {
    Revoked {
        task_id: task.id.clone(),
        verdict: Verdict::TooLate,
        confirmed: true,
        detail: format!("it had ended as {} already", task.phase),
    }
}
