//! Resolves a task by hand, when its outcome cannot be determined otherwise.
//!
//! The operator may know more than the gateway, so only harmful decisions are refused: a task that a worker reports to run is not
//! run a second time. Any message left in Redis is removed, so that the task does not run after its end.

use std::time::Duration;

use metrics::counter;
use tracing::info;

use super::Gateway;
use super::revoke::end_revoked;
use crate::reconcile::removal::Removal;
use broker::Request;
use celery::task::json::Fields;
use celery::task::{Phase, TaskId};
use ledger::{Event, Failure, News, Source, Task};
use runtime::clock;

/// How long workers may take to report which tasks they have.
const PATIENCE: Duration = Duration::from_secs(1);

/// The decision about the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    Ignored,
    Lost,
    Rerun,
}

impl Resolution {
    pub const WORDS: [&str; 3] = ["ignored", "lost", "rerun"];

    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "ignored" => Some(Self::Ignored),
            "lost" => Some(Self::Lost),
            "rerun" => Some(Self::Rerun),
            _ => None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("this ledger never saw {0}")]
    Unknown(TaskId),
    #[error("task {id} has ended as {phase} already")]
    Ended { id: TaskId, phase: Phase },
    #[error("{worker} has task {id}: revoke it with terminate first")]
    Held { id: TaskId, worker: String },
    #[error("task {id} cannot run again: {why}")]
    NotReplayable { id: TaskId, why: &'static str },
    #[error("Redis cannot be reached")]
    Redis(#[from] broker::Error),
    #[error("the ledger failed")]
    Ledger(#[from] ledger::Error),
}

impl Gateway {
    /// Resolves a task and returns its new state.
    ///
    /// # Cancel safety
    /// A dropped call may have removed the task's message without ending the task: repeating the call completes it.
    pub async fn resolve(&self, id: &TaskId, resolution: Resolution) -> Result<Task, ResolveError> {
        let task = self.ledger.task(id).await?.ok_or_else(|| ResolveError::Unknown(id.clone()))?;
        if task.phase.is_final() {
            return Err(ResolveError::Ended { id: id.clone(), phase: task.phase });
        }
        if resolution == Resolution::Rerun {
            self.run_again(&task).await?;
        } else {
            self.end(&task, resolution).await?;
        }
        info!(task.id = %id, resolution = ?resolution, "task {id} was resolved on request");
        counter!("taskgate_repairs_total", "kind" => "resolved").increment(1);
        self.ledger.task(id).await?.ok_or_else(|| ResolveError::Unknown(id.clone()))
    }

    async fn run_again(&self, task: &Task) -> Result<(), ResolveError> {
        let refused = |why| ResolveError::NotReplayable { id: task.id.clone(), why };
        if task.adopted {
            return Err(refused("others sent it, and its message is not known here"));
        }
        if task.phase.is_ours() && !task.is_replaced() {
            return Err(refused("it has not been sent yet"));
        }
        if let Some(worker) = self.holder(&task.id).await? {
            return Err(ResolveError::Held { id: task.id.clone(), worker });
        }
        self.clear(task).await?;
        let again = "it runs again on request";
        let events = self.ledger.requeue(&[(task.id.clone(), task.seq)], again, clock::now()).await?;
        if events.is_empty() {
            return Err(refused("it has moved on meanwhile, or its message is not known"));
        }
        self.publish(&events);
        self.relay.nudge();
        Ok(())
    }

    async fn end(&self, task: &Task, resolution: Resolution) -> Result<(), ResolveError> {
        self.clear(task).await?;
        let reason = "resolved on request".to_owned();
        let news = match resolution {
            Resolution::Lost => News {
                failure: Some(Failure { kind: "TaskLost".to_owned(), message: reason.clone() }),
                ..News::new(task.id.clone(), Source::Ledger, Phase::Lost, clock::now())
            },
            Resolution::Ignored | Resolution::Rerun => {
                News::new(task.id.clone(), Source::Ledger, Phase::Ignored, clock::now())
            }
        };
        Ok(end_revoked(self, &task.id, News { reason: Some(reason), ..news }).await?)
    }

    /// Removes its message from the broker.
    async fn clear(&self, task: &Task) -> Result<(), ResolveError> {
        Removal::new(self.ledger.clone(), self.broker.clone()).remove(task).await?;
        let Some(lists) = self.broker.lists() else { return Ok(()) };
        let present = lists.present(&[]).await?;
        if let Some(reservation) = present.reserved.get(task.id.as_str()) {
            lists.discard_reservation(reservation).await?;
        }
        Ok(())
    }

    /// The worker that reports to have the task.
    async fn holder(&self, id: &TaskId) -> Result<Option<String>, ResolveError> {
        let arguments = serde_json::json!({"ids": [id.as_str()]}).to_string();
        let replies = self.broker.ask(&Request::to_all("query_task", &arguments), PATIENCE).await?;
        let has = |reply: &str| Fields::parse(reply).is_ok_and(|fields| fields.get(id.as_str()).is_some());
        Ok(replies.into_iter().find(|(_, reply)| has(reply.get())).map(|(worker, _)| worker))
    }

    fn publish(&self, events: &[Event]) {
        self.hub.publish(events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_a_resolution() {
        assert!(Resolution::WORDS.iter().all(|word| Resolution::parse(word).is_some()));
        assert_eq!(Resolution::parse("success"), None);
    }
}
