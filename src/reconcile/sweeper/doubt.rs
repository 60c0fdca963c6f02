//! Detects data loss in Redis by a number there that is incremented every second: if it is missing or lower than before, Redis has lost
//! data, and the ledger's view of it is in doubt. If the number is as expected but another process answers, Redis was restarted or another
//! node took over: then only what was written since the last increment may be lost. The time of the loss is stored in Redis, so that the
//! next sweeper knows of a loss that this one could not repair.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::{Sweeper, TICK, Trouble};
use broker::Epoch;
use runtime::clock::{self, Time};

/// How many numbers are remembered whose write may or may not have happened, while Redis did not answer, and how many processes of Redis.
const ATTEMPTS: usize = 100;
/// A message may be pushed this much later than the ledger says, and replicas' clocks differ.
const SLACK: Duration = Duration::from_secs(2);

/// When Redis lost data: between the last check that it was complete and the first that it was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loss {
    pub good_at: Time,
    pub noticed_at: Time,
    /// Whether everything is still there that was there at the last check.
    pub is_partial: bool,
}

impl Loss {
    /// Whether it explains that a message is missing that was put into Redis at `since`. If a worker never reports what it takes (`mute`),
    /// that worker may have taken a message that came after the last good check.
    pub fn explains(self, since: Time, mute: bool) -> bool {
        let until = if mute { self.good_at } else { self.noticed_at };
        let is_kept = self.is_partial && (mute || since < self.good_at.minus(SLACK));
        since <= until && !is_kept
    }

    fn text(self) -> String {
        let partial = if self.is_partial { ":partial" } else { "" };
        format!("{}:{}{partial}", self.good_at.0, self.noticed_at.0)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let mut time = || parts.next()?.parse().ok().map(Time);
        let (good_at, noticed_at) = (time()?, time()?);
        Some(Self { good_at, noticed_at, is_partial: parts.next().is_some() })
    }
}

/// The last loss of everything since some time, and the last partial one after it: what the first one took may not be repaired yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Losses {
    whole: Option<Loss>,
    partial: Option<Loss>,
}

impl Losses {
    fn add(&mut self, loss: Loss) {
        if loss.is_partial {
            self.partial = Some(loss);
        } else {
            *self = Self { whole: Some(loss), partial: None };
        }
    }

    fn iter(self) -> impl Iterator<Item = Loss> {
        self.whole.into_iter().chain(self.partial)
    }

    /// Whether one of them explains it: see [`Loss::explains`].
    pub fn explain(self, since: Time, mute: bool) -> bool {
        self.iter().any(|loss| loss.explains(since, mute))
    }

    /// `None` if there are none.
    fn text(self) -> Option<String> {
        let texts: Vec<String> = self.iter().map(Loss::text).collect();
        (!texts.is_empty()).then(|| texts.join(" "))
    }

    fn read(text: &str) -> Self {
        let mut losses = Self::default();
        text.split(' ').filter_map(Loss::read).for_each(|loss| losses.add(loss));
        losses
    }
}

/// Shared by the loops: since when Redis's data is in doubt.
#[derive(Default)]
pub(super) struct Doubt {
    losses: Mutex<Losses>,
    changed: Notify,
}

impl Doubt {
    pub fn raise(&self, loss: Loss) {
        self.losses.lock().expect("nothing panics under this lock").add(loss);
        self.changed.notify_one();
    }

