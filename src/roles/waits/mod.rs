//! Carries out steps that wait and sleep, as their worker.
//!
//! A step arrives as a message, like every other task. From then on it is only a row in the ledger, so neither a restart nor a broker
//! that lost its data affects it. Its end is written first (by a request, or here at its timeout); then the replica that claims it sends
//! the next step, as a worker would, and settles it. All replicas run this: an update statement decides who ends a wait, a claim decides
//! who settles it.
//!
//! Failures only delay it: while the ledger is down, messages stay in their queue; while the broker is down, an ended wait stays
//! unsettled and is retried.

mod follow;
mod settle;
mod take;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::live::hub::Hub;
use crate::usecase::Wake;
use broker::backend::Backend;
use broker::{Broker, Served};
use celery::task::pause;
use ledger::{Error, SharedLedger};
use runtime::clock::{self, Time};
use runtime::lifecycle::Backoff;

/// How often to look for waits that other replicas ended or left when they died.
const PERIOD: Duration = Duration::from_secs(1);
const LEDGER_PAUSE: Duration = Duration::from_secs(2);
/// Messages taken at a time.
const BATCH: usize = 100;
/// How often settled waits are removed.
const TIDY: Duration = Duration::from_mins(10);
const TIDY_PAGE: i64 = 1_000;

/// The parts of the service.
pub struct Parts {
    pub ledger: SharedLedger,
    pub broker: Broker,
    /// `None` if results come over the broker.
    pub backend: Option<Backend>,
    pub hub: Hub,
    pub wake: Wake,
    pub holder: String,
    pub origin: String,
    /// How long a result stays in the backend.
    pub result_expires: Duration,
    /// How long ended waits are kept.
    pub keep: Duration,
}

/// The service of one replica.
pub struct Waits {
    parts: Parts,
}

impl Waits {
    pub fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let (sink, arrived) = mpsc::channel(BATCH);
        tokio::join!(
            self.parts.broker.serve_queue(pause::QUEUE, sink, stop.clone()),
            self.keep_taking(arrived, stop.clone()),
            self.keep_time(stop.clone()),
            self.keep_settling(stop),
        );
    }

    /// Moves arriving steps into the ledger.
    async fn keep_taking(&self, mut arrived: mpsc::Receiver<Served>, stop: CancellationToken) {
        let mut backoff = Backoff::new(LEDGER_PAUSE);
        let mut batch = Vec::new();
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => return,
                count = arrived.recv_many(&mut batch, BATCH) => if count == 0 { return },
            }
            match self.take(&mut batch).await {
                Ok(()) => {
                    self.parts.wake.begun.nudge();
                    backoff.reset();
                }
                Err(error) => {
                    // The messages are still in their queue, and are read again.
                    batch.clear();
                    rest(&mut backoff, &error, &stop).await;
                }
            }
        }
    }

    /// Ends waits at their timeout. Taking steps in does not hold it up.
    async fn keep_time(&self, stop: CancellationToken) {
        let mut backoff = Backoff::new(LEDGER_PAUSE);
        while !stop.is_cancelled() {
            match self.expire().await {
                Ok(next) => {
                    backoff.reset();
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = self.parts.wake.begun.nudged() => {}
                        () = tokio::time::sleep(until(next)) => {}
                    }
                }
                Err(error) => rest(&mut backoff, &error, &stop).await,
            }
        }
    }

    /// Ends what is due; returns when the next wait times out.
    async fn expire(&self) -> Result<Option<Time>, Error> {
        if self.parts.ledger.expire_waits(clock::now()).await? > 0 {
            self.parts.wake.ended.nudge();
        }
        self.parts.ledger.next_expiry().await
    }

    async fn keep_settling(&self, stop: CancellationToken) {
        let mut backoff = Backoff::new(LEDGER_PAUSE);
        let mut tidied = tokio::time::Instant::now();
        while !stop.is_cancelled() {
            let pause = match self.settle_ended().await {
                Ok(true) => continue,
                Ok(false) => {
                    backoff.reset();
                    PERIOD
                }
                Err(trouble) => {
                    if backoff.is_fresh() {
                        warn!(error = %trouble, "the continuation of a wait could not be sent, trying again: {trouble}");
                    }
                    backoff.pause()
                }
            };
            if tidied.elapsed() > TIDY {
                tidied = tokio::time::Instant::now();
                let before = clock::now().minus(self.parts.keep);
                // The next round tries again.
                let _ = self.parts.ledger.forget_waits(before, TIDY_PAGE).await;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.parts.wake.ended.nudged() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Pauses after an error of the ledger; only the first of several is logged.
async fn rest(backoff: &mut Backoff, error: &Error, stop: &CancellationToken) {
    if backoff.is_fresh() {
        warn!(error = %error, "steps that wait could not be read, trying again");
    }
    let pause = backoff.pause();
    tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(pause) => {} }
}

/// The time of the next round: the next timeout, or the poll.
fn until(next: Option<Time>) -> Duration {
    next.map_or(PERIOD, |at| at.since(clock::now()).min(PERIOD))
}
