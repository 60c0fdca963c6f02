//! Counts the deliveries of a task's message, and stops after the last allowed one: a task that crashes its worker would otherwise be
//! delivered for ever.
//!
//! The task's history is what counts. Deliveries that Redis lost are not counted, nor those that a worker gave back before it began the
//! task: a rolling restart of the fleet may cause many. When a task begins for the last time, its message is removed from `unacked`, so
//! that it cannot be delivered again whatever happens to that run. The sweeper ends the task when no worker has it any more, unless it
//! has ended by itself.
//!
//! Every replica handles the deliveries that it recorded itself; each step may be repeated.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use metrics::counter;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config;
use crate::live::hub::Hub;
use crate::reconcile::sweeper::REDIS_LOST_IT;
use broker::Broker;
use celery::Envelope;
use celery::task::{Phase, TaskId};
use ledger::change::REDELIVERED;
use ledger::{Event, Failure, News, SharedLedger, Source, Task};
use runtime::clock;

/// The reason in the history when a task begins for the last time.
pub const SEALED: &str = "it was delivered as often as it may be: its message is kept back, this run is the last one";
/// A message that workers give back without beginning the task may be delivered this many times `max_deliveries`.
const GIVEN_BACK: u32 = 10;
/// How many events of a history are read; deliveries after these are not counted.
const HISTORY: usize = 20_000;
const PAGE: i64 = 1_000;
/// How many handled deliveries are remembered, so that they are not handled again.
const REMEMBERED: usize = 10_000;

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Redis(#[from] broker::Error),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

/// How often the task may be delivered.
pub fn most(task: &Task, recovery: &config::Recovery) -> u32 {
    task.options.max_deliveries.unwrap_or(recovery.max_deliveries)
}

/// Whether the task's history must be read to decide.
pub fn may_be_exhausted(task: &Task, recovery: &config::Recovery) -> bool {
    u32::try_from(task.delivery).is_ok_and(|deliveries| deliveries >= most(task, recovery))
}

/// Whether the task was delivered as often as allowed. `marked`: its message is known to have been redelivered, so a further
/// announcement is a further delivery, and not the task replacing itself.
pub async fn is_exhausted(
    ledger: &SharedLedger,
    task: &Task,
    recovery: &config::Recovery,
    marked: bool,
) -> Result<bool, ledger::Error> {
    let history = history(ledger, &task.id).await?;
    Ok(is_sealed(&history, task.delivery) || count(&history, marked, most(task, recovery)))
}

/// The number of a task's deliveries that count.
pub async fn counted(ledger: &SharedLedger, id: &TaskId) -> Result<u32, ledger::Error> {
    Ok(tally(&history(ledger, id).await?, true).0)
}

async fn history(ledger: &SharedLedger, id: &TaskId) -> Result<Vec<Event>, ledger::Error> {
    let mut history: Vec<Event> = Vec::new();
    while history.len() < HISTORY {
        let after = history.last().map_or(0, |event| event.seq);
        let page = ledger.events(id, after, PAGE).await?;
        if page.is_empty() {
            break;
        }
        history.extend(page);
    }
    Ok(history)
}

fn is_sealed(history: &[Event], delivery: i32) -> bool {
    history.iter().any(|event| event.delivery == delivery && event.reason.as_deref() == Some(SEALED))
}

fn count(history: &[Event], marked: bool, most: u32) -> bool {
    let (counted, all) = tally(history, marked);
    counted >= most || all >= most.saturating_mul(GIVEN_BACK)
}

/// The number of deliveries that count, and of all deliveries except those that Redis lost.
fn tally(history: &[Event], marked: bool) -> (u32, u32) {
    let deliveries: Vec<&[Event]> = history.chunk_by(|event, next| event.delivery == next.delivery).collect();
    let (mut counted, mut all) = (0, 0);
    for (n, events) in deliveries.iter().enumerate() {
        let next = deliveries.get(n + 1).and_then(|events| events.first());
        if next.is_some_and(|event| event.reason.as_deref() == Some(REDIS_LOST_IT)) {
            continue;
        }
        let is_replaced = |event: &Event| event.reason.as_deref() == Some(REDELIVERED) && event.worker.is_some();
        if !marked && next.is_some_and(is_replaced) {
            continue;
        }
        all += 1;
        let began = events.iter().any(|event| matches!(event.phase, Phase::Running | Phase::Retrying));
        let announced = events.iter().any(|event| event.phase == Phase::Received && event.worker.is_some());
        counted += u32::from(began || (next.is_some() && !announced));
    }
    (counted, all)
}

/// The service of one replica.
pub struct Deliveries {
    ledger: SharedLedger,
    broker: Broker,
    hub: Hub,
    recovery: config::Recovery,
    seen: HashSet<(TaskId, i32, Phase)>,
    order: VecDeque<(TaskId, i32, Phase)>,
}

impl Deliveries {
    pub fn new(ledger: SharedLedger, broker: Broker, hub: Hub, recovery: config::Recovery) -> Self {
        Self { ledger, broker, hub, recovery, seen: HashSet::new(), order: VecDeque::new() }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut again = self.hub.watch_redeliveries();
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = again.recv() => match event {
                    Ok(event) => event,
                    // The sweeper counts too, before it puts anything back.
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                },
            };
            if !self.recovery.enabled || !self.is_new(&event) {
                continue;
            }
            if let Err(trouble) = self.take(&event.task_id).await {
                info!(task.id = %event.task_id, error = %trouble, "deliveries of task {} were not counted", event.task_id);
            }
        }
    }

    /// Whether this delivery was not handled yet: a run may send thousands of progress reports.
    fn is_new(&mut self, event: &Arc<Event>) -> bool {
        let key = (event.task_id.clone(), event.delivery, event.phase);
        if !self.seen.insert(key.clone()) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }

    async fn take(&self, id: &TaskId) -> Result<(), Trouble> {
        let Some(task) = self.ledger.task(id).await? else { return Ok(()) };
        if task.adopted || task.phase.is_final() || !may_be_exhausted(&task, &self.recovery) {
            return Ok(());
        }
        if !is_exhausted(&self.ledger, &task, &self.recovery, true).await? {
            return Ok(());
        }
        match task.phase {
            Phase::Received | Phase::Running => self.seal(&task).await,
            Phase::Queued => self.remove(&task).await,
            _ => Ok(()),
        }
    }

    /// Removes the message from `unacked` while the task runs for the last time, so that it cannot be put back.
    async fn seal(&self, task: &Task) -> Result<(), Trouble> {
        let Some(lists) = self.broker.lists() else { return Ok(()) };
        let present = lists.present(&[]).await?;
        let Some(reservation) = present.reserved.get(task.id.as_str()).filter(|reservation| reservation.redelivered)
        else {
            return Ok(());
        };
        if lists.discard_reservation(reservation).await? {
            warn!(task.id = %task.id, "task {} begins for the last time, its message is kept back", task.id);
            let events = self.ledger.remark(std::slice::from_ref(&task.id), SEALED, clock::now()).await?;
            self.hub.publish(&events);
        }
        Ok(())
    }

    /// It went back to its list once too often. A message that did not go back is a new one, of a task that replaced itself: it stays.
    async fn remove(&self, task: &Task) -> Result<(), Trouble> {
        let (Some(queue), Some(lists)) = (task.queue.as_deref(), self.broker.lists()) else { return Ok(()) };
        let went_back =
            |payload: &[u8]| Envelope::decode(payload).is_ok_and(|envelope| envelope.properties.redelivered);
        if !lists.remove_where(queue, task.id.as_str(), went_back).await?.is_empty() {
            self.hub.publish(&end(&self.ledger, task).await?);
        }
        Ok(())
    }
}

