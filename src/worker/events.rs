//! Tells the fleet what happens here. Lossy by nature (pub/sub): nothing waits for an event, and what does not fit is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tracing::debug;

use crate::broker::{Broker, EVENT_EXCHANGE};
use crate::celery::event::{self, Event, Kind, TaskNews, WorkerNews, WorkerState};
use crate::clock;
use crate::task::TaskId;

/// About half a second of a very busy worker; more means that Redis is away, and then events are worth nothing.
const QUEUED: usize = 10_000;
/// Events in one message. Python workers send up to 24; readers take lists of any length.
const BATCH: usize = 128;

/// A Lamport clock: every node takes the greatest time it heard of plus one.
#[derive(Debug, Default)]
pub(crate) struct Lamport(AtomicI64);

impl Lamport {
    pub fn tick(&self) -> i64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn hear(&self, other: i64) -> i64 {
        self.0.fetch_max(other, Ordering::Relaxed);
        self.tick()
    }

    pub fn now(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sends events. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Events {
    sink: mpsc::Sender<Event>,
    enabled: Arc<AtomicBool>,
    hostname: Arc<str>,
    pub lamport: Arc<Lamport>,
}

/// The queued events, for the one task that publishes them.
pub(crate) struct Outbox {
    source: mpsc::Receiver<Event>,
    broker: Broker,
}

impl Events {
    pub fn new(broker: Broker, hostname: &str, enabled: bool) -> (Self, Outbox) {
        let (sink, source) = mpsc::channel(QUEUED);
        let events = Self {
            sink,
            enabled: Arc::new(AtomicBool::new(enabled)),
            hostname: hostname.into(),
            lamport: Arc::default(),
        };
        (events, Outbox { source, broker })
    }

    /// What happened to a task; nothing while task events are switched off.
    pub fn task(&self, id: &TaskId, news: impl FnOnce() -> TaskNews) {
        if self.enabled() {
            self.send(Kind::Task { uuid: id.clone(), news: news() });
        }
    }

    /// How the worker is: sent always.
    pub fn worker(&self, news: WorkerNews, state: WorkerState) {
        self.send(Kind::Worker { news, state });
    }

    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Returns what it was before.
    pub fn enable(&self, yes: bool) -> bool {
        self.enabled.swap(yes, Ordering::Relaxed)
    }

    fn send(&self, kind: Kind) {
        let event = Event {
            hostname: self.hostname.to_string(),
            pid: Some(std::process::id().into()),
            clock: self.lamport.tick(),
            utcoffset: 0.0,
            timestamp: timestamp(),
            kind,
        };
        if self.sink.try_send(event).is_err() {
            metrics::counter!("taskgate_worker_events_dropped_total").increment(1);
        }
    }
}

impl Outbox {
    /// Publishes until all senders are gone. What arrived while one message was on its way goes into the next.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.source.recv_many(&mut batch, BATCH).await > 0 {
            self.publish(&batch).await;
            batch.clear();
        }
    }

    async fn publish(&self, batch: &[Event]) {
        for run in batch.chunk_by(|a, b| a.routing_key() == "task.multi" && b.routing_key() == "task.multi") {
            let tag = clock::random_id().to_string();
            let routing_key = run[0].routing_key();
            let message = match routing_key.as_str() {
                "task.multi" => event::encode_tasks(run, EVENT_EXCHANGE, &tag),
                _ => event::encode_one(&run[0], EVENT_EXCHANGE, &tag),
            };
            if let Err(error) = self.broker.fan_out(EVENT_EXCHANGE, &routing_key, &message).await {
                debug!(events = run.len(), error = %error, "{} events were not published", run.len());
            }
        }
    }
}

/// The current time as Celery's formats take it.
pub(crate) fn timestamp() -> Timestamp {
    Timestamp::from_microsecond(clock::now().as_micros()).unwrap_or(Timestamp::MAX)
}

/// What a worker tells of itself, apart from the counts.
pub(crate) fn worker_state(frequency: Duration) -> WorkerState {
    WorkerState {
        freq: Some(frequency.as_secs_f64()),
        sw_ident: Some("taskgate".to_owned()),
        sw_ver: Some(env!("CARGO_PKG_VERSION").to_owned()),
        sw_sys: Some("Linux".to_owned()),
        ..WorkerState::default()
    }
}

/// The load averages of the last 1, 5 and 15 minutes.
pub(crate) fn loadavg() -> [f64; 3] {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut loads = text.split_whitespace().map(|load| load.parse().unwrap_or(0.0));
    [(); 3].map(|()| loads.next().unwrap_or(0.0))
}
