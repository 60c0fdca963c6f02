//! Pushes rows into lists in Redis, for both paths of the relay.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use metrics::histogram;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Paces;
use super::attempts::Attempts;
use super::lives;
use super::next::LEAD;
use super::unfit::Unfit;
use crate::live::direct::Shared;
use crate::live::windows::Windows;
use broker::backend::ResultBackend;
use broker::{Broker, Push, Pushed, Target};
use celery::task::{Priority, QueueName, Spread, TaskId};
use celery::{Properties, envelope};
use ledger::{Carrier, Outgoing};
use runtime::clock::{self, Time};
use runtime::crash_points;

/// How long markers of the direct path stay after the publication is recorded, and after the last failure. The record does not wait for
/// the disk: a crash of PostgreSQL within three times `wal_writer_delay` (0.2 s by default) brings the row back into the outbox, and a
/// pass publishes it again.
const DIRECT_GRACE: Duration = Duration::from_secs(5);
/// How long markers of the outbox path stay: longer than any direct push can be late, including clock differences.
const MARKER_GRACE: Duration = Duration::from_secs(600);
/// With more markers than this (some 50 MB), the oldest are removed earlier,
const MARKERS: usize = 500_000;
/// but not before this: a direct push may be late, and clocks may differ by half a minute.
const LEAST_GRACE: Duration = Duration::from_secs(60);
/// Markers removed in one call.
const PAGE: usize = 1_000;
/// Markers older than this were left behind by a crash.
const MARKER_AGE: Duration = Duration::from_secs(3_600);

/// Pushes rows and keeps track of markers.
pub(super) struct Pusher {
    pub broker: Broker,
    backend: ResultBackend,
    paces: Paces,
    windows: Windows,
    shared: Arc<Shared>,
    markers: Mutex<Markers>,
    attempts: std::sync::Mutex<Attempts>,
    unfit: std::sync::Mutex<Unfit>,
    /// Whether a publication has failed since the last success.
    has_failed: AtomicBool,
    /// The time as of which the pass decides: it publishes no earlier.
    from: AtomicI64,
}

/// Markers that must still be removed.
#[derive(Default)]
struct Markers {
    /// Bounded by what is published in [`DIRECT_GRACE`].
    direct: Waiting,
    /// Bounded by what is drained in [`LEAST_GRACE`], or [`MARKERS`].
    outbox: Waiting,
}

/// Batches of markers, oldest first.
#[derive(Default)]
struct Waiting {
    batches: VecDeque<(Instant, Vec<String>)>,
    count: usize,
}

impl Waiting {
    fn keep(&mut self, now: Instant, tags: Vec<String>) {
        self.count += tags.len();
        self.batches.push_back((now, tags));
    }

    /// The oldest batch, if it is older than `grace`.
    fn take_older(&mut self, now: Instant, grace: Duration) -> Option<Vec<String>> {
        let (_, tags) = self.batches.pop_front_if(|(since, _)| now.duration_since(*since) > grace)?;
        self.count -= tags.len();
        Some(tags)
    }
}

impl Markers {
    /// The next markers to remove, some at a time.
    fn take_old(&mut self, now: Instant) -> Vec<String> {
        let mut old = Vec::new();
        while old.len() < PAGE {
            let grace = if self.outbox.count > MARKERS { LEAST_GRACE } else { MARKER_GRACE };
            let direct = self.direct.take_older(now, DIRECT_GRACE);
            let Some(tags) = direct.or_else(|| self.outbox.take_older(now, grace)) else { break };
            old.extend(tags);
        }
        old
    }
}

impl Pusher {
    pub fn new(broker: Broker, backend: ResultBackend, paces: Paces, windows: Windows, shared: Arc<Shared>) -> Self {
        Self {
            attempts: std::sync::Mutex::new(Attempts::new(broker.lists().is_some())),
            broker,
            backend,
            paces,
            windows,
            shared,
            markers: Mutex::default(),
            unfit: std::sync::Mutex::default(),
            has_failed: AtomicBool::new(false),
            from: AtomicI64::new(0),
        }
    }

