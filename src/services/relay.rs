//! Carries outbox rows to the broker, because a task must not exist on one side only.
//!
//! Two ways lead down. The direct way takes what this replica just committed, from memory, in the order of acceptance. The
//! outbox way (`Ledger::drain`) takes whatever is due and still there: held tasks whose time has come, rows of a replica that
//! died, everything after an outage. A delivery's marker in Redis makes the two safe together: the second push of a delivery
//! does nothing.
//!
//! After the first failure the direct way is shut and all goes through the outbox, in order, until less than a batch is left in it.
//! Markers of the direct way go as soon as the publication is written down. Those of the outbox way stay for
//! [`MARKER_GRACE`], because a direct push may be late by up to [`DIRECT_DEADLINE`], and the script refuses it after that.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use metrics::{counter, gauge, histogram};
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::hub::Hub;
use crate::backend::Backend;
use crate::broker::{Broker, Push, Pushed, Target};
use crate::celery::{Properties, envelope};
use crate::clock::{self, Time};
use crate::crash_points;
use crate::lifecycle::Backoff;
use crate::store::{Carrier, Outgoing, SharedLedger};
use crate::task::Spread;

/// Tasks on the direct way, in memory: seconds of the fastest submission. When it is full the outbox way takes over.
const DIRECT_CAPACITY: usize = 32_768;
/// Offers on the direct way: each is what one commit brought.
const DIRECT_OFFERS: usize = 4_096;
/// Messages in one pass of either way.
const BATCH: usize = 1_000;
/// How late a direct push may be, by Redis's clock.
const DIRECT_DEADLINE: Duration = Duration::from_secs(30);
/// How long markers of the outbox way stay: longer than any direct push can be late, clocks included.
const MARKER_GRACE: Duration = Duration::from_secs(600);
/// Markers older than this were left behind by a crash.
const MARKER_AGE: Duration = Duration::from_secs(3_600);
/// The outbox is looked at this often without a nudge.
const PERIOD: Duration = Duration::from_secs(1);
/// Younger rows belong to the direct way of the replica that accepted them.
const SETTLE: Duration = Duration::from_secs(2);
/// While tasks wait for limits, passes come at most this often: a burst of ends becomes one pass.
const GATE_BREATH: Duration = Duration::from_millis(50);
const REDIS_PAUSE: Duration = Duration::from_secs(2);

struct Shared {
    /// The direct way is open.
    direct: AtomicBool,
    /// Tasks that were offered and are on the direct way.
    offered: AtomicUsize,
    wake: Notify,
    /// Some of what was offered has gone.
    room: Notify,
    /// Due rows at the last look.
    backlog: AtomicI64,
    /// Rows per second that the last passes took out, times 1,000.
    drain_rate: AtomicI64,
}

/// Callers' side of the relay: cheap to clone.
#[derive(Clone)]
pub struct Handle {
    direct: mpsc::Sender<Vec<Outgoing>>,
    shared: Arc<Shared>,
}

impl Handle {
    /// Offers what was just committed. A refused offer costs time, never a task: the outbox has it.
    pub fn offer(&self, batch: Vec<Outgoing>) {
        if batch.is_empty() {
            return;
        }
        if !self.shared.direct.load(Ordering::Acquire) {
            // It waits in the outbox: the limit is kept between two looks too.
            self.shared.backlog.fetch_add(i64::try_from(batch.len()).unwrap_or(0), Ordering::Relaxed);
            return;
        }
        let tasks = batch.len();
        let offered = self.shared.offered.fetch_add(tasks, Ordering::AcqRel) + tasks;
        if offered > DIRECT_CAPACITY || self.direct.try_send(batch).is_err() {
            self.shared.offered.fetch_sub(tasks, Ordering::AcqRel);
            self.shared.direct.store(false, Ordering::Release);
            self.shared.wake.notify_one();
        }
    }

    /// Waits until half of the direct way is free, as long as it is open and moves: for callers who have much and can wait. Without
    /// it what they bring would go through the outbox, which costs more.
    pub async fn room(&self) {
        loop {
            let gone = self.shared.room.notified();
            let offered = self.shared.offered.load(Ordering::Acquire);
            if offered <= DIRECT_CAPACITY / 2 || !self.shared.direct.load(Ordering::Acquire) {
                return;
            }
            if tokio::time::timeout(DIRECT_DEADLINE, gone).await.is_err() {
                return;
            }
        }
    }

    /// Whether everything offered so far is taken: more may be offered without piling it up.
    pub fn is_idle(&self) -> bool {
        self.direct.capacity() == self.direct.max_capacity()
    }

