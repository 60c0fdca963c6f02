//! Carries accepted tasks to the broker, because a task must not exist on one side only.
//!
//! Two ways lead down. The direct way takes what this replica just committed, from memory, in the order of acceptance; such a task has
//! no row in the outbox of PostgreSQL. The outbox way (`Ledger::drain`) takes whatever is due: held tasks whose time has come, and,
//! found in the feed, what a dead replica left behind, and everything after an outage. A delivery's marker in Redis makes the two safe
//! together: the second push of a delivery does nothing.
//!
//! After the first failure the direct path is closed and everything goes through the outbox, in order, until less than a batch is left
//! there. Markers of the direct path are removed some seconds after the publication is recorded, because a crash of PostgreSQL may undo
//! that record. Markers of the outbox path stay for ten minutes, because a direct push may be late by up to [`DIRECT_DEADLINE`], after
//! which the script refuses it.

mod attempts;
mod bookkeeping;
mod lives;
mod next;
mod push;
mod unfit;
mod waits;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use bookkeeping::Bookkeeping;
use next::{Next, Rounds};
use push::Pusher;
pub use push::{copy_tag, envelope_bytes};
use waits::Waits;

use crate::live::direct::{BATCH, DIRECT_DEADLINE, Handle, Shared};
use crate::live::hub::{Hub, Room};
use crate::live::windows::Windows;
use broker::Broker;
use broker::backend::ResultBackend;
use celery::task::{Phase, TaskId};
use ledger::{Carrier, Outgoing, SharedLedger, Task};
use runtime::clock::{self, Time};
use runtime::crash_points;
use runtime::lifecycle::Backoff;

/// How often the outbox is polled without a wake-up, for rows of replicas that died.
const PERIOD: Duration = Duration::from_secs(1);
/// Younger rows belong to the direct path of the replica that accepted them.
const SETTLE: Duration = Duration::from_secs(2);
const REDIS_PAUSE: Duration = Duration::from_secs(2);
/// How long a count of the waiting tasks is valid. Passes may follow each other by milliseconds.
const COUNTED_FOR: Duration = Duration::from_millis(250);

/// The relay of one replica.
pub struct Relay {
    ledger: SharedLedger,
    pusher: Arc<Pusher>,
    hub: Hub,
    direct: mpsc::Receiver<Vec<Outgoing>>,
    shared: Arc<Shared>,
    bookkeeping: Bookkeeping,
    /// Whether tasks wait for ends or for room in their queues: news may let them go, in a pass that leaves a pause after the last one.
    waits: Waits,
    /// When the waiting tasks were last counted.
    counted: Option<Instant>,
    /// When the incarnation of Redis's data was last checked.
    life_seen: Option<Instant>,
}

/// The shortest interval between two publications, by task name.
pub type Paces = HashMap<String, Duration>;

impl Relay {
    pub fn new(
        ledger: SharedLedger,
        broker: Broker,
        backend: ResultBackend,
        hub: Hub,
        paces: Paces,
        windows: Windows,
    ) -> (Self, Handle) {
        let (handle, direct) = Handle::open();
        let shared = Arc::clone(&handle.shared);
        let pusher = Arc::new(Pusher::new(broker, backend, paces, windows, Arc::clone(&shared)));
        let bookkeeping = Bookkeeping::new();
        (
            Self {
                ledger,
                pusher,
                hub,
                direct,
                shared,
                bookkeeping,
                waits: Waits::default(),
                counted: None,
                life_seen: None,
            },
            handle,
        )
    }

