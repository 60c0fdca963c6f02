//! Which queues are paused: cached by every replica, so that submissions need not ask the ledger.
//!
//! The cache is at most one period old. A submission that slips through is published and waits in the queue, because the workers
//! no longer consume it.

use std::collections::HashSet;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use ledger::{Error, SharedLedger};

const PERIOD: Duration = Duration::from_secs(1);

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Pauses(Arc<RwLock<Arc<HashSet<String>>>>);

impl Pauses {
    pub fn current(&self) -> Arc<HashSet<String>> {
        Arc::clone(&self.0.read().expect("nothing panics under this lock"))
    }

    /// Reads the ledger now.
    pub async fn refresh(&self, ledger: &SharedLedger) -> Result<(), Error> {
        let paused: HashSet<String> = ledger.paused_queues().await?.into_iter().map(|(queue, _)| queue).collect();
        let mut current = self.0.write().expect("nothing panics under this lock");
        if **current != paused {
            *current = Arc::new(paused);
        }
        Ok(())
    }

    /// Runs until `stop`. While the ledger is down, the last answer stays valid.
    pub async fn run(self, ledger: SharedLedger, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let _ = self.refresh(&ledger).await;
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(PERIOD) => {} }
        }
    }
}
