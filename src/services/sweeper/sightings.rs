//! Deliveries that nobody announced: a worker without task events takes a message that another one had, or the first one was killed
//! before it was heard.
//!
//! A message that went back to its list is marked as redelivered, by kombu and by us. So it is known to be on its second way when it
//! is seen in a list or reserved although its history does not say so, or when another worker answers for it. A message that is
//! reserved while nobody was heard to take it is written down as taken: what is announced much later is its next delivery. What was
//! on its way and at its end between two looks is seen by its end only: it came after the worker that had it was gone. That is
//! written into the history, too, once it is certain; the memory of such tasks is this process's own.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::fleet::{Fleet, Held, Patience};
use super::leases::Unclear;
use super::{Sweeper, Trouble};
use crate::broker::{Present, Reservation};
use crate::clock::{self, Time};
use crate::store::change::{REDELIVERED, UNHEARD, UNHEARD_AGAIN, is_unheard, is_untold};
use crate::store::{News, Source, Task};
use crate::task::{Phase, TaskId};

/// What the history says when the message was found in its list.
const RETURNED: &str = "its message is in its queue again: the broker delivered it again";
/// What it says of a delivery that nobody saw.
const UNSEEN: &str =
    "it ended when the worker that had it was gone: the broker delivered it again, and nobody was heard to take it";

/// Two starts of one worker that are further apart are two executions.
const APART: Duration = Duration::from_secs(1);
/// A worker that was only silent is heard again within this time after an end.
const SILENCE: Duration = Duration::from_secs(5);
/// Tasks of gone workers that are remembered; of more than these the history may lack a delivery.
const ORPHANS: usize = 10_000;

/// Unfinished tasks whose worker is gone.
#[derive(Default)]
pub(super) struct Orphans(HashMap<TaskId, Orphan>);

struct Orphan {
    delivery: i32,
    /// Its worker ended nothing after this.
    gone_at: Time,
    /// Who has it was never heard, so nothing can be heard of him later.
    unheard: bool,
    /// When this process found out.
    noted: Instant,
}

impl Orphans {
    pub fn has(&self, id: &TaskId) -> bool {
        self.0.contains_key(id)
    }

    /// Of all tasks with workers; who is not orphaned any more is forgotten when it ends.
    pub fn note(&mut self, tasks: &[Task], fleet: &Fleet, patience: &Patience) {
        for task in tasks.iter().filter(|task| is_taken(task)) {
            match fleet.gone_at(task, patience) {
                Some(gone_at) => self.put(task, gone_at),
                None => drop(self.0.remove(&task.id)),
            }
        }
    }
}

impl Orphans {
    fn put(&mut self, task: &Task, gone_at: Time) {
        let noted = self.0.get(&task.id).filter(|before| before.delivery == task.delivery).map(|before| before.noted);
        if noted.is_some() || self.0.len() < ORPHANS {
            let noted = noted.unwrap_or_else(Instant::now);
            let unheard = task.worker.is_none();
            self.0.insert(task.id.clone(), Orphan { delivery: task.delivery, gone_at, unheard, noted });
        }
    }
}

impl Sweeper {
    /// Writes down which of these tasks another worker has than the one that was heard to have it.
    pub(super) async fn note_elsewhere(&self, tasks: &[Task], fleet: &Fleet) -> Result<(), Trouble> {
        let news = tasks.iter().filter_map(|task| elsewhere(task, fleet.held.get(task.id.as_str())?));
        self.note_again(news.collect()).await
    }

    /// The same of tasks that nobody answers for, whose messages are in their lists or reserved once more.
    pub(super) async fn note_returned(&self, tasks: &[Task], present: &Present) -> Result<(), Trouble> {
        let news = tasks.iter().filter_map(|task| returned(task, present));
        self.note_again(news.collect()).await
    }

    /// Writes down that somebody has what nobody was heard to take. The reservations are old: who took them had time to speak, but
    /// for a busy worker with a solo pool.
    pub(super) async fn note_taken(&self, unclear: &[Unclear], fleet: &Fleet) -> Result<(), Trouble> {
        let patience = self.patience();
        let read = |one: &Unclear| {
            let (task, held) = (one.task.as_ref()?, fleet.held.get(&one.id));
            let may_speak = held.is_some() || !fleet.may_run_at_solo(task, &patience);
            taken(task, &one.reservation, held).filter(|_| may_speak)
        };
        let (again, first): (Vec<News>, Vec<News>) = unclear.iter().filter_map(read).partition(|news| news.redelivered);
        if !first.is_empty() {
            self.hub.publish(&self.ledger.learn(&first, true).await?);
        }
        self.note_again(again).await
    }