    /// Something may have become due. A lost nudge costs one period.
    pub fn nudge(&self) {
        self.shared.wake.notify_one();
    }

    /// Due rows at the last look, and what was accepted since while Redis was away.
    pub fn backlog(&self) -> i64 {
        self.shared.backlog.load(Ordering::Relaxed)
    }

    /// How long until the present backlog is gone at the present rate; between 1 and 300 s.
    pub fn drain_time(&self) -> Duration {
        let rate = self.shared.drain_rate.load(Ordering::Relaxed).max(1);
        let secs = self.backlog().saturating_mul(1_000) / rate;
        Duration::from_secs(u64::try_from(secs.clamp(1, 300)).unwrap_or(1))
    }
}

/// The relay of one replica.
pub struct Relay {
    ledger: SharedLedger,
    road: Arc<Road>,
    hub: Hub,
    direct: mpsc::Receiver<Vec<Outgoing>>,
    shared: Arc<Shared>,
    /// Tasks wait for limits: an end may let one of them go.
    is_gated: bool,
}

/// The least time between two publications, by task.
pub type Paces = HashMap<String, Duration>;

impl Relay {
    pub fn new(ledger: SharedLedger, broker: Broker, backend: Backend, hub: Hub, paces: Paces) -> (Self, Handle) {
        let shared = Arc::new(Shared {
            direct: AtomicBool::new(false),
            offered: AtomicUsize::new(0),
            wake: Notify::new(),
            room: Notify::new(),
            backlog: AtomicI64::new(0),
            drain_rate: AtomicI64::new(0),
        });
        let (sender, direct) = mpsc::channel(DIRECT_OFFERS);
        let road = Arc::new(Road { broker, backend, paces, markers: Mutex::default() });
        let handle = Handle { direct: sender, shared: Arc::clone(&shared) };
        (Self { ledger, road, hub, direct, shared, is_gated: false }, handle)
    }

