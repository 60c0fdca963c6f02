//! Carries out decisions: in Redis by a script, in the ledger by a transaction that checks that the tasks have not changed since the
//! decisions were made.
//!
//! If Redis refuses a change for one task (its key has another type), the others are still settled; the next survey finds it again.
//!
//! If many tasks would run again at once without a loss of data, the cause is probably unknown to the sweeper, so none does.

use std::collections::{HashMap, HashSet};

use metrics::counter;
use tracing::{info, warn};

use super::absence::Absent;
use super::decision::{Decision, Why};
use super::steps::Remade;
use super::survey::State;
use super::{PAGE, Sweeper, Trouble};
use crate::reconcile::deliveries;
use crate::reconcile::findings::{MOST_AT_ONCE, running_if_too_many};
use celery::task::{Phase, TaskId};
use ledger::{Event, Failure, News, Source, Task};
use runtime::clock;

impl Sweeper {
    /// Settles all tasks that are certainly absent. Tasks to queue again are written together, because after a loss they may be everything
    /// that was queued.
    pub(super) async fn settle_all(&self, absent: Vec<Absent>, state: &mut State) -> Result<(), Trouble> {
        let absent = self.within_the_limit(absent, state).await?;
        let mut again: HashMap<(Why, String), Vec<Task>> = HashMap::new();
        for absence in absent {
            match absence.decision {
                Decision::Requeue(why) if absence.task.revoke_requested_at.is_none() => {
                    again.entry((why, why.sentence(&absence.about))).or_default().push(absence.task);
                }
                Decision::Unclear(doubt) => {
                    let why = doubt.sentence(&absence.about, absence.task.id.as_str());
                    state.findings.note_undecided(&absence.task, &why);
                }
                _ => alone(&absence.task, self.settle(&absence).await)?,
            }
        }
        for ((why, reason), tasks) in again {
            for chunk in tasks.chunks(PAGE as usize) {
                self.requeue_all(chunk, why, &reason).await?;
            }
        }
        Ok(())
    }

    /// Removes the tasks that would run again, if these are too many at once.
    async fn within_the_limit(&self, absent: Vec<Absent>, state: &mut State) -> Result<Vec<Absent>, Trouble> {
        // A task with a requested revoke ends instead of running again.
        let runs_again = |absence: &Absent| absence.decision.is_rerun() && absence.task.revoke_requested_at.is_none();
        let count = absent.iter().filter(|absence| runs_again(absence)).count();
        let soon = state.absences.may_run_again();
        if count == 0 || count + soon <= MOST_AT_ONCE {
            return Ok(absent);
        }
        if count <= MOST_AT_ONCE {
            // The tasks of one dead worker may be found in two surveys, and together may be too many. So they are held back, once, until
            // the next.
            let (held, rest) = absent.into_iter().partition(|absence| runs_again(absence) && !absence.is_held);
            state.absences.keep(held);
            return Ok(rest);
        }
        let Some(running) = running_if_too_many(&self.ledger, count).await? else { return Ok(absent) };
        let (stopped, rest): (Vec<Absent>, Vec<Absent>) = absent.into_iter().partition(runs_again);
        let workers = stopped.iter().map(|absence| absence.about.as_str()).collect();
        warn!("{count} tasks would run again at once, none of them does: see the incident");
        counter!("taskgate_repairs_total", "kind" => "suspended").increment(count as u64);
        state.findings.note_suspended(count, running, workers);
        state.absences.keep(stopped);
        Ok(rest)
    }

    async fn settle(&self, absence: &Absent) -> Result<(), Trouble> {
        let task = &absence.task;
        if task.revoke_requested_at.is_some() && !matches!(absence.decision, Decision::Await | Decision::Ignore(_)) {
            if let Some(reservation) = &absence.reservation
                && !self.broker.discard_reservation(reservation).await?
            {
                return Ok(());
            }
            return self.end_revoked(task).await;
        }
        match absence.decision {
            Decision::Requeue(why) => {
                self.requeue_all(std::slice::from_ref(task), why, &why.sentence(&absence.about)).await
            }
            Decision::Restore(why) => match &absence.reservation {
                Some(reservation) if self.broker.restore_reservation(reservation).await? => {
                    self.note_restored(task, &why.restored(&absence.about)).await
                }
                _ => Ok(()),
            },
            Decision::Discard(why) => match &absence.reservation {
                Some(reservation) if self.broker.discard_reservation(reservation).await? => {
                    self.lose(task, why.sentence(&absence.about)).await
                }
                _ => Ok(()),
            },
            Decision::Lose(why) => self.lose(task, why.sentence(&absence.about)).await,
            Decision::Ignore(why) => self.ignore(task, why.sentence(&absence.about)).await,
            Decision::Await => self.await_replacement(task, &absence.about).await,
            Decision::Poison => self.poison(absence).await,
            Decision::Leave | Decision::Unclear(_) => Ok(()),
        }
    }

