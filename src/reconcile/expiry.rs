//! Ends queued tasks whose `expires` has passed, so that they do not have to wait for a worker to discard them.
//!
//! A message that is removed from its list has expired, whatever the workers do. A message that is no longer in its list is with a
//! worker, which checks `expires` itself. All replicas try to remove a message; only one succeeds. A crash after that leaves a queued
//! task without a message: the sweeper gives it to the relay again, which ends it as expired.

use std::time::Duration;

use metrics::counter;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::removal::Removal;
use crate::live::hub::Hub;
use celery::task::Phase;
use ledger::{News, SharedLedger, Source, Task};
use runtime::clock::{self, Time};
use runtime::lifecycle::Backoff;

const PERIOD: Duration = Duration::from_secs(1);
/// Tasks read per query.
const PAGE: i64 = 500;
/// How far back the first pass looks; workers discard tasks that expired earlier.
const FIRST_LOOK: Duration = Duration::from_hours(24);
/// How far back each pass looks again: a task may be published just before it expires, and be recorded as queued only after that.
const OVERLAP: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_secs(5);

/// The service of one replica.
pub struct Expiry {
    ledger: SharedLedger,
    removal: Removal,
    hub: Hub,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    #[error(transparent)]
    Redis(#[from] broker::Error),
}

impl Expiry {
    pub fn new(ledger: SharedLedger, removal: Removal, hub: Hub) -> Self {
        Self { ledger, removal, hub }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(PAUSE);
        let mut since = clock::now().minus(FIRST_LOOK);
        while !stop.is_cancelled() {
            let now = clock::now();
            let pause = match self.pass(since, now, &stop).await {
                Ok(()) => {
                    since = now.minus(OVERLAP);
                    backoff.reset();
                    PERIOD
                }
                Err(error) => {
                    if backoff.is_fresh() {
                        warn!(error = %error, "expired tasks could not be removed, trying again");
                    }
                    backoff.pause()
                }
            };
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(pause) => {} }
        }
    }

    /// Handles all tasks that expired after `since`.
    async fn pass(&self, mut since: Time, now: Time, stop: &CancellationToken) -> Result<(), Trouble> {
        loop {
            let tasks = self.ledger.expired(since, now, PAGE).await?;
            self.end(&tasks, now).await?;
            match tasks.last().and_then(|task| task.expires_at) {
                Some(last) if tasks.len() as i64 == PAGE && !stop.is_cancelled() => since = last,
                _ => return Ok(()),
            }
        }
    }

    async fn end(&self, tasks: &[Task], now: Time) -> Result<(), Trouble> {
        let mut news = Vec::new();
        for task in tasks {
            if self.removal.remove_published(task).await? {
                let reason = Some("expires passed while it was in its queue".to_owned());
                news.push(News { reason, ..News::new(task.id.clone(), Source::Ledger, Phase::Expired, now) });
            }
        }
        if news.is_empty() {
            return Ok(());
        }
        let events = self.ledger.learn(&news, true).await?;
        counter!("taskgate_messages_removed_total", "reason" => "expired").increment(news.len() as u64);
        for event in &events {
            info!(task.id = %event.task_id, "task {} expired in its queue and was removed", event.task_id);
        }
        self.hub.publish(&events);
        Ok(())
    }
}
