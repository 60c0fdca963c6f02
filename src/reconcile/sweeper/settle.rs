//! Carries verdicts out: in Redis by one script, in the ledger by one transaction that looks whether the tasks are still what they
//! were when the verdicts were made.

use std::collections::{HashMap, HashSet};

use metrics::counter;
use tracing::warn;

use super::steps::Remade;
use super::verdict::Remedy;
use super::{PAGE, Sweeper, Trouble};
use celery::task::{Phase, TaskId};
use ledger::{Event, Failure, News, Source, Task};
use runtime::clock;

impl Sweeper {
    /// All that is absent for certain. What is to be queued again is written down together: after Redis was emptied that is all that
    /// was queued.
    pub(super) async fn settle_all(&self, absent: Vec<(Task, Remedy)>) -> Result<(), Trouble> {
        let mut again: HashMap<String, Vec<Task>> = HashMap::new();
        for (task, remedy) in absent {
            match remedy {
                Remedy::Requeue(reason) if task.revoke_requested_at.is_none() => {
                    again.entry(reason).or_default().push(task);
                }
                remedy => self.settle(&task, remedy).await?,
            }
        }
        for (reason, tasks) in again {
            for chunk in tasks.chunks(PAGE as usize) {
                self.requeue_all(chunk, &reason).await?;
            }
        }
        Ok(())
    }

    async fn settle(&self, task: &Task, remedy: Remedy) -> Result<(), Trouble> {
        if task.revoke_requested_at.is_some() {
            if let Remedy::Restore(reservation, _) | Remedy::Discard(reservation, _) = &remedy
                && !self.broker.discard_reservation(reservation).await?
            {
                return Ok(());
            }
            return self.end_revoked(task).await;
        }
        match remedy {
            Remedy::Requeue(reason) => self.requeue_all(std::slice::from_ref(task), &reason).await,
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

    async fn requeue_all(&self, tasks: &[Task], reason: &str) -> Result<(), Trouble> {
        let events = self.requeue(tasks, reason).await?;
        let done: HashSet<&TaskId> = events.iter().map(|event| &event.task_id).collect();
        for task in tasks.iter().filter(|task| !done.contains(&task.id)) {
            match self.remake(task).await? {
                Remade::Kept => drop(self.requeue(std::slice::from_ref(task), reason).await?),
                Remade::NotNeeded | Remade::NotYet => {}
                Remade::Never(why) => {
                    let reason = format!("no message of it is left, and it cannot be made again: {why}");
                    self.lose(task, reason).await?;
                }
            }
        }
        Ok(())
    }

    /// Those that have messages and are what they were.
    async fn requeue(&self, tasks: &[Task], reason: &str) -> Result<Vec<Event>, Trouble> {
        let chosen: Vec<(TaskId, i64)> = tasks.iter().map(|task| (task.id.clone(), task.seq)).collect();
        let events = self.ledger.requeue(&chosen, reason, clock::now()).await?;
        for event in &events {
            warn!(task.id = %event.task_id, "task {}: {reason}", event.task_id);
        }
        counter!("taskgate_sweeper_repairs_total", "kind" => "requeued").increment(events.len() as u64);
        counter!("taskgate_tasks_requeued_total", "reason" => "absent").increment(events.len() as u64);
        self.hub.publish(&events);
        if !events.is_empty() {
            self.relay.nudge();
        }
        Ok(events)
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