    /// Ends a poison task. Its message is removed in the same step in which it is found, so that it is not delivered again.
    async fn poison(&self, absence: &Absent) -> Result<(), Trouble> {
        if let Some(reservation) = &absence.reservation
            && !self.broker.discard_reservation(reservation).await?
        {
            return Ok(());
        }
        self.hub.publish(&deliveries::end(&self.ledger, &absence.task).await?);
        Ok(())
    }

    async fn ignore(&self, task: &Task, reason: String) -> Result<(), Trouble> {
        let news = News { reason: Some(reason), ..decided(task, Phase::Ignored) };
        let events = self.ledger.learn(&[news], true).await?;
        if !events.is_empty() {
            info!(task.id = %task.id, "task {} ended without a report and counts as ignored", task.id);
            counter!("taskgate_repairs_total", "kind" => "ignored").increment(1);
        }
        self.hub.publish(&events);
        Ok(())
    }

    async fn await_replacement(&self, task: &Task, replacement: &str) -> Result<(), Trouble> {
        let news = News { reason: Some(format!("replaced itself by {replacement}")), ..decided(task, Phase::Waiting) };
        let events = self.ledger.learn(&[news], true).await?;
        counter!("taskgate_repairs_total", "kind" => "awaited").increment(events.len() as u64);
        self.hub.publish(&events);
        Ok(())
    }

    async fn requeue_all(&self, tasks: &[Task], why: Why, reason: &str) -> Result<(), Trouble> {
        let events = self.requeue(tasks, why, reason).await?;
        let done: HashSet<&TaskId> = events.iter().map(|event| &event.task_id).collect();
        for task in tasks.iter().filter(|task| !done.contains(&task.id)) {
            alone(task, self.requeue_remade(task, why, reason).await)?;
        }
        Ok(())
    }

    /// A task without a message.
    async fn requeue_remade(&self, task: &Task, why: Why, reason: &str) -> Result<(), Trouble> {
        match self.remake(task).await? {
            Remade::Kept => self.requeue(std::slice::from_ref(task), why, reason).await.map(drop),
            Remade::NotNeeded | Remade::NotYet => Ok(()),
            Remade::Never(why) => {
                self.lose(task, format!("no message of it is left, and it cannot be made again: {why}")).await
            }
        }
    }

    /// Queues tasks again that have messages and have not changed.
    async fn requeue(&self, tasks: &[Task], why: Why, reason: &str) -> Result<Vec<Event>, Trouble> {
        let chosen: Vec<(TaskId, i64)> = tasks.iter().map(|task| (task.id.clone(), task.seq)).collect();
        let events = self.ledger.requeue(&chosen, reason, clock::now()).await?;
        for event in &events {
            warn!(task.id = %event.task_id, "task {}: {reason}", event.task_id);
        }
        counter!("taskgate_repairs_total", "kind" => why.kind()).increment(events.len() as u64);
        counter!("taskgate_tasks_requeued_total", "reason" => "absent").increment(events.len() as u64);
        self.hub.publish(&events);
        if !events.is_empty() {
            self.relay.nudge();
        }
        Ok(events)
    }

    /// Records that a message is in its list again, as a further delivery. A worker may already have taken or even ended it by then; the
    /// entry is added only if no event has reported the delivery.
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
        counter!("taskgate_repairs_total", "kind" => "restored").increment(1);
        counter!("taskgate_tasks_requeued_total", "reason" => "restored").increment(1);
        self.hub.publish(&events);
        Ok(())
    }

    /// Its revoke was requested, and no worker and no queue has it: it ends as its caller wanted.
    async fn end_revoked(&self, task: &Task) -> Result<(), Trouble> {
        let mut news = decided(task, Phase::Revoked);
        news.reason = Some("its revoke was requested, and its message is nowhere any more".to_owned());
        self.hub.publish(&self.ledger.learn(&[news], true).await?);
        counter!("taskgate_repairs_total", "kind" => "revoked").increment(1);
        Ok(())
    }

    async fn lose(&self, task: &Task, reason: String) -> Result<(), Trouble> {
        let mut news = decided(task, Phase::Lost);
        news.failure = Some(Failure { kind: "TaskLost".to_owned(), message: reason.clone() });
        news.reason = Some(reason);
        let events = self.ledger.learn(&[news], true).await?;
        if !events.is_empty() {
            warn!(task.id = %task.id, "task {} is lost", task.id);
            counter!("taskgate_repairs_total", "kind" => "lost").increment(1);
            counter!("taskgate_tasks_lost_total").increment(1);
        }
        self.hub.publish(&events);
        Ok(())
    }
}

/// The outcome for one task, so that a pass over all of them continues.
fn alone(task: &Task, outcome: Result<(), Trouble>) -> Result<(), Trouble> {
    match outcome {
        Err(Trouble::Redis(error)) if error.is_refusal() => {
            warn!(task.id = %task.id, error = %error, "task {} cannot be repaired now: {error}", task.id);
            Ok(())
        }
        other => other,
    }
}

fn decided(task: &Task, phase: Phase) -> News {
    News { if_seq: Some(task.seq), ..News::new(task.id.clone(), Source::Ledger, phase, clock::now()) }
}