    /// The last known losses of data.
    pub fn since(&self) -> Losses {
        *self.losses.lock().expect("nothing panics under this lock")
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
    /// The processes of Redis that answered: behind a proxy there may be several.
    processes: HashSet<String>,
    /// Whether the last loss is known or stored.
    is_noted: bool,
}

impl Expected {
    /// Whether this process of Redis has taken the place of another one.
    fn is_restarted(&mut self, process: String) -> bool {
        let is_first = self.processes.is_empty();
        if self.processes.len() >= ATTEMPTS {
            self.processes.clear();
        }
        self.processes.insert(process) && !is_first
    }
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
        // Read after the increment: if Redis is restarted in between, the next increment is compared with this one.
        let process = self.broker.process().await.unwrap_or_default();
        let is_restarted = process.is_some_and(|process| expected.is_restarted(process));
        // If Redis was emptied while no sweeper ran, only the end of that time is known.
        let loss = Loss { good_at: expected.good_at.unwrap_or(now), noticed_at: now, is_partial: false };
        match found {
            Epoch::Kept => self.heed_process(is_restarted, loss, expected, doubt).await?,
            Epoch::Other(ref other) if expected.attempts.contains(other) => {
                self.heed_process(is_restarted, loss, expected, doubt).await?;
            }
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

    /// A Redis that was restarted, or another node that took over, has what it had at the last check, but maybe not what came since.
    async fn heed_process(
        &self,
        is_restarted: bool,
        loss: Loss,
        expected: &mut Expected,
        doubt: &Doubt,
    ) -> Result<(), Trouble> {
        if !is_restarted {
            return Ok(());
        }
        info!("another process of Redis answers, which may have lost the latest data: checking every task");
        self.lost(Loss { is_partial: true, ..loss }, expected, doubt);
        Ok(self.broker.end_life().await?)
    }

    fn lost(&self, loss: Loss, expected: &mut Expected, doubt: &Doubt) {
        doubt.raise(loss);
        expected.is_noted = false;
    }

    /// Stores the losses, or reads those that an earlier sweeper stored.
    async fn note_loss(&self, doubt: &Doubt) -> Result<(), Trouble> {
        if let Some(text) = doubt.since().text() {
            self.broker.note_loss(&text).await?;
        } else if let Some(text) = self.broker.last_loss().await? {
            Losses::read(&text).iter().for_each(|loss| doubt.raise(loss));
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
        for is_partial in [false, true] {
            let loss = Loss { good_at: Time(5), noticed_at: Time(9), is_partial };
            assert_eq!(Loss::read(&loss.text()), Some(loss));
        }
        assert_eq!(Loss::read("yesterday"), None);
    }

    #[test]
    fn a_partial_loss_does_not_hide_what_a_whole_one_took_before() {
        let loss = |at: i64, is_partial| Loss { good_at: Time(at), noticed_at: Time(at + 1), is_partial };
        let hour = 3_600 * 1_000_000;
        let mut losses = Losses::default();
        assert_eq!(losses.text(), None);
        losses.add(loss(hour, false));
        losses.add(loss(3 * hour, true));
        assert!(losses.explain(Time(hour), false) && losses.explain(Time(3 * hour), false));
        assert!(!losses.explain(Time(2 * hour), false), "it was there at the restart");
        assert_eq!(Losses::read(&losses.text().unwrap()), losses);
        losses.add(loss(4 * hour, false));
        assert!(losses.explain(Time(2 * hour), false));
        assert_eq!(losses.partial, None, "the whole one covers it");
    }

    #[test]
    fn a_loss_explains_what_came_before_it_and_a_partial_one_only_the_latest() {
        let second = |second: i64| Time(second * 1_000_000);
        let loss = Loss { good_at: second(50), noticed_at: second(53), is_partial: false };
        let partial = Loss { is_partial: true, ..loss };
        for (at, mute, whole, latest) in [
            (1, false, true, false),
            (49, false, true, true),
            (52, false, true, true),
            (54, false, false, false),
            (49, true, true, false),
            (52, true, false, false),
        ] {
            let found = (loss.explains(second(at), mute), partial.explains(second(at), mute));
            assert_eq!(found, (whole, latest), "queued at {at}, mute workers: {mute}");
        }
    }

    #[test]
    fn a_process_that_was_never_seen_has_been_restarted() {
        let mut expected = Expected::default();
        let seen = ["a", "a", "b", "a", "b", "c"].map(|process| expected.is_restarted(process.to_owned()));
        assert_eq!(seen, [false, false, true, false, false, true]);
    }
}
