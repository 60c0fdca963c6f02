//! Applies a submission's retry policy to tasks run by Python workers. They do not know the policy, so a failed task is
//! followed by a new one.
//!
//! The Rust worker retries by itself, with Celery's own RETRY, so its failures are final. A task inside a canvas cannot be
//! replaced, because its successors wait for its id: there a policy is refused if Python workers serve the queue.
//!
//! The commit of the new task takes the unique key `retry:<old id>`, so any number of replicas create it once. A failure that
//! was missed, for example during a crash, is found among the dead letters.

use std::time::Duration;

use metrics::counter;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::usecase::SharedGateway;
use crate::usecase::retry::RetryError;
use crate::usecase::retry_policy::is_ours;
use crate::usecase::submit::SubmitError;
use celery::task::invalid::Problems;
use celery::task::{Phase, RetryPolicy, TaskId};
use ledger::{Error, Filter, Page, Task, UniqueKey};
use runtime::clock;
use runtime::lifecycle::Backoff;

/// Time between two passes over the dead letters.
const PERIOD: Duration = Duration::from_secs(10);
/// Dead letters read in one pass. Missed failures are among the newest.
const PAGE: i64 = 500;
/// Older failures are not retried.
const MEMORY: Duration = Duration::from_hours(24);
const PAUSE: Duration = Duration::from_secs(2);

/// Submits a new task after each failure that its policy allows.
pub struct Retrier {
    gateway: SharedGateway,
}

impl Retrier {
    pub fn new(gateway: SharedGateway) -> Self {
        Self { gateway }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut ends = self.gateway.hub.watch_bad_ends();
        let mut backoff = Backoff::new(PAUSE);
        let mut next = Instant::now();
        loop {
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                event = ends.recv() => match event {
                    Ok(event) if event.phase == Phase::Failed => self.hear(&event.task_id).await,
                    Ok(_) => Ok(()),
                    Err(RecvError::Lagged(_)) => { next = Instant::now(); Ok(()) }
                    Err(RecvError::Closed) => return,
                },
                () = tokio::time::sleep_until(next) => { next = Instant::now() + PERIOD; self.pass().await }
            };
            match outcome {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    if backoff.is_fresh() {
                        warn!(error = %error, "failed tasks could not be read, trying again");
                    }
                    next = Instant::now() + backoff.pause();
                }
            }
        }
    }

    async fn hear(&self, id: &TaskId) -> Result<(), Error> {
        match self.gateway.ledger.task(id).await? {
            Some(task) => self.follow(&task).await,
            None => Ok(()),
        }
    }

    async fn pass(&self) -> Result<(), Error> {
        let filter = Filter { dead_letters: true, phase: vec![Phase::Failed], ..Filter::default() };
        let (tasks, _) = self.gateway.ledger.tasks(&filter, &Page { limit: PAGE, after: None }).await?;
        let oldest = clock::now().minus(MEMORY);
        for task in tasks.iter().filter(|task| task.finished_at.is_some_and(|at| at > oldest)) {
            self.follow(task).await?;
        }
        Ok(())
    }

    /// Submits the next attempt, if the policy allows one.
    async fn follow(&self, task: &Task) -> Result<(), Error> {
        let Some(policy) = policy(task) else { return Ok(()) };
        let attempt = task.options.attempt;
        if task.retried_as.is_some() || !will_retry(&self.gateway, task).await? {
            return Ok(());
        }
        let now = clock::now();
        let due_at = now.plus(policy.delay_for(attempt, rand::random()));
        match self.next(task, attempt + 1, due_at).await {
            Ok(id) => {
                counter!("taskgate_tasks_retried_total").increment(1);
                info!(task.id = %task.id, "task {} failed, its retry {} is {id}", task.id, attempt + 1);
                self.gateway.ledger.dismiss(std::slice::from_ref(&task.id)).await.map(|_| ())
            }
            Err(RetryError::Submit(SubmitError::IdTaken { .. })) => Ok(()),
            Err(RetryError::Ledger(error)) => Err(error),
            Err(error) => {
                debug!(task.id = %task.id, error = %error, "task {} is not retried", task.id);
                Ok(())
            }
        }
    }

    async fn next(&self, task: &Task, attempt: u32, due_at: clock::Time) -> Result<TaskId, RetryError> {
        let mut submission = self.gateway.again(task, Some(due_at)).await?;
        let first = &mut submission.tasks[0];
        first.options.attempt = attempt;
        let id = first.id.clone();
        submission.unique = Some(UniqueKey {
            key: format!("retry:{}", task.id),
            until: Some(due_at.plus(MEMORY * 2)),
            task_id: id.clone(),
            replaces: None,
        });
        self.gateway.send_again(submission).await?;
        self.gateway.relay.nudge();
        Ok(id)
    }
}

/// Whether its policy lets another task follow this failed one.
pub(super) async fn will_retry(gateway: &SharedGateway, task: &Task) -> Result<bool, Error> {
    let Some(policy) = policy(task) else { return Ok(false) };
    let over = task.phase != Phase::Failed || task.revoke_requested_at.is_some() || task.adopted;
    let is_covered = task.failure.as_ref().is_none_or(|failure| policy.covers(&failure.kind));
    if over || !is_covered || !policy.allows(task.options.attempt) {
        return Ok(false);
    }
    Ok(stands_alone(gateway, task).await? && !ran_here(gateway, task).await?)
}

async fn stands_alone(gateway: &SharedGateway, task: &Task) -> Result<bool, Error> {
    let numbers = [task.no];
    Ok(task.group_id.is_none()
        && gateway.ledger.predecessors(&numbers).await?.is_empty()
        && gateway.ledger.successors(&numbers).await?.is_empty())
}

/// Whether the Rust worker ran the task, so that its retries are used up.
async fn ran_here(gateway: &SharedGateway, task: &Task) -> Result<bool, Error> {
    let Some(name) = &task.worker else { return Ok(false) };
    Ok(gateway.ledger.workers().await?.iter().any(|worker| worker.hostname == *name && is_ours(worker)))
}

fn policy(task: &Task) -> Option<RetryPolicy> {
    let said = serde_json::value::to_raw_value(task.options.retry.as_ref()?).ok()?;
    RetryPolicy::read(&mut Problems::default(), &said)
}
