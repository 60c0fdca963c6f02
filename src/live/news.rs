//! Tells this replica's watchers about commits of other replicas.

use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::hub::Hub;
use ledger::{Changed, SharedLedger};

/// How often topics without watchers are dropped.
const SWEEP: Duration = Duration::from_secs(10);

/// Runs until `stop`.
pub async fn run(ledger: SharedLedger, hub: Hub, stop: CancellationToken) {
    let mut changes = ledger.changes();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = sweep.tick() => hub.sweep(),
            changed = changes.recv() => match changed {
                Ok(Changed::Tasks(ids)) => hub.signal_changed(&ids),
                Ok(Changed::Any | Changed::Gap) | Err(RecvError::Lagged(_)) => hub.look_everywhere(),
                // This ledger has one process, so there are no other replicas to hear from.
                Err(RecvError::Closed) => return sweep_only(&hub, sweep, &stop).await,
            },
        }
    }
}

async fn sweep_only(hub: &Hub, mut sweep: tokio::time::Interval, stop: &CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = sweep.tick() => hub.sweep(),
        }
    }
}