    /// Publications of the next pass begin at this time, which is at most [`LEAD`] away.
    pub fn publish_from(&self, at: Time) {
        self.from.store(at.0, Ordering::Relaxed);
    }

    pub fn pushes(&self, batch: &[Outgoing]) -> Vec<Push> {
        batch.iter().flat_map(pushes_of).collect()
    }

    /// Writes chord sizes and saved structures, which must exist before the first member is pushed.
    pub async fn prepare(&self, batch: &[Outgoing]) -> Result<(), broker::Error> {
        let mut done = HashSet::new();
        for group in batch.iter().flat_map(|row| row.groups.iter()) {
            if done.insert(&group.id) {
                self.backend.prepare_group(&group.id, group.chord_size, group.structure.as_ref()).await?;
            }
        }
        Ok(())
    }

    /// Pushes messages; contains the crash points of both paths.
    pub async fn publish(&self, pushes: &[Push], deadline: Option<Time>) -> Result<Vec<Pushed>, broker::Error> {
        if crash_points::is_next(crash_points::HALF_BATCH) && pushes.len() > 1 {
            self.broker.publish(&pushes[..pushes.len() / 2], deadline).await?;
            crash_points::reach(crash_points::HALF_BATCH);
        }
        let started = Instant::now();
        let outcomes = self.broker.publish(pushes, deadline).await?;
        if !pushes.is_empty() {
            self.has_failed.store(false, Ordering::Relaxed);
        }
        histogram!("taskgate_publish_seconds").record(started.elapsed().as_secs_f64());
        crash_points::reach(crash_points::AFTER_PUSH);
        Ok(outcomes)
    }

    /// Logs a failure: the first as a warning, further ones at debug level, because under load there are many per second.
    pub fn tell_failure(&self, tasks: usize, error: &dyn std::error::Error) {
        let cause = cause(error);
        if self.has_failed.swap(true, Ordering::Relaxed) {
            debug!(%error, %cause, "publishing failed again, {tasks} tasks wait in the outbox: {error}");
        } else {
            warn!(%error, %cause, "publishing failed, tasks wait in the outbox: {error}");
        }
    }

