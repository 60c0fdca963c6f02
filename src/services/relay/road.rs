//! The way from a row to a list in Redis, for both ways down.

use std::collections::{HashSet, VecDeque};
use std::sync::MutexGuard;
use std::time::Duration;

use async_trait::async_trait;
use metrics::histogram;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::info;

use super::Paces;
use super::attempts::Attempts;
use crate::backend::Backend;
use crate::broker::{Broker, Push, Pushed, Target};
use crate::celery::{Properties, envelope};
use crate::clock::{self, Time};
use crate::crash_points;
use crate::store::{Carrier, Outgoing};
use crate::task::Spread;

/// How long markers of the outbox way stay: longer than any direct push can be late, clocks included.
const MARKER_GRACE: Duration = Duration::from_secs(600);
/// Markers older than this were left behind by a crash.
const MARKER_AGE: Duration = Duration::from_secs(3_600);

/// The way from a row to a list in Redis.
pub(super) struct Road {
    pub broker: Broker,
    backend: Backend,
    paces: Paces,
    /// Markers that the outbox way has yet to remove, oldest first. Bounded by what is drained in [`MARKER_GRACE`].
    markers: Mutex<VecDeque<(Instant, Vec<String>)>>,
    attempts: std::sync::Mutex<Attempts>,
}

impl Road {
    pub fn new(broker: Broker, backend: Backend, paces: Paces) -> Self {
        Self { broker, backend, paces, markers: Mutex::default(), attempts: std::sync::Mutex::default() }
    }

    pub fn pushes(&self, batch: &[Outgoing]) -> Vec<Push> {
        batch.iter().flat_map(pushes_of).collect()
    }

    /// Chord sizes and saved structures come before the first member.
    pub async fn prepare(&self, batch: &[Outgoing]) -> Result<(), crate::broker::Error> {
        let mut done = HashSet::new();
        for group in batch.iter().flat_map(|row| row.groups.iter()) {
            if done.insert(&group.id) {
                self.backend.prepare_group(&group.id, group.chord_size, group.structure.as_ref()).await?;
            }
        }
        Ok(())
    }

    /// All crash points of a push are here, for both ways.
    pub async fn publish(&self, pushes: &[Push], deadline: Option<Time>) -> Result<Vec<Pushed>, crate::broker::Error> {
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

    pub fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().expect("nothing panics under this lock")
    }

    async fn carry_all(&self, batch: &[Outgoing]) -> Result<Vec<i64>, crate::broker::Error> {
        self.prepare(batch).await?;
        let pushes = self.pushes(batch);
        self.attempts().begin(batch);
        let outcomes = self.publish(&pushes, None).await?;
        let repeated = outcomes.iter().filter(|outcome| **outcome == Pushed::Before).count();
        if repeated > 0 {
            info!(repeated, "{repeated} deliveries were in the broker already");
        }
        let tags = pushes.into_iter().map(|push| push.tag).collect();
        self.markers.lock().await.push_back((Instant::now(), tags));
        Ok(batch.iter().map(|row| row.no).collect())
    }

    pub async fn forget_old(&self) {
        let mut markers = self.markers.lock().await;
        while markers.front().is_some_and(|(since, _)| since.elapsed() > MARKER_GRACE) {
            let Some((_, tags)) = markers.pop_front() else { break };
            if self.broker.forget_markers(&tags).await.is_err() {
                break;
            }
        }
    }

    /// At shutdown: what a crash left behind long ago goes too.
    pub async fn forget_all(&self) {
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
                if !error.outcome_unknown() {
                    self.attempts().end();
                }
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
pub(super) fn cause(error: &dyn std::error::Error) -> String {
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
