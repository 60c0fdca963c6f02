//! Carries out operations on many tasks, in steps. One replica works at a time; the row has the progress, so another replica, or the
//! next start, continues there. An interrupted step is repeated: a retry is submitted under a key of operation and task, so a
//! repetition finds the first submission; the other actions can simply be repeated.
//!
//! While the ledger or the broker is down, or the backlog is full, nothing is counted and the step is retried.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::guard::tokens::Visibility;
use crate::live::commit::CommitError;
use crate::usecase::SharedGateway;
use crate::usecase::bulk::Plan;
use crate::usecase::retry::RetryError;
use crate::usecase::revoke::{RevokeError, RevokeRequest, Verdict};
use crate::usecase::submit::SubmitError;
use ledger::{Bulk, BulkAction, BulkState, BulkStep, Cursor, Error, Page, Task};
use runtime::clock;
use runtime::lifecycle::Backoff;

const LEASE: &str = "bulk";
/// Duration of the lease, longer than a step takes: a step of revokes waits up to two seconds for each confirmation.
const LEASE_TTL: Duration = Duration::from_secs(30);
const PERIOD: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_secs(2);
/// Tasks in a step: a pause or a cancellation takes effect after at most this many.
const STEP: i64 = 50;
/// About how long a step takes with a rate.
const PACED_STEP: Duration = Duration::from_secs(1);
/// Concurrent actions of a step.
const AT_ONCE: usize = 25;
/// Maximum number of refusals in a row.
const MOST_ERRORS: usize = 20;
const MOST_CHARS: usize = 300;

/// The service that carries out operations.
pub struct BulkWorker {
    gateway: SharedGateway,
    holder: String,
    /// By operation with a rate: when its next step may begin.
    paced: HashMap<i64, Instant>,
}

/// The outcome for one task.
enum Outcome {
    Done(&'static str),
    Skipped(String),
    Failed(String),
}

/// Why a step cannot be done now. It is retried.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Ledger(#[from] Error),
    #[error("{0}")]
    Later(String),
}

/// A refusal in the form that the row stores.
#[derive(Debug, Serialize, Deserialize)]
struct Refused {
    task_id: String,
    detail: String,
}

