//! Finds redeliveries that no event reported: a worker without task events takes a message that another one had, or the first worker was
//! killed before its event arrived.
//!
//! A message that went back to its list is marked as redelivered, by kombu and by taskgate. So a redelivery is recognised when a marked
//! message is in a list or reserved although the history does not say so, or when another worker reports to have the task. A reserved
//! message that no worker has reported is recorded as taken, so a much later event means its next delivery. A task that was redelivered
//! and ended between two surveys is recognised by its end, which came after its worker died. That is added to the history once it is
//! certain; such tasks are remembered only in this process.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::fleet::{Fleet, Held, Patience};
use super::leases::Unclear;
use super::{Sweeper, Trouble};
use broker::{Present, Reservation};
use celery::task::{Phase, TaskId};
use ledger::change::{REDELIVERED, UNHEARD, UNHEARD_AGAIN, is_unheard, is_untold};
use ledger::{News, Source, Task};
use runtime::clock::{self, Time};

/// The reason in the history when the message was found in its list.
const RETURNED: &str = "its message is in its queue again: the broker delivered it again";
/// The reason for a delivery that no event reported.
const UNSEEN: &str = "it ended after the death of the worker that had it: the broker delivered it again, and no worker reported taking it";

/// Two starts by the same worker that are further apart than this are two executions.
const APART: Duration = Duration::from_secs(1);
/// A worker that was only silent is heard again within this time after the task's end.
const SILENCE: Duration = Duration::from_secs(5);
/// Maximum number of remembered tasks of dead workers; beyond it a delivery may be missing in the history.
const ORPHANS: usize = 10_000;

/// Unfinished tasks of dead workers.
#[derive(Default)]
pub(super) struct Orphans(HashMap<TaskId, Orphan>);

struct Orphan {
    delivery: i32,
    /// Its worker cannot have ended anything after this.
    gone_at: Time,
    /// Whether its worker was never heard, so that no later sign of it can be expected.
    unheard: bool,
    /// When this process noticed it.
    noted: Instant,
}

impl Orphan {
    /// Whether it ended after its worker's death, without any other report in between.
    fn is_unseen_end(&self, task: &Task) -> bool {
        let ended = matches!(task.phase, Phase::Succeeded | Phase::Failed);
        ended && task.finished_at.is_some_and(|at| at > self.gone_at) && task.delivery == self.delivery
    }
}

impl Orphans {
    /// Updates the orphans from all tasks with workers. Returns which of these are orphans.
    pub fn note(&mut self, tasks: &[Task], fleet: &Fleet, patience: &Patience) -> Vec<TaskId> {
        for task in tasks.iter().filter(|task| is_taken(task)) {
            match fleet.gone_at(task, patience) {
                Some(gone_at) => self.put(task, gone_at),
                None => drop(self.0.remove(&task.id)),
            }
        }
        tasks.iter().map(|task| &task.id).filter(|id| self.0.contains_key(*id)).cloned().collect()
    }

    /// Records that an unknown worker has these tasks.
    fn note_unheard(&mut self, taken: &[News], unclear: &[Unclear], patience: &Patience) {
        let by_nobody = |news: &&News| news.worker.is_none() && !news.redelivered;
        let since: HashMap<&TaskId, Time> =
            taken.iter().filter(by_nobody).map(|news| (&news.task_id, news.at)).collect();
        for task in unclear.iter().filter_map(|delivery| delivery.task.as_ref()) {
            if let Some(since) = since.get(&task.id) {
                self.put(&Task { worker: None, ..task.clone() }, since.plus(patience.busy));
            }
        }
    }

    fn others(&self, unfinished: &HashSet<TaskId>) -> Vec<TaskId> {
        self.0.keys().filter(|id| !unfinished.contains(*id)).cloned().collect()
    }

    /// Removes ended tasks. Returns those whose end came from an unreported worker; very recent ends are checked later.
    fn take_ended(&mut self, tasks: &[Task], now: Time, is_gone: impl Fn(&Task) -> bool) -> Vec<TaskId> {
        let mut unseen = Vec::new();
        for task in tasks.iter().filter(|task| task.phase.is_final()) {
            let Some(orphan) = self.0.get(&task.id) else { continue };
            if orphan.is_unseen_end(task) && (orphan.unheard || is_gone(task)) {
                let is_fresh = task.finished_at.is_some_and(|at| now.since(at) < SILENCE);
                if is_fresh || orphan.noted.elapsed() < SILENCE {
                    continue;
                }
                unseen.push(task.id.clone());
            }
            self.0.remove(&task.id);
        }
        unseen
    }

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
    /// Records which of these tasks are with another worker than the one that reported taking them.
    pub(super) async fn note_elsewhere(&self, tasks: &[Task], fleet: &Fleet) -> Result<(), Trouble> {
        let news = tasks.iter().filter_map(|task| elsewhere(task, fleet.held.get(task.id.as_str())?));
        self.note_again(news.collect()).await
    }

    /// Records redeliveries of tasks that no worker reports to have, whose messages are in their lists or reserved again.
    pub(super) async fn note_returned(&self, tasks: &[Task], present: &Present) -> Result<(), Trouble> {
        let news = tasks.iter().filter_map(|task| returned(task, present));
        self.note_again(news.collect()).await
    }