/// Ends a task that was delivered as often as it may be, and whose message is gone.
pub async fn end(ledger: &SharedLedger, task: &Task) -> Result<Vec<Event>, ledger::Error> {
    let count = counted(ledger, &task.id).await?;
    let message = words(task, count);
    let news = News {
        failure: Some(Failure { kind: "PoisonTask".to_owned(), message: message.clone() }),
        reason: Some(message),
        if_seq: Some(task.seq),
        ..News::new(task.id.clone(), Source::Ledger, Phase::Failed, clock::now())
    };
    let events = ledger.learn(&[news], true).await?;
    if !events.is_empty() {
        warn!(task.id = %task.id, "task {} was delivered {count} times and did not end", task.id);
        counter!("taskgate_repairs_total", "kind" => "poison").increment(1);
    }
    Ok(events)
}

/// The sentence about such a task, with the last error that its last worker reported.
fn words(task: &Task, count: u32) -> String {
    let worker = task.worker.as_deref().unwrap_or("an unknown worker");
    let said = match &task.failure {
        Some(failure) => format!("which reported {}: {}", failure.kind, failure.message),
        None => "which died with it, or gave it back, without reporting an error".to_owned(),
    };
    format!("it was delivered {count} times and did not end; the last worker that had it was {worker}, {said}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::sample_task;
    use runtime::clock::Time;

    fn event(delivery: i32, phase: Phase, worker: Option<&str>, reason: Option<&str>) -> Event {
        let mut task = sample_task("t", phase, Time(0));
        (task.delivery, task.worker, task.reason) = (delivery, worker.map(str::to_owned), reason.map(str::to_owned));
        Event::of(&task, Time(0))
    }

    fn run(delivery: i32, reason: Option<&str>) -> Vec<Event> {
        vec![event(delivery, Phase::Received, Some("w"), reason), event(delivery, Phase::Running, Some("w"), None)]
    }

    #[test]
    fn a_run_that_did_not_end_counts_and_so_does_the_one_that_goes_on() {
        let history = [run(1, None), run(2, Some(REDELIVERED)), run(3, Some(REDELIVERED))].concat();
        assert_eq!(tally(&history, true), (3, 3));
        assert!(count(&history, true, 3) && !count(&history, true, 4));
    }

    #[test]
    fn what_a_worker_gave_back_unbegun_counts_a_tenth_as_much() {
        let history: Vec<Event> =
            (1..=29).map(|n| event(n, Phase::Received, Some("w"), (n > 1).then_some(REDELIVERED))).collect();
        assert_eq!(tally(&history, true), (0, 29));
        assert!(!count(&history, true, 3));
        let once_more = [history, vec![event(30, Phase::Received, Some("w"), Some(REDELIVERED))]].concat();
        assert!(count(&once_more, true, 3));
    }

    #[test]
    fn what_redis_lost_does_not_count_and_what_nobody_announced_does() {
        let lost =
            [vec![event(1, Phase::Queued, None, None)], vec![event(2, Phase::Accepted, None, Some(REDIS_LOST_IT))]];
        assert_eq!(tally(&lost.concat(), true), (0, 1));
        let unheard = [event(1, Phase::Received, None, None), event(2, Phase::Received, None, Some("again"))];
        assert_eq!(tally(&unheard, true), (1, 2));
    }

    #[test]
    fn without_its_mark_a_further_announcement_may_be_a_task_that_replaced_itself() {
        let history = [run(1, None), run(2, Some(REDELIVERED)), run(3, Some(REDELIVERED))].concat();
        assert_eq!(tally(&history, false), (1, 1));
        assert!(!is_sealed(&history, 3));
        let sealed = [history, vec![event(3, Phase::Running, Some("w"), Some(SEALED))]].concat();
        assert!(is_sealed(&sealed, 3) && !is_sealed(&sealed, 4));
    }
}