impl BulkWorker {
    pub fn new(gateway: SharedGateway, holder: String) -> Self {
        Self { gateway, holder, paced: HashMap::new() }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(PAUSE);
        let nudge = self.gateway.bulks.clone();
        while !stop.is_cancelled() {
            let pause = match self.pass(&stop).await {
                Ok(wait) => {
                    backoff.reset();
                    wait
                }
                Err(trouble) => {
                    if backoff.is_fresh() {
                        warn!(error = %trouble, "an operation on many tasks waits: {trouble}");
                    }
                    backoff.pause()
                }
            };
            tokio::select! { () = stop.cancelled() => {} () = nudge.nudged() => {} () = tokio::time::sleep(pause) => {} }
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), self.gateway.ledger.release(LEASE, &self.holder)).await;
    }

    /// Does a step of every operation that may do one; a failure of one does not delay the others. Returns how long nothing can be
    /// done.
    async fn pass(&mut self, stop: &CancellationToken) -> Result<Duration, Trouble> {
        let (mut after, mut wait, mut trouble) = (0, PERIOD, None);
        let mut running = HashSet::new();
        while let Some(bulk) = self.gateway.ledger.next_bulk(after).await? {
            after = bulk.no;
            running.insert(bulk.no);
            let left = self.paced.get(&bulk.no).map(|at| at.saturating_duration_since(Instant::now()));
            if let Some(left) = left.filter(|left| !left.is_zero()) {
                wait = wait.min(left);
                continue;
            }
            let lease = self.gateway.ledger.lease(LEASE, &self.holder, clock::now(), LEASE_TTL).await?;
            if stop.is_cancelled() || lease.is_none() {
                return Ok(PERIOD);
            }
            match self.step(&bulk).await {
                Ok(next) => wait = wait.min(next),
                Err(met) => drop(trouble.get_or_insert(met)),
            }
        }
        // Paused and cancelled operations are skipped.
        self.paced.retain(|no, _| running.contains(no));
        trouble.map_or(Ok(wait), Err)
    }

    /// Does the next step of an operation. Returns when the following one may begin.
    async fn step(&mut self, bulk: &Bulk) -> Result<Duration, Trouble> {
        let plan: Plan = match serde_json::from_str(&bulk.plan) {
            Ok(plan) => plan,
            Err(error) => {
                error!(%error, bulk.id = %bulk.id, "operation {} cannot be read and is cancelled", bulk.id);
                self.gateway.ledger.set_bulk_state(&bulk.id, BulkState::Cancelled, clock::now()).await?;
                return Ok(PERIOD);
            }
        };
        let interval = plan.interval_micros.map(Duration::from_micros);
        let page = Page { limit: size(interval), after: bulk.at_no.map(Cursor) };
        let (tasks, next) = self.gateway.ledger.tasks(&plan.filter(), &page).await?;
        let (this, plan) = (&*self, &plan);
        let acts = tasks.iter().map(|task| async move { this.act(bulk, plan, task).await.map(|done| (task, done)) });
        let acts: Vec<_> = futures_util::stream::iter(acts.collect::<Vec<_>>()).buffered(AT_ONCE).collect().await;
        let outcomes = acts.into_iter().collect::<Result<Vec<_>, Trouble>>()?;
        let step = counted(bulk, &outcomes, next);
        if !self.gateway.ledger.advance_bulk(bulk, &step).await? {
            return Ok(Duration::ZERO);
        }
        if step.is_last {
            self.paced.remove(&bulk.no);
            let (done, skipped, failed) = (step.done, step.skipped, step.failed);
            info!(bulk.id = %bulk.id, "operation {} ({}) is done: {done} done, {skipped} skipped, {failed} failed", bulk.id, bulk.action.as_str());
            return Ok(PERIOD);
        }
        let Some(interval) = interval else { return Ok(Duration::ZERO) };
        let pause = interval.saturating_mul(u32::try_from(tasks.len()).unwrap_or(u32::MAX));
        self.paced.insert(bulk.no, Instant::now() + pause.min(Duration::from_secs(86_400)));
        Ok(pause)
    }

    async fn act(&self, bulk: &Bulk, plan: &Plan, task: &Task) -> Result<Outcome, Trouble> {
        match bulk.action {
            BulkAction::Revoke => self.revoke(bulk, plan, task).await,
            BulkAction::Retry if task.retried_as.is_some() => {
                Ok(Outcome::Skipped("it was sent again before".to_owned()))
            }
            BulkAction::Retry | BulkAction::Requeue => {
                let visibility = Visibility::of(&plan.patterns);
                let key = format!("{} {}", bulk.id, task.id);
                let sent = self.gateway.send_once(&visibility, task, key).await;
                let is_requeue = bulk.action == BulkAction::Requeue;
                if is_requeue && sent.is_ok() {
                    self.gateway.ledger.dismiss(std::slice::from_ref(&task.id)).await?;
                }
                sent.map(|()| Outcome::Done(if is_requeue { "requeued" } else { "retried" })).or_else(not_sent)
            }
            BulkAction::Dismiss => {
                let gone = self.gateway.ledger.dismiss(std::slice::from_ref(&task.id)).await?;
                let is_left = || Outcome::Skipped("it is no dead letter any more".to_owned());
                Ok(if gone == 1 { Outcome::Done("dismissed") } else { is_left() })
            }
        }
    }

    async fn revoke(&self, bulk: &Bulk, plan: &Plan, task: &Task) -> Result<Outcome, Trouble> {
        let reason = plan.reason.clone().unwrap_or_else(|| format!("revoked by operation {}", bulk.id));
        let request = RevokeRequest { terminate: plan.terminate, ..RevokeRequest::terminating(&reason) };
        match self.gateway.revoke(&task.id, &request).await {
            Ok(revoked) => Ok(match revoked.verdict {
                Verdict::Prevented => Outcome::Done("prevented"),
                Verdict::Signalled => Outcome::Done("signalled"),
                Verdict::TooLate => Outcome::Skipped("it had ended".to_owned()),
            }),
            Err(RevokeError::Unknown(_)) => Ok(Outcome::Skipped("it is not in the ledger any more".to_owned())),
            Err(RevokeError::Redis(error)) => Err(Trouble::Later(error.to_string())),
            Err(RevokeError::Ledger(error)) if error.is_transient() => Err(error.into()),
            Err(RevokeError::Ledger(error)) => Ok(Outcome::Failed(error.to_string())),
        }
    }
}

