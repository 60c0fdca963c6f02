//! Publishes worker and task events. Lossy by nature (pub/sub): no task waits for an event, and events that do not fit are dropped. Task
//! events without a subscriber, such as just after the broker has come back, are sent again for a few seconds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tracing::debug;

use super::transport::TransportRef;
use broker::EVENT_EXCHANGE;
use celery::event::{self, Event, Kind, TaskNews, WorkerNews, WorkerState};
use celery::task::TaskId;
use celery::task_log::TaskLog;
use runtime::clock;

/// Most events queued, about half a second of a very busy worker; more means that the broker is down, and then events are useless.
const QUEUED: usize = 10_000;
/// How long task events without a subscriber are sent again.
const SAID_AGAIN: SignedDuration = SignedDuration::from_secs(10);
/// Most events that are kept to be sent again.
const UNHEARD: usize = 2_000;
/// How often they are sent again while there are no new events.
const AGAIN: Duration = Duration::from_millis(500);
/// Events in one message. Python workers send up to 24; readers take lists of any length.
const BATCH: usize = 128;

/// The routing key of task events.
const TASKS: &str = "task.multi";

/// A Lamport clock: every node takes the greatest time that it received, plus one.
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
    transport: TransportRef,
}

impl Events {
    pub fn new(transport: TransportRef, hostname: &str, enabled: bool) -> (Self, Outbox) {
        let (sink, source) = mpsc::channel(QUEUED);
        let events = Self {
            sink,
            enabled: Arc::new(AtomicBool::new(enabled)),
            hostname: hostname.into(),
            lamport: Arc::default(),
        };
        (events, Outbox { source, transport })
    }

    /// Queues an event of a task; does nothing while task events are off.
    pub fn task(&self, id: &TaskId, news: impl FnOnce() -> TaskNews) {
        if self.enabled() {
            self.send(Kind::Task { uuid: id.clone(), news: news() });
        }
    }

    /// Queues an event of the worker itself, which is always sent.
    pub fn worker(&self, news: WorkerNews, state: WorkerState) {
        self.send(Kind::Worker { news, state });
    }

    /// Queues log lines of a task.
    pub fn log(&self, log: &TaskLog) {
        let event = log.event(&self.hostname, std::process::id().into(), self.lamport.tick(), timestamp());
        self.send(event.kind);
    }

    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Switches task events on or off. Returns the previous value.
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
    /// Publishes until all senders are gone. Events that arrive while one message is sent go into the next.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut unsaid = Unsaid::default();
        loop {
            let again = async {
                if unsaid.0.is_empty() { std::future::pending().await } else { tokio::time::sleep(AGAIN).await }
            };
            tokio::select! {
                count = self.source.recv_many(&mut batch, BATCH) => if count == 0 { return },
                () = again => {}
            }
            unsaid.0.extend(batch.drain(..));
            while let Some(run) = unsaid.take() {
                if !self.is_heard(&run).await {
                    unsaid.put_back(run);
                    break;
                }
            }
        }
    }

    /// Publishes events, and returns whether there was a subscriber.
    async fn is_heard(&self, run: &[Event]) -> bool {
        let tag = clock::random_id().to_string();
        let routing_key = run[0].routing_key();
        let message = match routing_key.as_str() {
            TASKS => event::encode_tasks(run, EVENT_EXCHANGE, &tag),
            _ => event::encode_one(&run[0], EVENT_EXCHANGE, &tag),
        };
        let heard = self.transport.announce(&routing_key, &message).await;
        if let Err(error) = &heard {
            debug!(events = run.len(), error = %error, "{} events were not published", run.len());
        }
        heard.unwrap_or(false)
    }
}

/// Events that have not reached a subscriber yet, oldest first. Bounded by [`UNHEARD`] and one batch.
#[derive(Default)]
struct Unsaid(VecDeque<Event>);

impl Unsaid {
    /// The events of the next message: one of the worker itself, or several of tasks.
    fn take(&mut self) -> Option<Vec<Event>> {
        let tasks = self.0.iter().take(BATCH).take_while(|event| is_of_task(event)).count();
        let count = if self.0.is_empty() { return None } else { tasks.max(1) };
        Some(self.0.drain(..count).collect())
    }

    /// Keeps the latest task events to send them again. Worker events are dropped, because the next one replaces them.
    fn put_back(&mut self, run: Vec<Event>) {
        run.into_iter().rev().filter(is_of_task).for_each(|event| self.0.push_front(event));
        let now = timestamp();
        let is_old = |event: &Event| now.duration_since(event.timestamp) > SAID_AGAIN;
        while self.0.len() > UNHEARD || self.0.front().is_some_and(is_old) {
            self.0.pop_front();
        }
    }
}

fn is_of_task(event: &Event) -> bool {
    event.routing_key() == TASKS
}

/// The current time, in microseconds as in Celery's formats.
pub(crate) fn timestamp() -> Timestamp {
    Timestamp::from_microsecond(clock::now().as_micros()).unwrap_or(Timestamp::MAX)
}

/// The worker state in events, without the counts.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind, age: SignedDuration) -> Event {
        let timestamp = timestamp().checked_sub(age).unwrap();
        Event { hostname: "w".into(), pid: None, clock: 1, utcoffset: 0.0, timestamp, kind }
    }

    fn task(id: &str, age: SignedDuration) -> Event {
        event(Kind::Task { uuid: TaskId::parse(id).unwrap(), news: TaskNews::Started }, age)
    }

    fn heartbeat() -> Event {
        event(Kind::Worker { news: WorkerNews::Heartbeat, state: WorkerState::default() }, SignedDuration::ZERO)
    }

    fn ids(events: Vec<Event>) -> Vec<String> {
        let id = |event: Event| match event.kind {
            Kind::Task { uuid, .. } => uuid.to_string(),
            _ => "worker".to_owned(),
        };
        events.into_iter().map(id).collect()
    }

    #[test]
    fn what_nobody_heard_of_tasks_is_said_again_for_a_while() {
        let fresh = SignedDuration::ZERO;
        let mut unsaid = Unsaid::default();
        unsaid.0.extend([task("old", SAID_AGAIN * 2), task("a", fresh), heartbeat(), task("b", fresh)]);
        let first = unsaid.take().unwrap();
        assert_eq!(first.len(), 2);
        unsaid.put_back(first);
        assert_eq!(ids(unsaid.take().unwrap()), ["a"]);
        let word = unsaid.take().unwrap();
        assert_eq!(ids(word.clone()), ["worker"]);
        unsaid.put_back(word);
        assert_eq!(ids(unsaid.take().unwrap()), ["b"], "the next heartbeat says more");
        assert!(unsaid.take().is_none());
    }

    #[test]
    fn of_too_much_the_latest_is_said_again() {
        let mut unsaid = Unsaid::default();
        let many = |count: usize| (0..count).map(|n| task(&n.to_string(), SignedDuration::ZERO)).collect();
        unsaid.put_back(many(UNHEARD + 3));
        assert_eq!((unsaid.0.len(), ids(unsaid.take().unwrap())[0].clone()), (UNHEARD, "3".to_owned()));
    }
}
