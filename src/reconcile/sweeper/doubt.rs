//! Detects data loss in Redis by a number there that is incremented every second: if it is missing or lower than before, Redis has lost
//! data, and the ledger's view of it is in doubt. The time of the loss is stored in Redis, so that the next sweeper knows of a loss that
//! this one could not repair.

use std::sync::Mutex;

use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::{Sweeper, TICK, Trouble};
use broker::Epoch;
use runtime::clock::{self, Time};

/// How many numbers are remembered whose write may or may not have happened, while Redis did not answer.
const ATTEMPTS: usize = 100;

/// When Redis lost data: between the last check that it was complete and the first that it was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loss {
    pub good_at: Time,
    pub noticed_at: Time,
}

impl Loss {
    fn text(self) -> String {
        format!("{}:{}", self.good_at.0, self.noticed_at.0)
    }

    fn read(text: &str) -> Option<Self> {
        let (good, noticed) = text.split_once(':')?;
        Some(Self { good_at: Time(good.parse().ok()?), noticed_at: Time(noticed.parse().ok()?) })
    }
}

/// Shared by the loops: since when Redis's data is in doubt.
#[derive(Default)]
pub(super) struct Doubt {
    loss: Mutex<Option<Loss>>,
    changed: Notify,
}

impl Doubt {
    pub fn raise(&self, loss: Loss) {
        *self.loss.lock().expect("nothing panics under this lock") = Some(loss);
        self.changed.notify_one();
    }

    /// The last known loss of data.
    pub fn since(&self) -> Option<Loss> {
        *self.loss.lock().expect("nothing panics under this lock")
    }

    pub async fn raised(&self) {
        self.changed.notified().await;
    }
}

/// The number as it was written last.
#[derive(Default)]
struct Expected {
    number: String,
    attempts: Vec<String>,
    /// When it was last found as expected.
    good_at: Option<Time>,
    /// Whether the last loss is known or stored.
    is_noted: bool,
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
        // If Redis was emptied while no sweeper ran, only the end of that time is known.
        let loss = Loss { good_at: expected.good_at.unwrap_or(now), noticed_at: now };
        match found {
            Epoch::Kept => {}
            Epoch::Other(ref other) if expected.attempts.contains(other) => {}
            Epoch::Other(ref other) if is_newer(other, &expected.number) => {
                debug!("another replica has incremented the epoch meanwhile");
            }
            Epoch::Gone if expected.number.is_empty() => {
                info!("Redis is new to this ledger, or was emptied while no gateway ran");
                self.lost(loss, expected, doubt);
            }
            Epoch::Gone => {
                warn!("Redis has lost its data, the queued tasks will be queued again");
                self.lost(loss, expected, doubt);
            }
            Epoch::Other(_) => {
                warn!("Redis has older data than before, checking every task");
                self.lost(loss, expected, doubt);
                self.broker.end_life().await?;
            }
        }
        (expected.number, expected.good_at) = (standing(found, next), Some(now));
        expected.attempts.clear();
        if !expected.is_noted {
            self.note_loss(doubt).await?;
            expected.is_noted = true;
        }
        Ok(())
    }

    fn lost(&self, loss: Loss, expected: &mut Expected, doubt: &Doubt) {
        doubt.raise(loss);
        expected.is_noted = false;
    }

    /// Stores the loss, or reads the one that an earlier sweeper stored.
    async fn note_loss(&self, doubt: &Doubt) -> Result<(), Trouble> {
        if let Some(loss) = doubt.since() {
            self.broker.note_loss(&loss.text()).await?;
        } else if let Some(loss) = self.broker.last_loss().await?.as_deref().and_then(Loss::read) {
            doubt.raise(loss);
        }
        Ok(())
    }
}

/// The number in Redis now: ours, or a newer one that was left unchanged.
fn standing(found: Epoch, next: String) -> String {
    match found {
        Epoch::Other(other) if is_newer(&other, &next) => other,
        Epoch::Kept | Epoch::Gone | Epoch::Other(_) => next,
    }
}

/// Whether one number was written after another. A number that cannot be read is old.
fn is_newer(number: &str, than: &str) -> bool {
    let time = |number: &str| number.rsplit_once(':').and_then(|(_, time)| time.parse::<i64>().ok());
    time(number) > time(than)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_another_replica_wrote_later_is_no_older_data() {
        assert!(is_newer("b:11", "a:10") && !is_newer("b:9", "a:10") && !is_newer("an hour ago", "a:10"));
        assert_eq!(standing(Epoch::Other("b:11".to_owned()), "a:10".to_owned()), "b:11");
        assert_eq!(standing(Epoch::Other("b:9".to_owned()), "a:10".to_owned()), "a:10");
        assert_eq!(standing(Epoch::Gone, "a:10".to_owned()), "a:10");
    }

    #[test]
    fn a_loss_reads_back_as_it_was_written_down() {
        let loss = Loss { good_at: Time(5), noticed_at: Time(9) };
        assert_eq!(Loss::read(&loss.text()), Some(loss));
        assert_eq!(Loss::read("yesterday"), None);
    }
}