    pub fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().expect("nothing panics under this lock")
    }

    /// Numbers of the rows with a refused message. Such a row stays in the outbox until all its messages are in the broker; markers prevent
    /// a second push of those that are.
    pub fn refused(&self, batch: &[Outgoing], outcomes: &[Pushed]) -> HashSet<i64> {
        let mut outcomes = outcomes.iter();
        let mut refused = HashSet::new();
        for row in batch {
            let of_row = outcomes.by_ref().take(messages_of(row));
            for why in of_row.filter_map(Pushed::refusal) {
                warn!(task.id = %row.id, queue.name = %row.queue, "task {} is not published: {why}", row.id);
                self.note_unfit(row, why);
                refused.insert(row.no);
            }
        }
        refused
    }

    /// If none of its queues refuses it, the message itself is refused.
    fn note_unfit(&self, row: &Outgoing, why: &str) {
        let copies = match &row.spread {
            Some(Spread::Fanout { .. }) => &[][..],
            spread => spread.as_ref().map_or(&[][..], Spread::copies),
        };
        let mut queues = std::iter::once(&row.queue).chain(copies);
        if queues.all(|queue| self.broker.refuses(queue, row.priority).is_none()) {
            self.unfit.lock().expect("nothing panics under this lock").note(&row.id, why);
        }
    }

    /// Reads which incarnation of its data Redis has.
    pub async fn see_life(&self) -> Result<(), broker::Error> {
        let Some(lists) = self.broker.lists() else { return Ok(()) };
        let life = lists.life(&lives::new_name()).await?;
        self.attempts().see(life, clock::now());
        Ok(())
    }

    /// An attempt is remembered with the incarnation of Redis's data, so that must be known before the first one.
    pub async fn see_first_life(&self) -> Result<(), broker::Error> {
        let has_seen = self.attempts().has_seen_life();
        if has_seen { Ok(()) } else { self.see_life().await }
    }

    /// The tasks that a replica may have pushed before Redis lost its data, and that no attempt is known of: their replica may be dead, or a
    /// crash of PostgreSQL has undone the record.
    async fn suspect_left_behind(&self, batch: &[Outgoing]) -> Result<Vec<TaskId>, broker::Error> {
        self.see_first_life().await?;
        let mut left: Vec<&Outgoing> = batch.iter().filter(|row| row.direct).collect();
        self.shared.unpushed.remove_from(&mut left);
        if left.is_empty() || self.broker.lists().is_none() {
            return Ok(Vec::new());
        }
        self.see_life().await?;
        Ok(self.attempts().suspect_left_behind(&left))
    }

    /// Drops suspects whose message stands in the present data: it is the first one.
    fn acquit(&self, suspects: &[TaskId], batch: &[Outgoing], outcomes: &[Pushed]) {
        if suspects.is_empty() {
            return;
        }
        let mut outcomes = outcomes.iter();
        let mut stands = |row: &&Outgoing| {
            // All outcomes of the row are read, whatever the first one is.
            let before = outcomes.by_ref().take(messages_of(row)).filter(|outcome| **outcome == Pushed::Before).count();
            before == messages_of(row)
        };
        let standing: HashSet<&TaskId> = batch.iter().filter(|row| stands(row)).map(|row| &row.id).collect();
        let acquitted: Vec<TaskId> = suspects.iter().filter(|id| standing.contains(id)).cloned().collect();
        self.attempts().close(&acquitted);
    }

    async fn carry_all(&self, batch: &[Outgoing]) -> Result<Vec<i64>, broker::Error> {
        self.prepare(batch).await?;
        let pushes = self.pushes(batch);
        let suspects = self.suspect_left_behind(batch).await?;
        let early = Time(self.from.load(Ordering::Relaxed)).since(clock::now());
        // A timer of no length takes up to a millisecond.
        if !early.is_zero() {
            tokio::time::sleep(early.min(LEAD)).await;
        }
        self.attempts().begin(batch);
        let outcomes = self.publish(&pushes, None).await?;
        self.acquit(&suspects, batch, &outcomes);
        let refused = self.refused(batch, &outcomes);
        let repeated = outcomes.iter().filter(|outcome| **outcome == Pushed::Before).count();
        if repeated > 0 {
            info!(repeated, "{repeated} deliveries were in the broker already");
        }
        let tags = pushes.into_iter().map(|push| push.tag).collect();
        self.markers.lock().await.outbox.keep(Instant::now(), tags);
        Ok(batch.iter().map(|row| row.no).filter(|no| !refused.contains(no)).collect())
    }

    /// Called when direct pushes are recorded as published.
    pub async fn written_down(&self, tags: Vec<String>) {
        self.markers.lock().await.direct.keep(Instant::now(), tags);
    }

    /// Keeps markers for longer, because recent records in the ledger may have been undone, or the outbox cannot be drained of rows that
    /// came back.
    pub async fn keep_markers(&self) {
        let now = Instant::now();
        self.markers.lock().await.direct.batches.iter_mut().for_each(|(since, _)| *since = now);
    }

    /// Removes old markers. If Redis does not answer, they stay and cost a few bytes for an hour.
    pub async fn forget_old(&self) {
        let Some(lists) = self.broker.lists() else { return };
        let mut markers = self.markers.lock().await;
        loop {
            let tags = markers.take_old(Instant::now());
            if tags.is_empty() {
                break;
            }
            if let Err(error) = lists.forget_markers(&tags).await {
                info!(error = %error, "markers of {} deliveries stay until they are swept", tags.len());
                break;
            }
        }
    }

    /// At shutdown: also removes markers that an earlier crash left behind.
    pub async fn forget_all(&self) {
        let Some(lists) = self.broker.lists() else { return };
        let sweeping = lists.sweep_markers(clock::now(), MARKER_AGE, 100_000);
        let _ = tokio::time::timeout(Duration::from_secs(1), sweeping).await;
    }
}