    /// Runs until `stop`. What is on the direct way then is pushed first.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(REDIS_PAUSE);
        let mut next_pass = Instant::now();
        let mut offers = Vec::new();
        let mut commits = self.hub.watch_all();
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                count = self.direct.recv_many(&mut offers, 64) => {
                    if count == 0 { break; }
                    self.take(offers.drain(..).flatten().collect()).await;
                    if Instant::now() < next_pass { continue; }
                }
                () = self.shared.wake.notified() => {}
                // Lagging is a sign like any other. What comes until the next pass is in it.
                _ = commits.recv(), if self.is_gated => {
                    next_pass = next_pass.min(Instant::now() + GATE_BREATH);
                    tokio::select! { () = stop.cancelled() => break, () = tokio::time::sleep_until(next_pass) => {} }
                    while commits.try_recv().is_ok() {}
                }
                () = tokio::time::sleep_until(next_pass) => {}
            }
            next_pass = Instant::now() + self.pass(&mut backoff).await;
        }
        while let Ok(batch) = self.direct.try_recv() {
            self.take(batch).await;
        }
        self.road.forget_all().await;
    }

    /// One pass over the outbox, repeated while it finds full batches. Returns when the next one is due.
    async fn pass(&mut self, backoff: &mut Backoff) -> Duration {
        match self.drain_all().await {
            Ok(pause) => {
                backoff.reset();
                pause
            }
            Err(trouble) => {
                if backoff.is_fresh() {
                    warn!(error = %trouble, "the outbox cannot be drained, trying again: {trouble}");
                }
                backoff.pause()
            }
        }
    }

    async fn drain_all(&mut self) -> Result<Duration, Trouble> {
        self.road.forget_old().await;
        let opening = if self.shared.direct.load(Ordering::Acquire) {
            self.drain_while(1, || SETTLE).await?
        } else {
            // Down to less than a batch: while submissions go on, an empty outbox may never be seen.
            self.drain_while(BATCH, || Duration::ZERO).await?;
            self.reopen().await?
        };
        let backlog = self.note_backlog().await?;
        let now = clock::now();
        let until_due = backlog.next_due.map_or(PERIOD, |due| due.since(now));
        let until_open = opening.map_or(PERIOD, |at| at.since(now).max(GATE_BREATH));
        Ok(until_due.min(until_open).min(PERIOD))
    }

    /// Opens the direct way, then takes what was accepted before it was open: nothing overtakes it.
    async fn reopen(&mut self) -> Result<Option<Time>, Trouble> {
        let opened = clock::now();
        self.shared.direct.store(true, Ordering::Release);
        let emptied = self.drain_while(1, || clock::now().since(opened)).await;
        if emptied.is_err() {
            self.shared.direct.store(false, Ordering::Release);
        }
        emptied
    }

    /// Takes out what was accepted `settle` ago, while a pass finds at least `least` rows. Answers when the next rate lets a task
    /// pass.
    async fn drain_while(&mut self, least: usize, settle: impl Fn() -> Duration) -> Result<Option<Time>, Trouble> {
        loop {
            let started = Instant::now();
            let drained = self.ledger.drain(clock::now(), settle(), BATCH as i64, self.road.as_ref()).await?;
            self.hub.publish(&drained.events);
            counter!("taskgate_tasks_published_total", "way" => "outbox").increment(drained.carried as u64);
            if drained.carried + drained.expired < drained.claimed {
                self.note_backlog().await?;
                return Err(Trouble::Broker);
            }
            self.is_gated = drained.waiting;
            if drained.claimed > 0 {
                self.note_rate(drained.claimed, started.elapsed());
            }
            if drained.claimed < least {
                return Ok(drained.next_opening);
            }
        }
    }

    fn note_rate(&self, rows: usize, took: Duration) {
        let millis = i64::try_from(took.as_millis()).unwrap_or(i64::MAX).max(1);
        let rate = i64::try_from(rows).unwrap_or(i64::MAX).saturating_mul(1_000_000) / millis;
        self.shared.drain_rate.store(rate, Ordering::Relaxed);
    }

    async fn note_backlog(&self) -> Result<crate::store::Backlog, Trouble> {
        let now = clock::now();
        let backlog = self.ledger.backlog(now).await?;
        self.shared.backlog.store(backlog.due, Ordering::Relaxed);
        gauge!("taskgate_outbox_depth").set(backlog.due as f64);
        gauge!("taskgate_outbox_age_seconds").set(backlog.oldest.map_or(0.0, |at| now.since(at).as_secs_f64()));
        Ok(backlog)
    }

    /// Tasks count as offered until they are in Redis, or left to the outbox.
    async fn take(&mut self, batch: Vec<Outgoing>) {
        for chunk in batch.chunks(BATCH) {
            self.push_direct(chunk).await;
            self.shared.offered.fetch_sub(chunk.len(), Ordering::AcqRel);
            self.shared.room.notify_waiters();
        }
    }

    /// Pushes what was just committed. Whatever goes wrong, the outbox still has it.
    async fn push_direct(&mut self, chunk: &[Outgoing]) {
        if !self.shared.direct.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = self.push_chunk(chunk).await {
            self.shared.direct.store(false, Ordering::Release);
            self.shared.wake.notify_one();
            warn!(error = %error, cause = %cause(&error), "publishing failed, tasks wait in the outbox: {error}");
        }
    }

    async fn push_chunk(&mut self, chunk: &[Outgoing]) -> Result<(), Trouble> {
        let Some(oldest) = chunk.iter().map(|row| row.accepted_at).min() else { return Ok(()) };
        let pushes = self.road.pushes(chunk);
        self.road.prepare(chunk).await?;
        self.road.publish(&pushes, Some(oldest.plus(DIRECT_DEADLINE))).await?;
        counter!("taskgate_tasks_published_total", "way" => "direct").increment(chunk.len() as u64);
        let numbers: Vec<i64> = chunk.iter().map(|row| row.no).collect();
        let events = self.ledger.published(&numbers, clock::now()).await?;
        self.hub.publish(&events);
        crash_points::reach(crash_points::AFTER_BOOKKEEPING);
        let tags: Vec<String> = pushes.into_iter().map(|push| push.tag).collect();
        // A marker that stays costs a few bytes for an hour.
        if let Err(error) = self.road.broker.forget_markers(&tags).await {
            info!(error = %error, "markers of {} deliveries stay until they are swept", tags.len());
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the broker took only a part")]
    Broker,
    #[error(transparent)]
    Redis(#[from] crate::broker::Error),
    #[error(transparent)]
    Ledger(#[from] crate::store::Error),
}

/// The way from a row to a list in Redis.
struct Road {
    broker: Broker,
    backend: Backend,
    paces: Paces,
    /// Markers that the outbox way has yet to remove, oldest first. Bounded by what is drained in [`MARKER_GRACE`].
    markers: Mutex<VecDeque<(Instant, Vec<String>)>>,
}

impl Road {
    fn pushes(&self, batch: &[Outgoing]) -> Vec<Push> {
        batch.iter().flat_map(pushes_of).collect()
    }

    /// Chord sizes and saved structures come before the first member.
    async fn prepare(&self, batch: &[Outgoing]) -> Result<(), crate::broker::Error> {
        let mut done = HashSet::new();
        for group in batch.iter().flat_map(|row| row.groups.iter()) {
            if done.insert(&group.id) {
                self.backend.prepare_group(&group.id, group.chord_size, group.structure.as_ref()).await?;
            }
        }
        Ok(())
    }

    /// All crash points of a push are here, for both ways.
    async fn publish(&self, pushes: &[Push], deadline: Option<Time>) -> Result<Vec<Pushed>, crate::broker::Error> {
        if crash_points::is_next(crash_points::HALF_BATCH) && pushes.len() > 1 {
            self.broker.publish(&pushes[..pushes.len() / 2], deadline).await?;
            crash_points::reach(crash_points::HALF_BATCH);
        }
        let started = Instant::now();
        let outcomes = self.broker.publish(pushes, deadline).await?;
        histogram!("taskgate_publish_seconds").record(started.elapsed().as_secs_f64());
        crash_points::reach(crash_points::AFTER_PUSH);
        Ok(outcomes)
    }

    async fn carry_all(&self, batch: &[Outgoing]) -> Result<Vec<i64>, crate::broker::Error> {
        self.prepare(batch).await?;
        let pushes = self.pushes(batch);
        let outcomes = self.publish(&pushes, None).await?;
        let repeated = outcomes.iter().filter(|outcome| **outcome == Pushed::Before).count();
        if repeated > 0 {
            info!(repeated, "{repeated} deliveries were in the broker already");
        }
        let tags = pushes.into_iter().map(|push| push.tag).collect();
        self.markers.lock().await.push_back((Instant::now(), tags));
        Ok(batch.iter().map(|row| row.no).collect())
    }

    async fn forget_old(&self) {
        let mut markers = self.markers.lock().await;
        while markers.front().is_some_and(|(since, _)| since.elapsed() > MARKER_GRACE) {
            let Some((_, tags)) = markers.pop_front() else { break };
            if self.broker.forget_markers(&tags).await.is_err() {
                break;
            }
        }
    }

    /// At shutdown: what a crash left behind long ago goes too.
    async fn forget_all(&self) {
        let sweeping = self.broker.sweep_markers(clock::now(), MARKER_AGE, 100_000);
        let _ = tokio::time::timeout(Duration::from_secs(1), sweeping).await;
    }
}

#[async_trait]
impl Carrier for Road {
    async fn carry(&self, batch: &[Outgoing]) -> Vec<i64> {
        match self.carry_all(batch).await {
            Ok(numbers) => numbers,
            Err(error) => {
                info!(error = %error, cause = %cause(&error), "{} messages stay in the outbox: {error}", batch.len());
                Vec::new()
            }
        }
    }

    fn pace(&self, name: &str) -> Option<Duration> {
        self.paces.get(name).copied()
    }
}

/// What Redis said.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

/// One for each queue that it goes to. The same row gives the same bytes for ever: revoke removes exactly them.
fn pushes_of(row: &Outgoing) -> Vec<Push> {
    let tag = row.id.delivery_tag(row.delivery);
    if let Some(Spread::Fanout { exchange, routing_key }) = &row.spread {
        let priority = row.priority.get();
        let mut properties = Properties::task(row.id.as_str(), routing_key, priority, &tag);
        properties.exchange = exchange.as_str().into();
        properties.reply_to = Some(tag.as_str().into());
        let target = Target::Fanout { exchange: exchange.clone(), routing_key: routing_key.clone() };
        return vec![Push { target, envelope: envelope(&row.headers, &row.body, &properties), tag }];
    }
    let copies = row.spread.as_ref().map_or(&[][..], Spread::copies);
    let queues = std::iter::once(&row.queue).chain(copies).enumerate();
    queues
        .map(|(n, queue)| {
            let tag = copy_tag(&tag, n);
            let priority = row.priority.get();
            let envelope = envelope_bytes(row.id.as_str(), queue.as_str(), priority, &tag, &row.headers, &row.body);
            Push { target: Target::Queue(queue.clone(), row.priority), tag, envelope }
        })
        .collect()
}

/// The tag of a message in the `n`th queue that it stands in: two messages with one tag could not both be put back.
pub fn copy_tag(tag: &str, n: usize) -> String {
    if n == 0 { tag.to_owned() } else { format!("{tag}.{n}") }
}

/// The bytes of one delivery as they stand in the list.
pub fn envelope_bytes(id: &str, queue: &str, priority: u8, tag: &str, headers: &str, body: &str) -> Vec<u8> {
    let mut properties = Properties::task(id, queue, priority, tag);
    properties.reply_to = Some(tag.into());
    envelope(headers, body, &properties)
}
