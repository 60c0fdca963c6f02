//! Aggregates the feed into statistics by minute, by hour and for all time.
//!
//! Reads the ledger's feed from the mark of the last fold, so a restart loses nothing and counts nothing twice. Any number of
//! replicas may run it: if another replica was faster, a fold changes nothing. Old figures are deleted here too.

mod fold;

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use ledger::{Error, SharedLedger, Span};
use runtime::clock::{self, Time};
use runtime::lifecycle::Backoff;

pub use fold::{BOUNDS, COUNT, bound_of, fingerprint};

/// Events of one fold, which bounds its transaction and the tracebacks in memory. The database aggregates events that are not ends.
const PAGE: i64 = 2_000;
/// The pause after a fold is twice the fold's duration, because submissions need the processor too,
const REST: u32 = 2;
/// and at least this long, so that each fold's fixed cost is shared by more events.
const LEAST_REST: Duration = Duration::from_millis(50);
/// When the statistics are later than this, there is no pause.
const BEHIND: Duration = Duration::from_secs(3);
/// How often the feed is read without a signal: the longest delay of the statistics.
const PERIOD: Duration = Duration::from_secs(1);
/// Longest pause between attempts while the ledger is down.
const LEDGER_PAUSE: Duration = Duration::from_secs(5);
/// How long figures by the minute are kept. After that only those by the hour remain.
pub const KEEP_MINUTES: Duration = Duration::from_secs(2 * 86_400);
const FORGET_EVERY: Duration = Duration::from_secs(3_600);

/// The outcome of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// There may be more.
    More,
    /// Every visible event is counted.
    Idle,
}

pub struct Folder {
    ledger: SharedLedger,
    /// How long figures by the hour are kept.
    keep: Duration,
}

impl Folder {
    pub fn new(ledger: SharedLedger, keep: Duration) -> Self {
        Self { ledger, keep }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(LEDGER_PAUSE);
        let mut forgotten: Option<Time> = None;
        let mut idle_at = Instant::now();
        while !stop.is_cancelled() {
            let started = Instant::now();
            let outcome = self.run_once().await;
            let pause = match outcome {
                Ok(Pass::More) if idle_at.elapsed() > BEHIND => continue,
                Ok(Pass::More) => (started.elapsed() * REST).max(LEAST_REST),
                Ok(Pass::Idle) => {
                    idle_at = Instant::now();
                    backoff.reset();
                    self.forget(&mut forgotten).await;
                    PERIOD
                }
                Err(error) => {
                    if backoff.is_fresh() {
                        warn!(error = %error, "statistics are late: the ledger does not answer");
                    }
                    backoff.pause()
                }
            };
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(pause) => {} }
        }
    }

    /// Counts one page of events.
    pub async fn run_once(&self) -> Result<Pass, Error> {
        let from = self.ledger.folded().await?;
        let tally = self.ledger.tally(from, PAGE).await?;
        if tally.to <= from {
            return Ok(Pass::Idle);
        }
        let to = tally.to;
        let (amounts, failures) = fold::fold(tally);
        self.ledger.fold(from, to, &amounts, &failures).await?;
        Ok(Pass::More)
    }

    /// Removes old figures now and then. After a failure it tries again an hour later.
    async fn forget(&self, last: &mut Option<Time>) {
        let now = clock::now();
        if last.is_some_and(|last| now.since(last) < FORGET_EVERY) {
            return;
        }
        *last = Some(now);
        let _ = self.ledger.forget_figures(Span::Minute, now.minus(KEEP_MINUTES)).await;
        let _ = self.ledger.forget_figures(Span::Hour, now.minus(self.keep)).await;
    }
}
