//! Sends parts of DAGs whose predecessors have succeeded. All replicas run it: the ledger lets only one of them send a part.
//!
//! While parts wait, a commit of this replica, or a notification of another's, wakes it; missed ones are found a period later.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::usecase::SharedGateway;
use ledger::Error;
use runtime::lifecycle::Backoff;

/// How often the ledger is read without being woken.
const PERIOD: Duration = Duration::from_secs(1);
/// Shortest pause between two passes, however much is committed.
const LEAST: Duration = Duration::from_millis(10);
/// The largest share of the time that passes may take: after a long pass the next one begins later.
const SHARE: u32 = 5;
/// How often parts that will never be sent are removed.
const TIDY: Duration = Duration::from_secs(5);
/// So many parts that cannot be sent are remembered as told.
const MAX_TOLD: usize = 1_000;
const LEDGER_PAUSE: Duration = Duration::from_secs(2);

/// The service of one replica.
pub struct Dags {
    gateway: SharedGateway,
}

impl Dags {
    pub fn new(gateway: SharedGateway) -> Self {
        Self { gateway }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(LEDGER_PAUSE);
        let mut tidied = Instant::now();
        let (mut after, mut told) = (0, HashSet::new());
        while !stop.is_cancelled() {
            // Before the pass: a commit during the pass must cause the next one.
            let mut commits = self.gateway.hub.watch_all();
            let began = Instant::now();
            let (is_waited_for, pause) = match self.gateway.step_dags(after).await {
                Ok(found) => {
                    tell(&found.broken, &mut told);
                    backoff.reset();
                    after = found.rest.unwrap_or_default();
                    if after > 0 {
                        continue;
                    }
                    (found.waits, PERIOD)
                }
                Err(error) => {
                    after = 0;
                    if backoff.is_fresh() {
                        warn!(error = %error, "parts of DAGs could not be read, trying again");
                    }
                    (false, backoff.pause())
                }
            };
            let rest = LEAST.max(began.elapsed() * SHARE);
            if tidied.elapsed() > TIDY {
                tidied = Instant::now();
                // The next round tries again.
                let _ = self.gateway.tidy_dags().await;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.gateway.dags.nudged() => {}
                _ = commits.recv(), if is_waited_for => {
                    tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(rest) => {} }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Logs each part that cannot be sent once.
fn tell(broken: &[(i64, Error)], told: &mut HashSet<i64>) {
    if told.len() > MAX_TOLD {
        told.clear();
    }
    for (part, error) in broken {
        if told.insert(*part) {
            warn!(part, error = %error, "part {part} of a DAG was not sent: {error}");
        }
    }
}
