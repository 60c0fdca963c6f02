//! A number in Redis that advances every second: when it is gone, or has gone back, Redis has lost data, and what the ledger
//! believes of it is in doubt.

use std::sync::Mutex;

use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::{Sweeper, TICK, Trouble};
use broker::Epoch;
use runtime::clock::{self, Time};

/// Numbers whose writing may or may not have happened, while Redis did not answer.
const ATTEMPTS: usize = 100;

/// What one loop tells the other: since when Redis's data is in doubt.
#[derive(Default)]
pub(super) struct Doubt {
    since: Mutex<Option<Time>>,
    changed: Notify,
}

impl Doubt {
    pub fn raise(&self, at: Time) {
        *self.since.lock().expect("nothing panics under this lock") = Some(at);
        self.changed.notify_one();
    }

    /// When data was last known to be lost.
    pub fn since(&self) -> Option<Time> {
        *self.since.lock().expect("nothing panics under this lock")
    }

    pub async fn raised(&self) {
        self.changed.notified().await;
    }
}

/// The number as it was left.
#[derive(Default)]
struct Expected {
    number: String,
    attempts: Vec<String>,
}

impl Sweeper {
    pub(super) async fn watch_epoch(&self, doubt: &Doubt) {
        let mut expected = Expected::default();
        loop {
            if let Err(trouble) = self.advance(&mut expected, doubt).await {
                debug!(error = %trouble, "the epoch does not advance");
            }
            tokio::time::sleep(TICK).await;
        }
    }

    async fn advance(&self, expected: &mut Expected, doubt: &Doubt) -> Result<(), Trouble> {
        let now = clock::now();
        let next = format!("{}:{}", self.holder, now.as_micros());
        let found = match self.broker.advance_epoch(&expected.number, &next).await {
            Ok(found) => found,
            Err(error) => {
                if expected.attempts.len() < ATTEMPTS {
                    expected.attempts.push(next);
                }
                return Err(error.into());
            }
        };
        match found {
            Epoch::Kept => {}
            Epoch::Other(other) if expected.attempts.contains(&other) => {}
            Epoch::Gone if expected.number.is_empty() => {
                info!("Redis is new to this ledger, or was emptied while nobody watched");
                doubt.raise(now);
            }
            Epoch::Gone => {
                warn!("Redis has lost its data, what was queued will be queued again");
                doubt.raise(now);
            }
            Epoch::Other(_) => {
                warn!("Redis holds older data than it did, looking for every task");
                doubt.raise(now);
                self.broker.end_life().await?;
            }
        }
        *expected = Expected { number: next, attempts: Vec::new() };
        Ok(())
    }
}