    async fn note_again(&self, news: Vec<News>) -> Result<(), Trouble> {
        if news.is_empty() {
            return Ok(());
        }
        let events = self.ledger.learn(&news, true).await?;
        for event in &events {
            warn!(task.id = %event.task_id, "task {} was delivered again, unannounced", event.task_id);
        }
        metrics::counter!("taskgate_redeliveries_total").increment(events.len() as u64);
        self.hub.publish(&events);
        Ok(())
    }

    /// Orphans that have ended: nobody was heard to take them, and their worker did not end them.
    pub(super) async fn note_unseen(&self, orphans: &mut Orphans, unfinished: &HashSet<TaskId>) -> Result<(), Trouble> {
        let ids: Vec<TaskId> = orphans.0.keys().filter(|id| !unfinished.contains(*id)).cloned().collect();
        if ids.is_empty() {
            return Ok(());
        }
        let fleet = Fleet::read(&self.ledger).await?;
        let (now, patience, mut unseen) = (clock::now(), self.patience(), Vec::new());
        for task in self.ledger.standing(&ids).await? {
            let Some(orphan) = orphans.0.get(&task.id) else { continue };
            let ended = matches!(task.phase, Phase::Succeeded | Phase::Failed);
            let late = task.finished_at.is_some_and(|at| at > orphan.gone_at);
            let is_gone = orphan.unheard || fleet.gone_at(&task, &patience).is_some();
            if ended && late && task.delivery == orphan.delivery && is_gone {
                if orphan.noted.elapsed() < SILENCE || task.finished_at.is_some_and(|at| now.since(at) < SILENCE) {
                    continue;
                }
                warn!(task.id = %task.id, "task {} was delivered again, and nobody was heard to take it", task.id);
                unseen.push(task.id.clone());
            }
            if task.phase.is_final() {
                orphans.0.remove(&task.id);
            }
        }
        if !unseen.is_empty() {
            metrics::counter!("taskgate_redeliveries_total").increment(unseen.len() as u64);
            self.hub.publish(&self.ledger.remark(&unseen, UNSEEN, now).await?);
        }
        Ok(())
    }
}

/// A worker has it, by all that is known.
fn is_taken(task: &Task) -> bool {
    matches!(task.phase, Phase::Received | Phase::Running) && (task.worker.is_some() || is_unheard(task))
}

fn elsewhere(task: &Task, held: &Held) -> Option<News> {
    if !held.redelivered {
        return None;
    }
    let is_other = task.worker.as_deref() != Some(&*held.worker);
    let is_later = |at: Time| task.started_at.is_some_and(|before| at > before && at.since(before) > APART);
    let is_again = is_taken(task) && task.worker.is_some() && (is_other || held.started_at.is_some_and(is_later));
    if !is_again && !is_untold(task) {
        return None;
    }
    let phase = if held.started_at.is_some() { Phase::Running } else { Phase::Received };
    let at = held.started_at.unwrap_or_else(clock::now);
    Some(News { worker: Some(held.worker.clone()), ..again(task, phase, at, REDELIVERED) })
}

fn returned(task: &Task, present: &Present) -> Option<News> {
    if task.adopted {
        return None;
    }
    let untold = is_untold(task);
    if present.returned.contains(task.id.as_str()) {
        return (untold || is_taken(task)).then(|| again(task, Phase::Queued, clock::now(), RETURNED));
    }
    let reservation = present.reserved.get(task.id.as_str()).filter(|one| one.redelivered && untold)?;
    Some(again(task, Phase::Received, reservation.since()?, UNHEARD_AGAIN))
}

/// Of a message that is reserved by nobody who was heard: who has it, or that somebody has.
fn taken(task: &Task, reservation: &Reservation, held: Option<&Held>) -> Option<News> {
    let is_unheard = matches!(task.phase, Phase::Accepted | Phase::Waiting | Phase::Queued);
    if task.adopted || !is_unheard {
        return None;
    }
    let phase = if held.is_some_and(|held| held.started_at.is_some()) { Phase::Running } else { Phase::Received };
    let at = held.and_then(|held| held.started_at).or(reservation.since())?;
    if reservation.redelivered && is_untold(task) {
        let reason = if held.is_some() { REDELIVERED } else { UNHEARD_AGAIN };
        let worker = held.map(|held| held.worker.clone());
        return Some(News { worker, redelivered: true, ..again(task, phase, at, reason) });
    }
    Some(News {
        worker: held.map(|held| held.worker.clone()),
        reason: held.is_none().then(|| UNHEARD.to_owned()),
        if_seq: Some(task.seq),
        ..News::new(task.id.clone(), Source::Ledger, phase, at)
    })
}

