//! Writes task logs from the recorder into the ledger: lines that arrive together share a commit.
//!
//! Nothing waits for it: when it falls behind, events are dropped and counted, and the next stored line says how many are missing.

use std::time::Duration;

use metrics::counter;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config;
use crate::live::hub::Hub;
use celery::task_log::TaskLog;
use ledger::{Error, SharedLedger};
use runtime::clock;
use runtime::lifecycle::Backoff;

/// How many events may wait for a commit, each of at most 64 KiB from a well-behaved worker.
pub const CAPACITY: usize = 512;
/// Events in one commit.
const BATCH: usize = 64;
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often a write is tried while the ledger is down. After that the event is dropped: logs are less important than states.
const TRIES: u32 = 20;
/// How often old lines are removed.
const PRUNE_PERIOD: Duration = Duration::from_mins(1);
const PRUNE_BATCH: i64 = 1_000;

/// Takes events from the recorder.
pub type Sink = mpsc::Sender<TaskLog>;

/// The service that writes task logs.
pub struct LogWriter {
    events: mpsc::Receiver<TaskLog>,
    ledger: SharedLedger,
    hub: Hub,
    config: config::Logs,
}

impl LogWriter {
    pub fn new(ledger: SharedLedger, hub: Hub, config: config::Logs) -> (Self, Sink) {
        let (sink, events) = mpsc::channel(CAPACITY);
        (Self { events, ledger, hub, config }, sink)
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::new();
        let mut prune = tokio::time::interval(PRUNE_PERIOD.min(self.config.keep).max(Duration::from_secs(1)));
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                count = self.events.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.write(&batch, &stop).await;
                    batch.clear();
                }
                _ = prune.tick() => self.prune().await,
            }
        }
    }

    async fn write(&self, batch: &[TaskLog], stop: &CancellationToken) {
        let most = i64::try_from(self.config.max_bytes).unwrap_or(i64::MAX);
        let mut backoff = Backoff::new(LONGEST_PAUSE);
        for _ in 0..TRIES {
            match self.ledger.append_logs(batch, most, clock::now()).await {
                Ok(grown) => {
                    self.hub.signal_changed(&grown);
                    return;
                }
                Err(error) => {
                    if backoff.is_fresh() {
                        warn!(error = %error, "task logs cannot be written, trying again");
                    }
                    let pause = backoff.pause();
                    tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(pause) => {} }
                }
            }
        }
        counter!("taskgate_task_log_events_dropped_total").increment(batch.len() as u64);
    }

    async fn prune(&self) {
        let before = clock::now().minus(self.config.keep);
        let pruned: Result<i64, Error> = self.ledger.prune_logs(before, PRUNE_BATCH).await;
        if let Err(error) = pruned {
            warn!(error = %error, "old task logs could not be removed, trying again later");
        }
    }
}
