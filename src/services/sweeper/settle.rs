//! Carries a verdict out: in Redis by one script, in the ledger by one transaction that looks whether the task is still what it
//! was when the verdict was made.

use metrics::counter;
use tracing::warn;

use super::steps::Remade;
use super::verdict::Remedy;
use super::{Sweeper, Trouble};
use crate::clock;
use crate::store::{Failure, News, Source, Task};
use crate::task::Phase;

impl Sweeper {
    /// Absent for certain.
    pub(super) async fn settle(&self, task: &Task, remedy: Remedy) -> Result<(), Trouble> {
        if task.revoke_requested_at.is_some() {
            if let Remedy::Restore(reservation, _) | Remedy::Discard(reservation, _) = &remedy
                && !self.broker.discard_reservation(reservation).await?
            {
                return Ok(());
            }
            return self.end_revoked(task).await;
        }
        match remedy {
            Remedy::Requeue(reason) => self.requeue(task, &reason).await,
            Remedy::Restore(reservation, reason) => {
                if self.broker.restore_reservation(&reservation).await? {
                    self.note_restored(task, &reason).await?;
                }
                Ok(())
            }
            Remedy::Discard(reservation, reason) => {
                if self.broker.discard_reservation(&reservation).await? {
                    self.lose(task, reason).await?;
                }
                Ok(())
            }
            Remedy::Lose(reason) => self.lose(task, reason).await,
        }
    }

    async fn requeue(&self, task: &Task, reason: &str) -> Result<(), Trouble> {
        let again = async || self.ledger.requeue(&task.id, task.seq, reason, clock::now()).await;
        let event = match again().await? {
            None => match self.remake(task).await? {
                Remade::Kept => again().await?,
                Remade::NotNeeded | Remade::NotYet => None,
                Remade::Never(why) => {
                    let reason = format!("no message of it is left, and it cannot be made again: {why}");
                    return self.lose(task, reason).await;
                }
            },
            event => event,
        };
        if let Some(event) = event {
            warn!(task.id = %task.id, "task {}: {reason}", task.id);
            counter!("taskgate_sweeper_repairs_total", "kind" => "requeued").increment(1);
            counter!("taskgate_tasks_requeued_total", "reason" => "absent").increment(1);
            self.hub.publish(&[event]);
            self.relay.nudge();
        }
        Ok(())
    }

    /// The message is in its list again: a further delivery, made by kombu's rule. A worker may have it already when this is
    /// written, and may have ended it; if nothing that was heard of it tells of the delivery, this does.
    async fn note_restored(&self, task: &Task, reason: &str) -> Result<(), Trouble> {
        let mut news = decided(task, Phase::Queued);
        news.delivery = Some(task.delivery + 1);
        news.reason = Some(reason.to_owned());
        let mut events = self.ledger.learn(&[news], true).await?;
        if events.is_empty() {
            let now = self.ledger.standing(std::slice::from_ref(&task.id)).await?;
            let untold: Vec<_> =
                now.into_iter().filter(|now| now.delivery == task.delivery).map(|now| now.id).collect();
            events = self.ledger.remark(&untold, reason, clock::now()).await?;
        }
        warn!(task.id = %task.id, "task {}: {reason}", task.id);
        counter!("taskgate_sweeper_repairs_total", "kind" => "restored").increment(1);
        counter!("taskgate_tasks_requeued_total", "reason" => "restored").increment(1);
        self.hub.publish(&events);
        Ok(())
    }

    /// Nobody has it, and nobody wants it: what Redis lost fulfils the revoke.
    async fn end_revoked(&self, task: &Task) -> Result<(), Trouble> {
        let mut news = decided(task, Phase::Revoked);
        news.reason = Some("it was to be revoked, and Redis lost its message".to_owned());
        self.hub.publish(&self.ledger.learn(&[news], true).await?);
        counter!("taskgate_sweeper_repairs_total", "kind" => "revoked").increment(1);
        Ok(())
    }

    async fn lose(&self, task: &Task, reason: String) -> Result<(), Trouble> {
        let mut news = decided(task, Phase::Lost);
        news.failure = Some(Failure { kind: "TaskLost".to_owned(), message: reason.clone() });
        news.reason = Some(reason);
        let events = self.ledger.learn(&[news], true).await?;
        if !events.is_empty() {
            warn!(task.id = %task.id, "task {} is lost", task.id);
            counter!("taskgate_sweeper_repairs_total", "kind" => "lost").increment(1);
            counter!("taskgate_tasks_lost_total").increment(1);
        }
        self.hub.publish(&events);
        Ok(())
    }
}

fn decided(task: &Task, phase: Phase) -> News {
    News { if_seq: Some(task.seq), ..News::new(task.id.clone(), Source::Ledger, phase, clock::now()) }
}
