//! Repairs every difference between what the ledger says is in the broker and what is there.
//!
//! Redis may be emptied, restarted empty, or restored from an old copy; a worker may die with a task in its hands. A task is
//! *absent* when it is in no list, not reserved, no worker has it, and it has no record: read in this order, twice, one grace
//! period apart. An absent task that no worker ever had goes back to the outbox as a further delivery. One that a worker had is
//! run again only if its recovery policy says so; else it ends as `lost`, with the reason ([`verdict`]). A message that is still
//! reserved is never published a second time: it goes back to its list as kombu puts it back.
//!
//! One replica sweeps at a time: the holder of the lease. Every repair is an event in the task's history and a metric.

mod absence;
mod chords;
mod fleet;
mod leases;
mod resurrected;
mod verdict;

use std::collections::VecDeque;
use std::time::Duration;

use metrics::counter;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::absence::Absences;
use self::fleet::{Fleet, Patience};
use self::verdict::{Evidence, Owner, Place, Remedy};
use super::hub::Hub;
use super::{recorder, relay};
use crate::backend::Backend;
use crate::broker::{Broker, Epoch, Present};
use crate::clock;
use crate::config;
use crate::lifecycle::Backoff;
use crate::store::{Failure, News, SharedLedger, Source, Task};
use crate::task::{Phase, TaskId};

const LEASE: &str = "sweeper";
const LEASE_TTL: Duration = Duration::from_secs(3);
/// The epoch advances, and the lease is renewed, this often.
const TICK: Duration = Duration::from_secs(1);
/// After an epoch break the loss is certain: the second look follows at once.
const GRACE_AFTER_LOSS: Duration = Duration::from_millis(700);
/// A message is on its way for up to this long after it was queued: too young to be missed.
const YOUNG: Duration = Duration::from_secs(2);
/// Unfinished tasks read at a time.
const PAGE: i64 = 500;
/// Tasks that are looked for in one pass; the next pass takes the rest.
const SUSPECTS: usize = 50_000;
/// Lists are read page by page for at most a twentieth of the time.
const SCAN_SHARE: u32 = 20;
/// Names of tasks known to acknowledge late.
const LATE_NAMES: usize = 1_000;
const PAUSE: Duration = Duration::from_secs(2);

/// The sweeper of one replica; idle unless it holds the lease.
pub struct Sweeper {
    ledger: SharedLedger,
    broker: Broker,
    backend: Backend,
    hub: Hub,
    relay: relay::Handle,
    holder: String,
    config: config::Sweeper,
    visibility_timeout: Duration,
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
    next_renewal: Instant,
    /// Lists are not read before, unless something is known to be lost.
    next_scan: Instant,
    /// Look whatever the counts say.
    suspicious: bool,
    /// Redis's data may be older than the ledger's.
    resurrected: bool,
    /// Tasks that acknowledge after they ran, as their workers said.
    late: VecDeque<String>,
}

impl State {
    /// Whoever begins knows nothing of what was lost before: it looks once, whatever the counts say.
    fn new() -> Self {
        let now = Instant::now();
        Self {
            absences: Absences::default(),
            epoch: String::new(),
            next_look: now,
            next_renewal: now,
            next_scan: now,
            suspicious: true,
            resurrected: true,
            late: VecDeque::new(),
        }
    }

    fn doubt_everything(&mut self) {
        self.suspicious = true;
        self.resurrected = true;
        self.next_look = Instant::now();
    }

    fn learn_late(&mut self, tasks: &[Task], fleet: &Fleet) {
        for task in tasks {
            let late = fleet.held.get(task.id.as_str()).is_some_and(|held| held.runs_unacknowledged);
            let Some(name) = task.name.as_ref().filter(|name| late && !self.late.contains(name)) else { continue };
            if self.late.len() >= LATE_NAMES {
                self.late.pop_front();
            }
            self.late.push_back(name.clone());
        }
    }
}

