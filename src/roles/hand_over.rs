//! Submits the `on_failure` task of a catalog entry when one of the entry's tasks has failed for good: after its last retry, or when it
//! was lost with its worker.
//!
//! The commit of the new task takes the unique key `failure:<id>`, so any number of replicas create it only once. A failure that was
//! missed, for example during a crash, is found among the dead letters of the last day.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::retrier;
use crate::catalog::{FailedTask, telling};
use crate::usecase::SharedGateway;
use crate::usecase::submit::{SubmitError, SubmitRequest};
use celery::task::submission::{OnConflict, Submission, Unique, UniqueWhile};
use celery::task::{Phase, TaskId};
use ledger::{Error, Filter, Page, Task};
use runtime::clock;
use runtime::lifecycle::Backoff;

/// Time between two passes over the dead letters.
const PERIOD: Duration = Duration::from_secs(10);
/// Dead letters read in one pass. Missed failures are among the newest.
const PAGE: i64 = 500;
/// Older failures are not handled.
const MEMORY: Duration = Duration::from_hours(24);
const PAUSE: Duration = Duration::from_secs(2);
/// How many handled tasks this replica remembers.
const REMEMBERED: usize = 10_000;

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Ledger(#[from] Error),
    #[error("the on_failure task could not be submitted")]
    Submit(#[from] SubmitError),
}

/// The service that submits `on_failure` tasks.
pub struct HandOver {
    gateway: SharedGateway,
    done: Done,
}

impl HandOver {
    pub fn new(gateway: SharedGateway) -> Self {
        Self { gateway, done: Done::default() }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ends = self.gateway.hub.watch_bad_ends();
        let mut backoff = Backoff::new(PAUSE);
        let mut next = Instant::now();
        loop {
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                event = ends.recv() => match event {
                    Ok(event) if is_failure(event.phase) => self.hear(&event.task_id).await,
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
                        warn!(error = %error, "on_failure tasks could not be submitted, trying again");
                    }
                    next = Instant::now() + backoff.pause();
                }
            }
        }
    }

    async fn hear(&mut self, id: &TaskId) -> Result<(), Trouble> {
        match self.gateway.ledger.task(id).await? {
            Some(task) => self.tell(&task).await,
            None => Ok(()),
        }
    }

    /// A failure about one task does not stop the others. Returns the last failure.
    async fn pass(&mut self) -> Result<(), Trouble> {
        let filter = Filter { dead_letters: true, ..Filter::default() };
        let (tasks, _) = self.gateway.ledger.tasks(&filter, &Page { limit: PAGE, after: None }).await?;
        let oldest = clock::now().minus(MEMORY);
        let mut outcome = Ok(());
        for task in tasks.iter().filter(|task| task.finished_at.is_some_and(|at| at > oldest)) {
            outcome = self.tell(task).await.and(outcome);
        }
        outcome
    }

    async fn tell(&mut self, task: &Task) -> Result<(), Trouble> {
        let Some(kept) = &task.options.on_failure else { return Ok(()) };
        if !is_failure(task.phase) || task.retried_as.is_some() || self.done.has(&task.id) {
            return Ok(());
        }
        if retrier::will_retry(&self.gateway, task).await? {
            return Ok(());
        }
        let Some(signature) = telling(kept, failed(task)) else {
            warn!(task.id = %task.id, "the on_failure call of task {} cannot be read", task.id);
            self.done.add(&task.id);
            return Ok(());
        };
        let mut submission = Submission::of(signature);
        submission.unique = Some(Unique {
            key: format!("failure:{}", task.id),
            until: UniqueWhile::Seconds(MEMORY.as_secs_f64() * 2.0),
            on_conflict: OnConflict::Join,
        });
        // The catalog names this task, so it may be submitted even if clients may not; the rules of its own entry hold.
        let request = SubmitRequest {
            trusted: true,
            whole: true,
            token: task.options.token.clone(),
            ..SubmitRequest::new(submission)
        };
        match self.gateway.submit(request).await {
            Ok(told) => {
                if let Some(id) = told.task_id.filter(|_| !told.joined) {
                    info!(task.id = %task.id, "task {} failed for good, its on_failure task is {id}", task.id);
                }
            }
            // It would be refused again.
            Err(SubmitError::Invalid(wrong)) => {
                let why =
                    wrong.first().map_or_else(String::new, |wrong| format!("{}: {}", wrong.pointer, wrong.detail));
                warn!(task.id = %task.id, "the on_failure task of task {} does not fit its catalog entry: {why}", task.id);
            }
            Err(error) => return Err(error.into()),
        }
        self.done.add(&task.id);
        Ok(())
    }
}

fn is_failure(phase: Phase) -> bool {
    matches!(phase, Phase::Failed | Phase::Lost)
}

fn failed(task: &Task) -> FailedTask<'_> {
    let (error_type, error_message) =
        task.failure.as_ref().map_or(("", ""), |failure| (failure.kind.as_str(), failure.message.as_str()));
    FailedTask {
        id: task.id.as_str(),
        task: task.name.as_deref().unwrap_or_default(),
        queue: task.queue.as_deref().unwrap_or_default(),
        error_type,
        error_message,
        attempts: task
            .options
            .attempt
            .saturating_add(u32::try_from(task.retries).unwrap_or_default())
            .saturating_add(1),
    }
}

/// The latest handled tasks.
#[derive(Default)]
struct Done {
    known: HashSet<TaskId>,
    order: VecDeque<TaskId>,
}

impl Done {
    fn has(&self, id: &TaskId) -> bool {
        self.known.contains(id)
    }

    fn add(&mut self, id: &TaskId) {
        if self.known.insert(id.clone()) {
            self.order.push_back(id.clone());
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}