/// The size of a step; with a rate, the tasks of one second.
fn size(interval: Option<Duration>) -> i64 {
    let Some(interval) = interval.filter(|interval| !interval.is_zero()) else { return STEP };
    let fit = PACED_STEP.as_micros() / interval.as_micros().max(1);
    i64::try_from(fit).unwrap_or(STEP).clamp(1, STEP)
}

/// Whether a message that was not sent again is skipped for good or tried again later.
fn not_sent(error: RetryError) -> Result<Outcome, Trouble> {
    match error {
        RetryError::NotReplayable { why, .. } => Ok(Outcome::Skipped(why.to_owned())),
        RetryError::Unknown(_) | RetryError::NotDead(_) => {
            Ok(Outcome::Skipped("it is not in the ledger any more".to_owned()))
        }
        RetryError::Submit(error @ SubmitError::Backlog { .. }) => Err(Trouble::Later(error.to_string())),
        RetryError::Ledger(error) if error.is_transient() => Err(error.into()),
        RetryError::Commit(error @ (CommitError::Unavailable | CommitError::TimedOut)) => {
            Err(Trouble::Later(error.to_string()))
        }
        RetryError::Submit(_) | RetryError::Ledger(_) | RetryError::Commit(_) | RetryError::Revoke(_) => {
            Ok(Outcome::Failed(error.to_string()))
        }
    }
}

/// The row's progress after these tasks.
fn counted(bulk: &Bulk, outcomes: &[(&Task, Outcome)], next: Option<Cursor>) -> BulkStep {
    let mut tally: BTreeMap<String, i64> = serde_json::from_str(&bulk.outcomes).unwrap_or_default();
    let mut errors: Vec<Refused> = serde_json::from_str(&bulk.errors).unwrap_or_default();
    let (mut done, mut skipped, mut failed) = (bulk.done, bulk.skipped, bulk.failed);
    for (task, outcome) in outcomes {
        let (word, detail) = match outcome {
            Outcome::Done(word) => {
                done += 1;
                (*word, None)
            }
            Outcome::Skipped(detail) => {
                skipped += 1;
                ("skipped", Some(detail))
            }
            Outcome::Failed(detail) => {
                failed += 1;
                ("failed", Some(detail))
            }
        };
        *tally.entry(word.to_owned()).or_default() += 1;
        errors.extend(
            detail.map(|detail| Refused {
                task_id: task.id.to_string(),
                detail: detail.chars().take(MOST_CHARS).collect(),
            }),
        );
    }
    let first = errors.len().saturating_sub(MOST_ERRORS);
    BulkStep {
        at_no: next.map(|Cursor(no)| no).or_else(|| outcomes.last().map(|(task, _)| task.no)).or(bulk.at_no),
        done,
        skipped,
        failed,
        outcomes: serde_json::to_string(&tally).expect("counts are JSON"),
        errors: serde_json::to_string(&errors[first..]).expect("texts are JSON"),
        is_last: next.is_none(),
        at: clock::now(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_with_a_rate_takes_about_a_second() {
        assert_eq!(size(None), STEP);
        assert_eq!(size(Some(Duration::from_millis(100))), 10);
        assert_eq!(size(Some(Duration::from_secs(60))), 1);
        assert_eq!(size(Some(Duration::from_micros(1))), STEP);
    }
}