    /// Records that messages were taken although no worker reported it. The reservations are old enough that a worker would have reported
    /// them, except a busy one with a solo pool.
    pub(super) async fn note_taken(&self, unclear: &[Unclear], fleet: &Fleet) -> Result<(), Trouble> {
        let patience = self.patience();
        let read = |delivery: &Unclear| {
            let (task, held) = (delivery.task.as_ref()?, fleet.held.get(&delivery.id));
            let may_speak = held.is_some() || !fleet.may_run_at_solo(task, &patience);
            taken(task, &delivery.reservation, held).filter(|_| may_speak)
        };
        let (again, first): (Vec<News>, Vec<News>) = unclear.iter().filter_map(read).partition(|news| news.redelivered);
        if !first.is_empty() {
            self.orphans().note_unheard(&first, unclear, &patience);
            self.hub.publish(&self.ledger.learn(&first, true).await?);
        }
        self.note_again(again).await
    }

    /// Records which workers report to have tasks that no event mentioned: a worker without events answers when asked.
    pub(super) async fn note_answered(&self, tasks: &[Task], fleet: &Fleet) -> Result<(), Trouble> {
        let news: Vec<News> =
            tasks.iter().filter_map(|task| answered(task, fleet.held.get(task.id.as_str())?)).collect();
        if !news.is_empty() {
            self.hub.publish(&self.ledger.learn(&news, true).await?);
        }
        Ok(())
    }

    async fn note_again(&self, news: Vec<News>) -> Result<(), Trouble> {
        if news.is_empty() {
            return Ok(());
        }
        let events = self.ledger.learn(&news, true).await?;
        for event in &events {
            warn!(task.id = %event.task_id, "task {} was delivered again without an event", event.task_id);
        }
        metrics::counter!("taskgate_redeliveries_total").increment(events.len() as u64);
        self.hub.publish(&events);
        Ok(())
    }

    /// Records redeliveries of orphans that have ended: no worker reported taking them, and their own worker cannot have ended them.
    pub(super) async fn note_unseen(&self, unfinished: &HashSet<TaskId>) -> Result<(), Trouble> {
        let ids = self.orphans().others(unfinished);
        if ids.is_empty() {
            return Ok(());
        }
        let fleet = Fleet::read(&self.ledger).await?;
        let (now, patience) = (clock::now(), self.patience());
        let tasks = self.ledger.standing(&ids).await?;
        let unseen = self.orphans().take_ended(&tasks, now, |task| fleet.gone_at(task, &patience).is_some());
        if unseen.is_empty() {
            return Ok(());
        }
        for id in &unseen {
            warn!(task.id = %id, "task {id} was delivered again, and no worker reported taking it");
        }
        metrics::counter!("taskgate_redeliveries_total").increment(unseen.len() as u64);
        self.hub.publish(&self.ledger.remark(&unseen, UNSEEN, now).await?);
        Ok(())
    }
}

/// Whether a worker has it, according to the ledger.
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

fn answered(task: &Task, held: &Held) -> Option<News> {
    let is_unheard = matches!(task.phase, Phase::Waiting | Phase::Queued) && !held.redelivered;
    let phase = if held.started_at.is_some() { Phase::Running } else { Phase::Received };
    let at = held.started_at.unwrap_or_else(clock::now);
    is_unheard.then(|| News {
        worker: Some(held.worker.clone()),
        if_seq: Some(task.seq),
        ..News::new(task.id.clone(), Source::Ledger, phase, at)
    })
}

/// Whether the history lacks what was found about its message.
pub(super) fn is_news(task: &Task, present: &Present) -> bool {
    returned(task, present).is_some()
}

fn returned(task: &Task, present: &Present) -> Option<News> {
    if task.adopted {
        return None;
    }
    let untold = is_untold(task);
    if present.returned.contains(task.id.as_str()) {
        return (untold || is_taken(task)).then(|| again(task, Phase::Queued, clock::now(), RETURNED));
    }
    let reservation = present.reserved.get(task.id.as_str()).filter(|reservation| reservation.redelivered && untold)?;
    Some(again(task, Phase::Received, reservation.since()?, UNHEARD_AGAIN))
}

/// News about a message that is reserved without a report: which worker has it, or that some worker does.
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

/// News of one more delivery, unless anything else was reported meanwhile.
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
    use ledger::sample_task;

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

    #[tokio::test(start_paused = true)]
    async fn what_nobody_was_heard_to_have_and_ends_after_its_lease_was_delivered_again() {
        let patience = Patience { lost: Duration::from_secs(60), busy: Duration::from_secs(30) };
        let queued = sample_task("t", Phase::Queued, Time(0));
        let mut orphans = Orphans::default();
        let news = taken(&queued, &reservation(false), None).expect("somebody has it");
        let unclear = Unclear { reservation: reservation(false), id: "t".to_owned(), task: Some(queued.clone()) };
        let ended =
            |at: i64| Task { phase: Phase::Succeeded, finished_at: Some(Time(at * 1_000_000)), ..queued.clone() };
        for (at, unseen) in [(40, 0), (51, 1)] {
            orphans.note_unheard(std::slice::from_ref(&news), std::slice::from_ref(&unclear), &patience);
            let now = Time(90_000_000);
            assert!(orphans.take_ended(std::slice::from_ref(&queued), now, |_| false).is_empty(), "it has not ended");
            tokio::time::advance(SILENCE).await;
            assert_eq!(orphans.take_ended(&[ended(at)], now, |_| false).len(), unseen, "reserved at 20, for 30 s");
            assert!(orphans.0.is_empty());
        }
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
