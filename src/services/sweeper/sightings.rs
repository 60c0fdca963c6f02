//! Deliveries that nobody announced: a worker without task events takes a message that another one had.
//!
//! A message that went back to its list is marked as redelivered, by kombu and by us. So it is known to be on its second way when it
//! is seen in a list although its worker was heard to have it, or when another worker answers for it. What was on its way and at
//! its end between two looks is seen by its end only: it came after the worker that had it was gone. That is written into the
//! history, too, once it is certain; the memory of such tasks is this process's own.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::fleet::{Fleet, Held};
use super::{Sweeper, Trouble};
use crate::broker::Present;
use crate::clock::{self, Time};
use crate::store::change::REDELIVERED;
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
    /// When this process found out.
    noted: Instant,
}

impl Orphans {
    pub fn has(&self, id: &TaskId) -> bool {
        self.0.contains_key(id)
    }

    /// Of all tasks with workers; who is not orphaned any more is forgotten when it ends.
    pub fn note(&mut self, tasks: &[Task], fleet: &Fleet) {
        for task in tasks.iter().filter(|task| is_taken(task)) {
            match fleet.gone_at(task) {
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
            self.0.insert(task.id.clone(), Orphan { delivery: task.delivery, gone_at, noted });
        }
    }
}

impl Sweeper {
    /// Writes down which of these tasks another worker has than the one that was heard to have it.
    pub(super) async fn note_elsewhere(&self, tasks: &[Task], fleet: &Fleet) -> Result<(), Trouble> {
        let news = tasks.iter().filter_map(|task| elsewhere(task, fleet.held.get(task.id.as_str())?));
        self.note_again(news.collect()).await
    }

    /// The same of tasks whose workers do not have them any more, and whose messages are in their lists.
    pub(super) async fn note_returned(&self, tasks: &[Task], present: &Present) -> Result<(), Trouble> {
        let returned = |task: &&Task| is_taken(task) && present.returned.contains(task.id.as_str());
        let news = tasks.iter().filter(returned).map(|task| again(task, Phase::Queued, clock::now(), RETURNED));
        self.note_again(news.collect()).await
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
        let (now, mut unseen) = (clock::now(), Vec::new());
        for task in self.ledger.standing(&ids).await? {
            let Some(orphan) = orphans.0.get(&task.id) else { continue };
            let ended = matches!(task.phase, Phase::Succeeded | Phase::Failed);
            let late = task.finished_at.is_some_and(|at| at > orphan.gone_at);
            if ended && late && task.delivery == orphan.delivery && fleet.gone_at(&task).is_some() {
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

/// A worker was heard to have it.
fn is_taken(task: &Task) -> bool {
    matches!(task.phase, Phase::Received | Phase::Running) && task.worker.is_some()
}

fn elsewhere(task: &Task, held: &Held) -> Option<News> {
    if !is_taken(task) || !held.redelivered {
        return None;
    }
    let is_other = task.worker.as_deref() != Some(&*held.worker);
    let is_later = |at: Time| task.started_at.is_some_and(|before| at > before && at.since(before) > APART);
    if !is_other && !held.started_at.is_some_and(is_later) {
        return None;
    }
    let phase = if held.started_at.is_some() { Phase::Running } else { Phase::Received };
    let at = held.started_at.unwrap_or_else(clock::now);
    Some(News { worker: Some(held.worker.clone()), ..again(task, phase, at, REDELIVERED) })
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

    #[test]
    fn the_same_worker_is_another_one_when_it_started_it_again() {
        let task = running();
        assert!(elsewhere(&task, &held("w1", Some(10_000_400), true)).is_none());
        assert!(elsewhere(&task, &held("w1", Some(30_000_000), true)).is_some());
        assert!(elsewhere(&task, &held("w1", None, true)).is_none());
    }
}
