//! Takes messages as fast as the worker can use them, and no faster.
//!
//! [`Places`] limit how many messages are reserved: Celery's prefetch. A message takes a place until it is acknowledged. The loop never
//! drops a call that may have taken a message; shutdown waits for it (at most the second that an idle call lasts).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::dispatcher::Input;
use super::request::Origin;
use super::transport::{Take, TransportRef};
use broker::{Delivery, QueueOrder};
use celery::task::QueueName;
use runtime::lifecycle::Backoff;

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
    source: Box<dyn Take>,
    queues: watch::Receiver<Vec<QueueName>>,
    places: Arc<Places>,
    sink: mpsc::Sender<Input>,
}

impl Intake {
    pub fn new(
        transport: &TransportRef,
        order: QueueOrder,
        queues: watch::Receiver<Vec<QueueName>>,
        places: Arc<Places>,
        sink: mpsc::Sender<Input>,
    ) -> Self {
        let source = transport.intake(queues.borrow().clone(), order);
        Self { source, queues, places, sink }
    }

    /// Takes messages until `stop`, and gives back what the broker sent ahead.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_secs(2));
        while !stop.is_cancelled() {
            match self.step(&stop).await {
                Ok(()) if backoff.is_fresh() => {}
                Ok(()) => {
                    info!("the broker is back, taking messages again");
                    backoff.reset();
                }
                Err(error) => {
                    self.tell_lost().await;
                    if backoff.is_fresh() {
                        warn!(error = %error, "no messages can be taken, trying again: {error}");
                    }
                    tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(backoff.pause()) => {} }
                }
            }
        }
        self.source.close().await;
    }

    /// What the broker took back must not run here as if nothing had happened.
    async fn tell_lost(&mut self) {
        let lost = self.source.lost();
        if !lost.is_empty() {
            // The dispatcher outlives the intake.
            let _ = self.sink.send(Input::Lost(lost)).await;
        }
    }

    async fn step(&mut self, stop: &CancellationToken) -> Result<(), broker::Error> {
        let free = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            error = self.source.broken() => return Err(error),
            free = self.places.available() => free,
        };
        // Under load, places become free together: yield once to collect the others.
        tokio::task::yield_now().await;
        let free = free.max(self.places.free_now());
        if self.queues.has_changed().unwrap_or(false) {
            self.source.set_queues(self.queues.borrow_and_update().clone());
        }
        if self.queues.borrow().is_empty() {
            tokio::select! { () = stop.cancelled() => {} _ = self.queues.changed() => {} }
            self.source.set_queues(self.queues.borrow_and_update().clone());
            return Ok(());
        }
        let batch = self.source.take(free.min(BATCH), self.places.limit()).await?;
        self.pass_on(batch).await;
        Ok(())
    }

    async fn pass_on(&mut self, batch: Vec<Delivery>) {
        if batch.is_empty() {
            return;
        }
        self.places.take(batch.len());
        let read = batch.into_iter().map(Origin::read).collect();
        // The dispatcher outlives the intake.
        let _ = self.sink.send(Input::Taken(read)).await;
    }
}