#[async_trait]
impl Carrier for Pusher {
    async fn carry(&self, batch: &[Outgoing]) -> Vec<i64> {
        match self.carry_all(batch).await {
            Ok(numbers) => numbers,
            Err(error) => {
                if !error.outcome_unknown() {
                    self.attempts().end();
                }
                self.tell_failure(batch.len(), &error);
                Vec::new()
            }
        }
    }

    fn refuses(&self, queue: &QueueName, priority: Priority) -> Option<String> {
        self.broker.refuses(queue, priority)
    }

    fn knows_repetitions(&self) -> bool {
        self.broker.lists().is_some()
    }

    fn refuses_message(&self, id: &TaskId) -> Option<String> {
        self.unfit.lock().expect("nothing panics under this lock").why(id)
    }

    fn pace(&self, name: &str) -> Option<Duration> {
        self.paces.get(name).copied()
    }

    fn window(&self, queue: &str, shared: bool) -> Option<u32> {
        self.windows.of(queue, shared)
    }

    fn rank(&self, priority: Priority) -> i16 {
        self.windows.rank(priority)
    }
}

/// The error of Redis.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

fn messages_of(row: &Outgoing) -> usize {
    match &row.spread {
        Some(Spread::Fanout { .. }) => 1,
        spread => 1 + spread.as_ref().map_or(0, |spread| spread.copies().len()),
    }
}

/// The messages of a row, one for each queue. The same row always gives the same bytes, because revoke removes exactly these.
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

/// The tag of a message's copy in its `n`th queue: two messages with the same tag could not both be put back.
pub fn copy_tag(tag: &str, n: usize) -> String {
    if n == 0 { tag.to_owned() } else { format!("{tag}.{n}") }
}

/// The bytes of a delivery as they are in the list.
pub fn envelope_bytes(id: &str, queue: &str, priority: u8, tag: &str, headers: &str, body: &str) -> Vec<u8> {
    let mut properties = Properties::task(id, queue, priority, tag);
    properties.reply_to = Some(tag.into());
    envelope(headers, body, &properties)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(count: usize) -> Vec<String> {
        vec!["t.1".to_owned(); count]
    }

    #[test]
    fn of_many_markers_the_oldest_go_sooner() {
        let (mut markers, begin) = (Markers::default(), Instant::now());
        markers.outbox.keep(begin, tags(MARKERS));
        assert_eq!(markers.take_old(begin + LEAST_GRACE * 2).len(), 0);
        markers.outbox.keep(begin + LEAST_GRACE, tags(1));
        assert_eq!(markers.take_old(begin + LEAST_GRACE).len(), 0, "a direct push may be on its way");
        assert_eq!(markers.take_old(begin + LEAST_GRACE * 2).len(), MARKERS);
        assert_eq!(markers.take_old(begin + LEAST_GRACE * 3).len(), 0, "one is not many");
        assert_eq!(markers.take_old(begin + LEAST_GRACE + MARKER_GRACE * 2).len(), 1);
    }

    #[test]
    fn markers_of_the_direct_way_go_together_when_the_ledger_is_durable() {
        let (mut markers, begin) = (Markers::default(), Instant::now());
        for second in 0..3 {
            markers.direct.keep(begin + Duration::from_secs(second), tags(2));
        }
        assert_eq!(markers.take_old(begin + DIRECT_GRACE).len(), 0, "PostgreSQL may crash yet");
        assert_eq!(markers.take_old(begin + DIRECT_GRACE + Duration::from_millis(1_500)).len(), 4);
        assert_eq!((markers.direct.count, markers.take_old(begin + DIRECT_GRACE * 2).len()), (2, 2));
    }
}
