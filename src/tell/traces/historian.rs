//! Exports the history of tasks as spans: follows the ledger's feed and derives the spans of each task that ends.
//!
//! The mark in the feed moves when the collector has accepted everything before it. So an unreachable collector delays spans but
//! loses none, for up to [`MOST_DELAY`]. One replica exports at a time, by a lease.

use std::collections::HashMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Exporter;
use super::history::{self, Place};
use super::otlp::ExportError;
use super::span::Span;
use celery::task::TaskId;
use ledger::{Event, Filter, SharedLedger};
use runtime::clock::{self, Time};
use runtime::lifecycle::Backoff;

const LEASE: &str = "historian";
/// Duration of the lease, longer than the slowest export.
const LEASE_TTL: Duration = Duration::from_secs(15);
const PERIOD: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_secs(10);
/// Changes read in one pass.
const PAGE: i64 = 1_000;
/// Tasks in one request, and the changes of all of them together; further changes are left out.
const TASKS: usize = 100;
const CHANGES: i64 = 20_000;
/// Older ends are not exported: tracing was off, or the collector was unreachable for too long.
const MOST_DELAY: Duration = Duration::from_hours(24);

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    #[error(transparent)]
    Export(#[from] ExportError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    More,
    Idle,
}

pub struct Historian {
    ledger: SharedLedger,
    exporter: Exporter,
    /// This process's name among the replicas.
    holder: String,
    /// The fraction of tasks to export when the sender has not decided.
    sample: f64,
}

impl Historian {
    pub fn new(ledger: SharedLedger, exporter: Exporter, holder: String, sample: f64) -> Self {
        Self { ledger, exporter, holder, sample }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(PAUSE);
        while !stop.is_cancelled() {
            let pause = match self.run_once().await {
                Ok(Pass::More) => continue,
                Ok(Pass::Idle) => {
                    backoff.reset();
                    PERIOD
                }
                Err(trouble) => {
                    if backoff.is_fresh() {
                        warn!(error = %trouble, "histories of tasks wait to be exported: {trouble}");
                    }
                    backoff.pause()
                }
            };
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(pause) => {} }
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), self.ledger.release(LEASE, &self.holder)).await;
    }

    async fn run_once(&self) -> Result<Pass, Trouble> {
        let now = clock::now();
        if self.ledger.lease(LEASE, &self.holder, now, LEASE_TTL).await?.is_none() {
            return Ok(Pass::Idle);
        }
        let Some(from) = self.ledger.traced().await? else {
            // Tasks that ended before tracing was switched on are not exported.
            self.ledger.note_traced(None, self.ledger.feed_end().await?).await?;
            return Ok(Pass::More);
        };
        let (events, to) = self.ledger.feed(from, &Filter::default(), PAGE).await?;
        if to <= from {
            return Ok(Pass::Idle);
        }
        for ended in ended(&events, now).chunks(TASKS) {
            let spans = self.spans(ended).await?;
            match self.exporter.export(&spans).await {
                Err(error) if error.is_transient() => return Err(error.into()),
                Err(error) => {
                    warn!(error = %error, "{} spans were refused: {error}", spans.len());
                    metrics::counter!("taskgate_spans_dropped_total").increment(spans.len() as u64);
                }
                Ok(()) => {}
            }
        }
        self.ledger.note_traced(Some(from), to).await?;
        Ok(Pass::More)
    }

    async fn spans(&self, ended: &[TaskId]) -> Result<Vec<Span>, Trouble> {
        let tasks = self.ledger.standing(ended).await?;
        let traced: Vec<_> = tasks.iter().filter_map(|task| Some((task, Place::of(task, self.sample)?))).collect();
        let numbers: Vec<i64> = traced.iter().map(|(task, _)| task.no).collect();
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let mut histories: HashMap<i64, Vec<Event>> = HashMap::new();
        for event in self.ledger.histories(&numbers, CHANGES).await? {
            histories.entry(event.task_no).or_default().push(event);
        }
        let of = |(task, place): &(&ledger::Task, Place)| {
            histories.get(&task.no).map(|events| history::spans(task, events, *place))
        };
        Ok(traced.iter().filter_map(of).flatten().collect())
    }
}

/// The tasks that ended with these events, each once.
fn ended(events: &[Event], now: Time) -> Vec<TaskId> {
    let recent = events.iter().filter(|event| event.phase.is_final() && now.since(event.at) < MOST_DELAY);
    let mut ids: Vec<TaskId> = recent.map(|event| event.task_id.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