/// One more delivery than the ledger knows of, if nothing was heard meanwhile.
fn again(task: &Task, phase: Phase, at: Time, reason: &str) -> News {
    News {
        delivery: Some(task.delivery + 1),
        retries: Some(task.retries),
        reason: Some(reason.to_owned()),
        if_seq: Some(task.seq),
        ..News::new(task.id.clone(), Source::Ledger, phase, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sample_task;

    fn running() -> Task {
        let mut task = sample_task("t", Phase::Running, Time(0));
        task.worker = Some("w1".to_owned());
        task.started_at = Some(Time(10_000_000));
        task
    }

    fn held(worker: &str, started_at: Option<i64>, redelivered: bool) -> Held {
        Held { worker: worker.to_owned(), runs_unacknowledged: true, redelivered, started_at: started_at.map(Time) }
    }

    #[test]
    fn another_worker_with_a_redelivered_message_is_a_further_delivery() {
        let task = running();
        let news = elsewhere(&task, &held("w2", Some(20_000_000), true)).expect("a delivery");
        assert_eq!((news.delivery, news.phase, news.if_seq), (Some(2), Phase::Running, Some(task.seq)));
        let waits = elsewhere(&task, &held("w2", None, true)).expect("a delivery");
        assert_eq!(waits.phase, Phase::Received);
        assert!(elsewhere(&task, &held("w2", Some(20_000_000), false)).is_none(), "its next attempt, for one");
    }

    fn reservation(redelivered: bool) -> Reservation {
        Reservation { tag: "tag".to_owned(), score: "20.0".to_owned(), redelivered }
    }

    #[test]
    fn a_reserved_message_of_which_nobody_spoke_is_taken() {
        let queued = sample_task("t", Phase::Queued, Time(0));
        let news = taken(&queued, &reservation(false), None).expect("somebody has it");
        assert_eq!((news.phase, news.delivery, news.at), (Phase::Received, None, Time(20_000_000)));
        assert_eq!((news.worker.as_deref(), news.reason.as_deref()), (None, Some(UNHEARD)));
        let named = taken(&queued, &reservation(false), Some(&held("w1", Some(21_000_000), false))).expect("it is w1");
        assert_eq!((named.phase, named.worker.as_deref(), named.reason), (Phase::Running, Some("w1"), None));
        assert!(taken(&running(), &reservation(false), None).is_none(), "its worker was heard");
    }

    #[test]
    fn a_mark_that_the_history_does_not_explain_is_a_further_delivery() {
        let queued = sample_task("t", Phase::Queued, Time(0));
        let again = taken(&queued, &reservation(true), None).expect("somebody had it before");
        assert_eq!((again.delivery, again.reason.as_deref()), (Some(2), Some(UNHEARD_AGAIN)));
        let unheard = Task { reason: Some(UNHEARD.to_owned()), ..sample_task("t", Phase::Received, Time(0)) };
        assert!(elsewhere(&unheard, &held("w2", None, true)).is_some());
        assert!(elsewhere(&queued, &held("w2", None, true)).is_some());
        let told = Task { reason: Some(RETURNED.to_owned()), delivery: 2, ..queued };
        assert!(elsewhere(&told, &held("w2", None, true)).is_none(), "the history says so already");
        assert!(taken(&told, &reservation(true), None).is_some_and(|news| news.delivery.is_none()));
    }

    #[test]
    fn a_message_that_is_back_in_its_list_or_reserved_again_is_seen_once() {
        let queued = sample_task("t", Phase::Queued, Time(0));
        let mut present = Present::default();
        assert!(returned(&queued, &present).is_none());
        present.reserved.insert("t".to_owned(), reservation(true));
        assert_eq!(returned(&queued, &present).map(|news| news.phase), Some(Phase::Received));
        present.returned.insert("t".to_owned());
        assert_eq!(returned(&queued, &present).map(|news| news.phase), Some(Phase::Queued));
        let told = Task { reason: Some(RETURNED.to_owned()), delivery: 2, ..queued };
        assert!(returned(&told, &present).is_none());
    }

    #[test]
    fn the_same_worker_is_another_one_when_it_started_it_again() {
        let task = running();
        assert!(elsewhere(&task, &held("w1", Some(10_000_400), true)).is_none());
        assert!(elsewhere(&task, &held("w1", Some(30_000_000), true)).is_some());
        assert!(elsewhere(&task, &held("w1", None, true)).is_none());
    }
}
