//! Takes messages as fast as the worker can use them, and no faster.
//!
//! [`Places`] limit how many messages are reserved: Celery's prefetch. A message takes a place until it is acknowledged. The loop never
//! drops a call that may have popped a message; shutdown waits for it (at most the second that an idle `BRPOP` lasts).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::dispatcher::Input;
use super::request::Origin;
use broker::{Consumer, Delivery, Lists, QueueOrder};
use celery::task::QueueName;
use runtime::clock;
use runtime::lifecycle::Backoff;

/// The timeout of an idle `BRPOP`, as in kombu.
const IDLE: Duration = Duration::from_secs(1);
/// Most messages per call: enough to keep a busy worker busy, few enough to leave some for other workers.
const BATCH: usize = 64;

/// How many messages may be reserved, and how many are.
#[derive(Debug)]
pub(crate) struct Places {
    limit: AtomicUsize,
    taken: AtomicUsize,
    changed: Notify,
}

impl Places {
    pub fn new(limit: usize) -> Self {
        Self { limit: AtomicUsize::new(limit), taken: AtomicUsize::new(0), changed: Notify::new() }
    }

    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Frees the places of messages that were acknowledged or given back.
    pub fn free(&self, count: usize) {
        self.taken.fetch_sub(count, Ordering::AcqRel);
        self.changed.notify_one();
    }

    fn take(&self, count: usize) {
        self.taken.fetch_add(count, Ordering::AcqRel);
    }

    fn free_now(&self) -> usize {
        self.limit().saturating_sub(self.taken.load(Ordering::Acquire))
    }

    /// Waits for a free place, and returns the number of free places.
    async fn available(&self) -> usize {
        loop {
            let free = self.free_now();
            if free > 0 {
                return free;
            }
            self.changed.notified().await;
        }
    }
}

/// The one task that takes messages.
pub(crate) struct Intake {
    consumer: Consumer,
    queues: watch::Receiver<Vec<QueueName>>,
    places: Arc<Places>,
    sink: mpsc::Sender<Input>,
    /// Whether more messages may be there: after a message has woken an idle worker, it reads again without blocking.
    more: bool,
}

impl Intake {
    pub fn new(
        broker: &Lists,
        order: QueueOrder,
        queues: watch::Receiver<Vec<QueueName>>,
        places: Arc<Places>,
        sink: mpsc::Sender<Input>,
    ) -> Self {
        let consumer = broker.consumer(queues.borrow().clone(), order);
        Self { consumer, queues, places, sink, more: true }
    }

    /// Takes messages until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_secs(2));
        while !stop.is_cancelled() {
            match self.step(&stop).await {
                Ok(()) if backoff.is_fresh() => {}
                Ok(()) => {
                    info!("Redis is back, taking messages again");
                    backoff.reset();
                }
                Err(error) => {
                    if backoff.is_fresh() {
                        warn!(error = %error, "no messages can be taken, trying again: {error}");
                    }
                    tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(backoff.pause()) => {} }
                }
            }
        }
    }

    async fn step(&mut self, stop: &CancellationToken) -> Result<(), broker::Error> {
        let free = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            free = self.places.available() => free,
        };
        // Under load, places become free together: yield once to collect the others.
        tokio::task::yield_now().await;
        let free = free.max(self.places.free_now());
        if self.queues.has_changed().unwrap_or(false) {
            self.consumer.set_queues(self.queues.borrow_and_update().clone());
        }
        if self.queues.borrow().is_empty() {
            tokio::select! { () = stop.cancelled() => {} _ = self.queues.changed() => {} }
            self.consumer.set_queues(self.queues.borrow_and_update().clone());
            return Ok(());
        }
        let batch = if self.more {
            self.consumer.take(free.min(BATCH), clock::now()).await?
        } else {
            self.consumer.wait(IDLE, clock::now).await?.into_iter().collect()
        };
        self.more = !batch.is_empty();
        self.pass_on(batch).await;
        Ok(())
    }

    async fn pass_on(&self, batch: Vec<Delivery>) {
        if batch.is_empty() {
            return;
        }
        self.places.take(batch.len());
        let read = batch.into_iter().map(Origin::read).collect();
        // The dispatcher outlives the intake.
        let _ = self.sink.send(Input::Taken(read)).await;
    }
}