    /// Runs until `stop`; tasks on the direct path are pushed before it ends.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(REDIS_PAUSE);
        let mut next = Next::after(Duration::ZERO);
        let mut offers = Vec::new();
        let mut room = self.hub.watch_room();
        let (mut ended, mut took) = (Instant::now(), Duration::ZERO);
        self.suspect_leftovers(&stop).await;
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                count = self.direct.recv_many(&mut offers, 64) => {
                    if count == 0 { break; }
                    self.take(offers.drain(..).flatten().collect()).await;
                    if Instant::now() < next.at { continue; }
                }
                () = tokio::time::sleep_until(self.bookkeeping.due()), if !self.bookkeeping.is_empty() => {
                    self.write_down().await;
                    if Instant::now() < next.at { continue; }
                }
                () = self.shared.wake.notified() => next.is_poll = false,
                news = room.recv(), if self.waits.any() => {
                    // Of news that was missed, some may have been an end.
                    if let Some(rest) = self.waits.rest_after(took, news.unwrap_or(Room::Ended)) {
                        next.bring_forward(ended + rest);
                    }
                    if Instant::now() < next.at { continue; }
                }
                () = tokio::time::sleep_until(next.at) => {}
            }
            // What was signalled until now is included in this pass. What comes meanwhile may be too late for it: a worker is faster than the
            // end of a pass.
            let settled = self.hub.settled();
            while matches!(room.try_recv(), Ok(_) | Err(TryRecvError::Lagged(_))) {
                next.is_poll = false;
            }
            let started = Instant::now();
            next = self.pass(next, settled.filter(|_| next.is_poll), &mut backoff).await;
            (ended, took) = (Instant::now(), started.elapsed());
        }
        while let Ok(batch) = self.direct.try_recv() {
            self.take(batch).await;
        }
        self.write_down().await;
        self.pusher.forget_all().await;
    }

    /// Without markers nobody knows whether a process that is gone had published what it left in the outbox. Of those who wait for room in
    /// a queue, it had published no more than its window. Nothing is published before that is known: what is published afterwards
    /// could not be told from it.
    async fn suspect_leftovers(&self, stop: &CancellationToken) {
        if self.pusher.broker.lists().is_some() {
            return;
        }
        let mut backoff = Backoff::new(REDIS_PAUSE);
        while let Err(error) = self.read_leftovers().await {
            if backoff.is_fresh() {
                warn!(error = %error, "what an earlier process left in the outbox cannot be read, trying again");
            }
            tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(backoff.pause()) => {} }
        }
    }

    async fn read_leftovers(&self) -> Result<(), ledger::Error> {
        let mut after = 0;
        let mut waiting: HashMap<String, u32> = HashMap::new();
        let mut may_be_out = |task: &Task| {
            let queue = task.queue.as_deref().unwrap_or_default();
            let Some(window) = self.pusher.window(queue, task.options.fair.is_some()) else { return true };
            let count = waiting.entry(queue.to_owned()).or_default();
            *count += 1;
            *count <= window
        };
        loop {
            let tasks = self.ledger.unfinished(&[Phase::Accepted], after, BATCH as i64).await?;
            let Some(last) = tasks.last().filter(|_| !self.pusher.attempts().is_full()) else { return Ok(()) };
            after = last.no;
            let suspects = tasks.into_iter().filter(&mut may_be_out).map(|task| task.id);
            self.pusher.attempts().suspect(suspects.collect());
        }
    }

    /// A pass over the outbox, repeated while it finds full batches. Returns when the next one is due. A poll should find nothing, because
    /// every due row causes a wake-up; a test checks that. `settled`: the commits before a poll, all of them announced. If there are more at
    /// its end, what it found may be theirs, and their wake-up is on the way.
    async fn pass(&mut self, planned: Next, settled: Option<u64>, backoff: &mut Backoff) -> Next {
        self.write_down().await;
        self.watch_life().await;
        let drained = self.drain_all(planned).await;
        let is_missed = settled.is_some() && settled == self.hub.settled();
        self.shared.is_stuck.store(drained.is_err(), Ordering::Release);
        self.shared.room.notify_waiters();
        match drained {
            Ok(drained) => {
                if is_missed && drained.found > 0 && self.shared.offered.load(Ordering::Acquire) == 0 {
                    counter!("taskgate_fallback_polls_total", "service" => "relay").increment(1);
                }
                backoff.reset();
                drained.next
            }
            Err(trouble) => {
                self.pusher.keep_markers().await;
                // Redis's error has been logged by then.
                if backoff.is_fresh() && !matches!(trouble, Trouble::Broker) {
                    warn!(error = %trouble, "the outbox cannot be drained, trying again: {trouble}");
                }
                Next::after(backoff.pause())
            }
        }
    }

    /// A loss of Redis's data must be noticed soon, also while the ledger does not answer. A Redis that is down is asked again.
    async fn watch_life(&mut self) {
        if self.life_seen.is_none_or(|at| at.elapsed() >= PERIOD) && self.pusher.see_life().await.is_ok() {
            self.life_seen = Some(Instant::now());
        }
    }

    async fn drain_all(&mut self, planned: Next) -> Result<Drained, Trouble> {
        let mut rounds = Rounds::default();
        if self.shared.direct.load(Ordering::Acquire) {
            self.drain_until_few(planned, || SETTLE, &mut rounds).await?;
        } else {
            self.drain_until_few(Next::after(Duration::ZERO), || Duration::ZERO, &mut rounds).await?;
            self.reopen(&mut rounds).await?;
        }
        self.settle_attempts().await?;
        if rounds.found >= BATCH || self.counted.is_none_or(|at| at.elapsed() >= COUNTED_FOR) {
            self.note_backlog(rounds.at).await?;
        }
        // Tasks that became due since the last drain count as due now, so that none is missed in between.
        let next_due = self.ledger.next_due(rounds.at).await?;
        self.pusher.forget_old().await;
        Ok(Drained { found: rounds.found, next: next::after_pass(&rounds, next_due, clock::now()) })
    }

    /// Opens the direct path, then drains rows that were accepted before, so that nothing overtakes them.
    async fn reopen(&mut self, rounds: &mut Rounds) -> Result<(), Trouble> {
        let opened = clock::now();
        self.shared.direct.store(true, Ordering::Release);
        let emptied = self.drain_until_few(Next::after(Duration::ZERO), || clock::now().since(opened), rounds).await;
        match emptied {
            Ok(()) => self.shared.unpushed.clear(),
            Err(_) => self.shared.direct.store(false, Ordering::Release),
        }
        emptied
    }

    /// Drains rows older than `settle` until less than a batch is left: while submissions go on, the outbox may never be empty.
    async fn drain_until_few(
        &mut self,
        planned: Next,
        settle: impl Fn() -> Duration,
        rounds: &mut Rounds,
    ) -> Result<(), Trouble> {
        loop {
            let started = Instant::now();
            rounds.at = planned.as_of(clock::now()).max(rounds.at);
            self.pusher.publish_from(rounds.at);
            let drained = self.ledger.drain(rounds.at, settle(), BATCH as i64, self.pusher.as_ref()).await;
            let drained = drained.inspect_err(|_| self.pusher.attempts().keep())?;
            self.hub.publish(&drained.events);
            counter!("taskgate_tasks_published_total", "way" => "outbox").increment(drained.carried as u64);
            if drained.carried + drained.expired < drained.claimed {
                self.pusher.attempts().keep();
                self.note_backlog(rounds.at).await?;
                return Err(Trouble::Broker);
            }
            self.pusher.attempts().end();
            self.waits = Waits { for_ends: drained.for_ends, in_lines: drained.in_line, is_dry: drained.dry };
            rounds.found += drained.claimed;
            rounds.opening = drained.next_opening;
            if drained.claimed > 0 {
                self.note_rate(drained.claimed, started.elapsed());
                self.shared.backlog.fetch_sub(i64::try_from(drained.claimed).unwrap_or(0), Ordering::Relaxed);
                self.shared.room.notify_waiters();
            }
            if !drained.again {
                return Ok(());
            }
        }
    }

    /// Settles pushes with an unknown outcome: tasks that have left the outbox since were published. If Redis has lost its data meanwhile,
    /// they may have been published twice.
    async fn settle_attempts(&mut self) -> Result<(), Trouble> {
        let ids = self.pusher.attempts().ids();
        // Redis may be down: the next pass asks again.
        if ids.is_empty() || self.pusher.see_life().await.is_err() {
            return Ok(());
        }
        for chunk in ids.chunks(BATCH) {
            let tasks = self.ledger.standing(chunk).await?;
            let waits = |id: &&TaskId| tasks.iter().any(|task| task.id == **id && task.phase.is_ours());
            let gone: Vec<TaskId> = chunk.iter().filter(|id| !waits(id)).cloned().collect();
            let (twice, word) = {
                let attempts = self.pusher.attempts();
                (attempts.twice(&gone), attempts.word())
            };
            if !twice.is_empty() {
                self.hub.publish(&self.ledger.remark(&twice, word, clock::now()).await?);
                warn!("{} tasks may have been published twice", twice.len());
                counter!("taskgate_redeliveries_total").increment(twice.len() as u64);
            }
            self.pusher.attempts().close(&gone);
        }
        Ok(())
    }

    fn note_rate(&self, rows: usize, took: Duration) {
        let millis = i64::try_from(took.as_millis()).unwrap_or(i64::MAX).max(1);
        let rate = i64::try_from(rows).unwrap_or(i64::MAX).saturating_mul(1_000_000) / millis;
        self.shared.drain_rate.store(rate, Ordering::Relaxed);
    }

    async fn note_backlog(&mut self, now: Time) -> Result<(), Trouble> {
        let backlog = self.ledger.backlog(now).await?;
        self.counted = Some(Instant::now());
        self.shared.backlog.store(backlog.due, Ordering::Relaxed);
        gauge!("taskgate_outbox_depth").set(backlog.due as f64);
        gauge!("taskgate_outbox_age_seconds").set(backlog.oldest.map_or(0.0, |at| now.since(at).as_secs_f64()));
        Ok(())
    }

    /// Takes offered tasks. They count as offered until they are in Redis or are left to the outbox.
    async fn take(&mut self, batch: Vec<Outgoing>) {
        for chunk in batch.chunks(BATCH) {
            self.push_direct(chunk).await;
            self.shared.offered.fetch_sub(chunk.len(), Ordering::AcqRel);
            self.shared.room.notify_waiters();
        }
    }

    /// Pushes what was just committed. Whatever goes wrong, the ledger still has it as accepted.
    async fn push_direct(&mut self, chunk: &[Outgoing]) {
        if !self.shared.direct.load(Ordering::Acquire) {
            self.shared.unpushed.note(chunk);
            return;
        }
        let pushed = self.push_chunk(chunk).await;
        match &pushed {
            Ok(()) => self.pusher.attempts().pushed(),
            Err(error) if error.outcome_unknown() => self.pusher.attempts().keep(),
            Err(_) => {
                self.shared.unpushed.note(chunk);
                self.pusher.attempts().end();
            }
        }
        match pushed {
            Ok(()) if self.bookkeeping.is_due() => self.write_down().await,
            Ok(()) => {}
            Err(error) => self.shut(chunk.len(), &error),
        }
    }

    /// Closes the direct path: everything goes through the outbox until that is drained.
    fn shut(&self, tasks: usize, error: &Trouble) {
        self.shared.direct.store(false, Ordering::Release);
        self.shared.wake.notify_one();
        self.pusher.tell_failure(tasks, error);
    }

    async fn push_chunk(&mut self, chunk: &[Outgoing]) -> Result<(), Trouble> {
        let Some(oldest) = chunk.iter().map(|row| row.accepted_at).min() else { return Ok(()) };
        let pushes = self.pusher.pushes(chunk);
        self.pusher.prepare(chunk).await?;
        self.pusher.see_first_life().await?;
        self.pusher.attempts().begin(chunk);
        let outcomes = self.pusher.publish(&pushes, Some(oldest.plus(DIRECT_DEADLINE))).await?;
        let refused = self.pusher.refused(chunk, &outcomes);
        counter!("taskgate_tasks_published_total", "way" => "direct").increment((chunk.len() - refused.len()) as u64);
        if refused.is_empty() {
            self.bookkeeping.add(chunk, pushes, clock::now());
        } else {
            // The others stay accepted: a pass finds them and puts them to sleep.
            let taken: Vec<Outgoing> = chunk.iter().filter(|row| !refused.contains(&row.no)).cloned().collect();
            self.bookkeeping.add(&taken, self.pusher.pushes(&taken), clock::now());
        }
        Ok(())
    }

    /// Writes down what was pushed. When that fails the tasks are still accepted, and their markers turn a second push away.
    async fn write_down(&mut self) {
        if self.bookkeeping.is_empty() {
            return;
        }
        let (rows, tags) = self.bookkeeping.take();
        let started = Instant::now();
        let written = self.ledger.published(&rows).await;
        self.bookkeeping.rest_after(rows.len(), started.elapsed());
        match written {
            Ok(events) => {
                self.hub.publish(&events);
                crash_points::reach(crash_points::AFTER_BOOKKEEPING);
                self.pusher.attempts().written();
                self.pusher.written_down(tags).await;
            }
            Err(error) => {
                self.pusher.attempts().keep_pushed();
                self.shut(rows.len(), &error.into());
            }
        }
    }
}

/// The result of a pass.
struct Drained {
    found: usize,
    next: Next,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the broker took only a part")]
    Broker,
    #[error(transparent)]
    Redis(#[from] broker::Error),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

impl Trouble {
    /// Whether the pushed messages may be in Redis despite the error.
    fn outcome_unknown(&self) -> bool {
        match self {
            Self::Redis(error) => error.outcome_unknown(),
            Self::Broker | Self::Ledger(_) => true,
        }
    }
}
