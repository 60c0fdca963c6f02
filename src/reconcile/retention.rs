//! Retention: deletes history that is older than its limit, in short transactions, and leaves tombstones.
//!
//! One replica prunes at a time, the holder of the lease. There is a short pause between full batches, so that no query waits for a
//! long lock and autovacuum keeps up.

use std::time::Duration;

use metrics::counter;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config;
use ledger::{Error, SharedLedger};
use runtime::clock;

const LEASE: &str = "retention";
/// Duration of the lease. A pass may take longer, because it renews the lease with every batch.
const LEASE_TTL: Duration = Duration::from_mins(2);
/// Pause between passes.
const PERIOD: Duration = Duration::from_mins(1);
/// Rows in one transaction, which takes some tens of milliseconds.
const BATCH: i64 = 500;
/// Pause after a full batch.
const BREATH: Duration = Duration::from_millis(50);

/// The service that prunes.
pub struct Retention {
    ledger: SharedLedger,
    config: config::Ledger,
    holder: String,
}

impl Retention {
    pub fn new(ledger: SharedLedger, config: config::Ledger, holder: String) -> Self {
        Self { ledger, config, holder }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        // Limits shorter than the period shorten it, so that they are kept accurately.
        let period = PERIOD.min(self.config.keep).min(self.config.keep_payload).max(Duration::from_secs(1));
        while !stop.is_cancelled() {
            if let Err(error) = self.pass(&stop).await {
                warn!(error = %error, "old history could not be removed, trying again later");
            }
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(period) => {} }
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), self.ledger.release(LEASE, &self.holder)).await;
    }

    async fn pass(&self, stop: &CancellationToken) -> Result<(), Error> {
        let (mut tasks, mut payloads) = (0, 0);
        let mut more = true;
        while more && !stop.is_cancelled() {
            let now = clock::now();
            if self.ledger.lease(LEASE, &self.holder, now, LEASE_TTL).await?.is_none() {
                break;
            }
            let pruned = self.ledger.prune(now.minus(self.config.keep), BATCH, now).await?;
            let emptied = self.ledger.prune_payload(now.minus(self.config.keep_payload), BATCH).await?;
            let keys = self.ledger.prune_keys(now, BATCH).await?;
            tasks += pruned;
            payloads += emptied;
            more = [pruned, emptied, keys].into_iter().any(|count| count >= BATCH);
            counter!("taskgate_tasks_pruned_total").increment(u64::try_from(pruned).unwrap_or(0));
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(BREATH) => {} }
        }
        if tasks + payloads > 0 {
            info!(tasks, payloads, "{tasks} old tasks and {payloads} old messages were pruned");
        }
        Ok(())
    }
}
