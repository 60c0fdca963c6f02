//! Repairs every difference between what the ledger says is in the broker and what is there.
//!
//! Redis may be emptied, restarted empty, or restored from an old copy; a worker may die with a task in its hands. A task is
//! *absent* when it is in no list, not reserved, and has no record, seen twice one grace period apart. An absent task that no
//! worker ever had goes back to the outbox as a further delivery. One that a worker had is run again only if its recovery
//! policy says so; else it ends as `lost`, with the reason.
//!
//! One replica sweeps at a time: the holder of the lease. Every repair is an event in the task's history and a metric.

mod absence;

use std::time::Duration;

use metrics::counter;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::absence::Absences;
use super::hub::Hub;
use super::relay;
use crate::backend::Backend;
use crate::broker::{Broker, Epoch};
use crate::clock;
use crate::lifecycle::Backoff;
use crate::store::{Failure, News, SharedLedger, Source, Task};
use crate::task::Phase;

const LEASE: &str = "sweeper";
const LEASE_TTL: Duration = Duration::from_secs(3);
/// The epoch advances, and the lease is renewed, this often.
const TICK: Duration = Duration::from_secs(1);
/// Counts are compared this often.
const PERIOD: Duration = Duration::from_secs(10);
/// Between the two looks that make a task absent.
const GRACE: Duration = Duration::from_secs(5);
/// After an epoch break the loss is certain: the second look follows at once.
const GRACE_AFTER_LOSS: Duration = Duration::from_millis(700);
/// A message is on its way for up to this long after it was queued: too young to be missed.
const YOUNG: Duration = Duration::from_secs(2);
/// Unfinished tasks read at a time.
const PAGE: i64 = 500;
const PAUSE: Duration = Duration::from_secs(2);

/// The sweeper of one replica; idle unless it holds the lease.
pub struct Sweeper {
    ledger: SharedLedger,
    broker: Broker,
    backend: Backend,
    hub: Hub,
    relay: relay::Handle,
    holder: String,
}

/// What goes wrong in a pass; the next one tries again.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Redis(#[from] crate::broker::Error),
    #[error(transparent)]
    Ledger(#[from] crate::store::Error),
}

/// What the sweeper remembers while it holds the lease.
struct State {
    absences: Absences,
    epoch: String,
    next_look: Instant,
    /// Look whatever the counts say.
    suspicious: bool,
}