impl Sweeper {
    #[expect(clippy::too_many_arguments, reason = "called once, by the composition root")]
    pub fn new(
        ledger: SharedLedger,
        broker: Broker,
        backend: Backend,
        hub: Hub,
        relay: relay::Handle,
        holder: String,
        config: config::Sweeper,
        visibility_timeout: Duration,
    ) -> Self {
        Self { ledger, broker, backend, hub, relay, holder, config, visibility_timeout }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut state: Option<State> = None;
        let mut backoff = Backoff::new(PAUSE);
        let tick = TICK.min(leases::period(self.visibility_timeout)).min(self.config.period);
        while !stop.is_cancelled() {
            let pause = match self.tick(&mut state).await {
                Ok(()) => {
                    backoff.reset();
                    tick
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
        let state = state.get_or_insert_with(State::new);
        self.watch_epoch(state).await?;
        self.renew_leases(&mut state.next_renewal).await?;
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

    /// Compares counts first; lists are read only where they do not fit.
    async fn look(&self, state: &mut State) -> Result<(), Trouble> {
        state.next_look = Instant::now() + self.config.period;
        let census = self.ledger.census().await?;
        let mut queued: i64 = 0;
        let mut queues: Vec<String> = Vec::new();
        for ((queue, phase), count) in &census {
            if *phase == Phase::Queued {
                queued += count;
            }
            if !phase.is_ours() && !phase.is_final() && !queues.contains(queue) {
                queues.push(queue.clone());
            }
        }
        let mut listed = 0;
        for queue in &queues {
            listed += self.broker.queue_length(queue).await?;
        }
        if state.suspicious {
            self.rebuild_chords().await?;
        }
        let scan = state.suspicious || (listed < queued && Instant::now() >= state.next_scan);
        self.look_for_all(&queues, scan, state).await?;
        state.suspicious = false;
        Ok(())
    }

    /// `scan`: queued tasks too, not only those that workers have.
    async fn look_for_all(&self, queues: &[String], scan: bool, state: &mut State) -> Result<(), Trouble> {
        let grace = if state.suspicious { GRACE_AFTER_LOSS.min(self.config.grace) } else { self.config.grace };
        let suspects = self.suspects(scan, state).await?;
        let mut absent = Vec::new();
        if !suspects.is_empty() || state.resurrected {
            let started = Instant::now();
            let mut present = self.broker.present(queues).await?;
            if state.resurrected {
                present = self.remove_resurrected(present, queues).await?;
                state.resurrected = false;
            }
            absent = self.absent(suspects, &present, state).await?;
            state.next_scan = Instant::now() + started.elapsed() * SCAN_SHARE;
        }
        let verdicts = state.absences.note(absent, grace);
        if !state.absences.is_empty() {
            // The second look reads the lists whatever the counts say.
            state.next_look = Instant::now() + grace;
            state.next_scan = Instant::now();
        }
        for (task, remedy) in verdicts {
            self.settle(&task, remedy).await?;
        }
        Ok(())
    }

    /// Unfinished tasks that no worker answers for.
    async fn suspects(&self, scan: bool, state: &mut State) -> Result<Vec<Task>, Trouble> {
        let with_workers = [Phase::Received, Phase::Running, Phase::Retrying];
        let all = [Phase::Queued, Phase::Received, Phase::Running, Phase::Retrying];
        let phases: &[Phase] = if scan { &all } else { &with_workers };
        let patience = self.patience();
        let (mut after, mut suspects) = (0, Vec::new());
        while suspects.len() < SUSPECTS {
            let tasks = self.ledger.unfinished(phases, after, PAGE).await?;
            let Some(last) = tasks.last() else { break };
            after = last.no;
            let at_worker: Vec<&str> =
                tasks.iter().filter(|task| task.phase.is_at_worker()).map(|task| task.id.as_str()).collect();
            let fleet = if at_worker.is_empty() {
                Fleet::read(&self.ledger).await?
            } else {
                Fleet::ask(&self.ledger, &self.broker, &at_worker).await?
            };
            state.learn_late(&tasks, &fleet);
            let now = clock::now();
            suspects.extend(tasks.into_iter().filter(|task| {
                let young = task.queued_at.is_some_and(|at| now.since(at) <= YOUNG);
                let unclear = || task.phase.is_at_worker() && fleet.owner(task, &patience) == Owner::Unclear;
                !task.adopted && !young && !fleet.held.contains_key(task.id.as_str()) && !unclear()
            }));
        }
        Ok(suspects)
    }

    /// Those of the suspects that are nowhere, with what is to be done. The workers are asked after the lists were read, and
    /// records are read last: one that says the end is news.
    async fn absent(
        &self,
        suspects: Vec<Task>,
        present: &Present,
        state: &State,
    ) -> Result<Vec<(Task, Remedy)>, Trouble> {
        let suspects: Vec<Task> =
            suspects.into_iter().filter(|task| !present.listed.contains(task.id.as_str())).collect();
        let mut absent = Vec::new();
        for chunk in suspects.chunks(PAGE as usize) {
            let ids: Vec<&str> = chunk.iter().map(|task| task.id.as_str()).collect();
            let fleet = Fleet::ask(&self.ledger, &self.broker, &ids).await?;
            let judged: Vec<(Task, Remedy)> = chunk
                .iter()
                .filter_map(|task| Some((task.clone(), self.judge(task, present, &fleet, state)?)))
                .collect();
            let ids: Vec<TaskId> = judged.iter().map(|(task, _)| task.id.clone()).collect();
            let records = self.backend.records(&ids).await?;
            let mut ends = Vec::new();
            for ((task, remedy), record) in judged.into_iter().zip(records) {
                match record.and_then(|payload| recorder::end_of(task.id.clone(), &payload)) {
                    Some(end) => ends.push(end),
                    None => absent.push((task, remedy)),
                }
            }
            if !ends.is_empty() {
                self.hub.publish(&self.ledger.learn(&ends, true).await?);
            }
        }
        Ok(absent)
    }

    fn judge(&self, task: &Task, present: &Present, fleet: &Fleet, state: &State) -> Option<Remedy> {
        let patience = self.patience();
        let evidence = Evidence {
            place: match present.reserved.get(task.id.as_str()) {
                Some(reservation) => Place::Reserved(reservation.clone()),
                None => Place::Nowhere,
            },
            is_held: fleet.held.contains_key(task.id.as_str()),
            owner: fleet.owner(task, &patience),
            all_answered: fleet.all_answered(&patience),
            acks_late: task.name.as_ref().is_some_and(|name| state.late.contains(name)),
        };
        verdict::judge(task, &evidence)
    }

    fn patience(&self) -> Patience {
        Patience { lost: self.config.worker_lost_after, busy: self.visibility_timeout }
    }

    /// Absent for certain.
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
        if let Some(event) = self.ledger.requeue(&task.id, reason, clock::now()).await? {
            warn!(task.id = %task.id, "task {}: {reason}", task.id);
            counter!("taskgate_sweeper_repairs_total", "kind" => "requeued").increment(1);
            self.hub.publish(&[event]);
            self.relay.nudge();
        }
        Ok(())
    }

    /// The message is in its list again: a further delivery, made by kombu's rule.
    async fn note_restored(&self, task: &Task, reason: &str) -> Result<(), Trouble> {
        let mut news = News::new(task.id.clone(), Source::Ledger, Phase::Queued, clock::now());
        news.delivery = Some(task.delivery + 1);
        news.reason = Some(reason.to_owned());
        let events = self.ledger.learn(&[news], true).await?;
        warn!(task.id = %task.id, "task {}: {reason}", task.id);
        counter!("taskgate_sweeper_repairs_total", "kind" => "restored").increment(1);
        self.hub.publish(&events);
        Ok(())
    }

    /// Nobody has it, and nobody wants it: what Redis lost fulfils the revoke.
    async fn end_revoked(&self, task: &Task) -> Result<(), Trouble> {
        let mut news = News::new(task.id.clone(), Source::Ledger, Phase::Revoked, clock::now());
        news.reason = Some("it was to be revoked, and Redis lost its message".to_owned());
        self.hub.publish(&self.ledger.learn(&[news], true).await?);
        counter!("taskgate_sweeper_repairs_total", "kind" => "revoked").increment(1);
        Ok(())
    }

    async fn lose(&self, task: &Task, reason: String) -> Result<(), Trouble> {
        let mut news = News::new(task.id.clone(), Source::Ledger, Phase::Lost, clock::now());
        news.failure = Some(Failure { kind: "TaskLost".to_owned(), message: reason.clone() });
        news.reason = Some(reason);
        let events = self.ledger.learn(&[news], true).await?;
        if !events.is_empty() {
            warn!(task.id = %task.id, "task {} is lost", task.id);
            counter!("taskgate_sweeper_repairs_total", "kind" => "lost").increment(1);
        }
        self.hub.publish(&events);
        Ok(())
    }
}