impl Sweeper {
    pub fn new(
        ledger: SharedLedger,
        broker: Broker,
        backend: Backend,
        hub: Hub,
        relay: relay::Handle,
        holder: String,
    ) -> Self {
        Self { ledger, broker, backend, hub, relay, holder }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut state: Option<State> = None;
        let mut backoff = Backoff::new(PAUSE);
        while !stop.is_cancelled() {
            let pause = match self.tick(&mut state).await {
                Ok(()) => {
                    backoff.reset();
                    TICK
                }
                Err(trouble) => {
                    if backoff.is_fresh() {
                        info!(error = %trouble, "the sweeper could not look, trying again: {trouble}");
                    }
                    backoff.pause()
                }
            };
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(pause) => {} }
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), self.ledger.release(LEASE, &self.holder)).await;
    }

    async fn tick(&self, state: &mut Option<State>) -> Result<(), Trouble> {
        if self.ledger.lease(LEASE, &self.holder, clock::now(), LEASE_TTL).await?.is_none() {
            *state = None;
            return Ok(());
        }
        // Whoever begins knows nothing of what was lost before: it looks once, whatever the counts say.
        let state = state.get_or_insert_with(|| State {
            absences: Absences::default(),
            epoch: String::new(),
            next_look: Instant::now(),
            suspicious: true,
        });
        self.watch_epoch(state).await?;
        if Instant::now() >= state.next_look {
            self.look(state).await?;
        }
        Ok(())
    }

    async fn watch_epoch(&self, state: &mut State) -> Result<(), Trouble> {
        let next = format!("{}:{}", self.holder, clock::now().as_micros());
        match self.broker.advance_epoch(&state.epoch, &next).await? {
            Epoch::Kept => {}
            Epoch::Gone => {
                warn!("Redis has lost its data, what was queued will be queued again");
                state.doubt_everything();
            }
            Epoch::Other(_) => {
                warn!("Redis holds older data than it did, looking for every task");
                state.doubt_everything();
            }
        }
        state.epoch = next;
        Ok(())
    }

    /// Compares counts; where they do not fit, looks for every task.
    async fn look(&self, state: &mut State) -> Result<(), Trouble> {
        state.next_look = Instant::now() + PERIOD;
        let census = self.ledger.census().await?;
        let in_broker =
            |phase: Phase| matches!(phase, Phase::Queued | Phase::Received | Phase::Running | Phase::Retrying);
        let mut expected: i64 = 0;
        let mut found: i64 = self.broker.reserved_count().await?;
        let mut queues: Vec<String> = Vec::new();
        for ((queue, phase), count) in &census {
            if in_broker(*phase) && !queues.contains(queue) {
                queues.push(queue.clone());
            }
            if *phase == Phase::Queued {
                expected += count;
            }
        }
        for queue in &queues {
            found += self.broker.queue_length(queue).await?;
        }
        let fits = found >= expected;
        if !queues.is_empty() && (!fits || state.suspicious || !state.absences.is_empty()) {
            self.look_for_all(&queues, state).await?;
        }
        state.suspicious = false;
        Ok(())
    }

    async fn look_for_all(&self, queues: &[String], state: &mut State) -> Result<(), Trouble> {
        let grace = if state.suspicious { GRACE_AFTER_LOSS } else { GRACE };
        let present = self.broker.present(queues).await?;
        let mut after = 0;
        let mut seen_absent = Vec::new();
        loop {
            let tasks = self.ledger.unfinished(&[Phase::Queued], after, PAGE).await?;
            let Some(last) = tasks.last() else { break };
            after = last.no;
            let missing = self.missing(&tasks, |id| present.contains(id)).await?;
            seen_absent.extend(missing);
        }
        let verdicts = state.absences.note(seen_absent, grace);
        if !state.absences.is_empty() {
            state.next_look = Instant::now() + grace;
        }
        for task in verdicts {
            self.settle(&task).await?;
        }
        Ok(())
    }

    /// Tasks of a page that are nowhere: not listed, not reserved, without a record. The record is read last.
    async fn missing(&self, tasks: &[Task], is_present: impl Fn(&str) -> bool) -> Result<Vec<Task>, Trouble> {
        let now = clock::now();
        let is_old = |task: &Task| task.queued_at.is_none_or(|at| now.since(at) > YOUNG);
        let absent: Vec<&Task> =
            tasks.iter().filter(|task| !task.adopted && is_old(task) && !is_present(task.id.as_str())).collect();
        let ids: Vec<_> = absent.iter().map(|task| task.id.clone()).collect();
        let records = self.backend.records(&ids).await?;
        let missing = absent.into_iter().zip(records).filter(|(_, record)| record.is_none());
        Ok(missing.map(|(task, _)| task.clone()).collect())
    }

    /// Absent for certain: run it again, or say that it is lost.
    async fn settle(&self, task: &Task) -> Result<(), Trouble> {
        if task.revoke_requested_at.is_some() {
            return self.end_revoked(task).await;
        }
        let may_rerun = task.received_at.is_none() || task.options.recovery.as_deref() == Some("rerun");
        if may_rerun {
            let reason = "Redis lost its message, it is queued again";
            if let Some(event) = self.ledger.requeue(&task.id, reason, clock::now()).await? {
                warn!(task.id = %task.id, "task {} was nowhere in Redis, it is queued again", task.id);
                counter!("taskgate_tasks_requeued_total", "reason" => "absent").increment(1);
                self.hub.publish(&[event]);
                self.relay.nudge();
            }
            return Ok(());
        }
        let worker = task.worker.as_deref().unwrap_or("a worker");
        self.lose(task, format!("{worker} had it, and there is no trace of it; its recovery policy is report")).await
    }

    /// Nobody has it, and nobody wants it: what Redis lost fulfils the revoke.
    async fn end_revoked(&self, task: &Task) -> Result<(), Trouble> {
        let mut news = News::new(task.id.clone(), Source::Ledger, Phase::Revoked, clock::now());
        news.reason = Some("it was to be revoked, and Redis lost its message".to_owned());
        self.hub.publish(&self.ledger.learn(&[news], true).await?);
        Ok(())
    }

    async fn lose(&self, task: &Task, reason: String) -> Result<(), Trouble> {
        let mut news = News::new(task.id.clone(), Source::Ledger, Phase::Lost, clock::now());
        news.failure = Some(Failure { kind: "TaskLost".to_owned(), message: reason.clone() });
        news.reason = Some(reason);
        let events = self.ledger.learn(&[news], true).await?;
        if !events.is_empty() {
            warn!(task.id = %task.id, "task {} is lost", task.id);
            counter!("taskgate_tasks_lost_total").increment(1);
        }
        self.hub.publish(&events);
        Ok(())
    }
}

impl State {
    fn doubt_everything(&mut self) {
        self.suspicious = true;
        self.next_look = Instant::now();
    }
}
