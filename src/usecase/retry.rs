//! Retry: the same message as a new task, with `retry_of`. `restart` stops the old one first.

use std::time::Duration;

use super::Gateway;
use super::embedded::has_foreign;
use super::limits::at_once;
use super::replay::{self, ReplayError};
use super::revoke::{RevokeError, RevokeRequest};
use super::submit::{Answer, Idempotency, SubmitError, Submitted};
use super::way::is_fanout;
use crate::guard::tokens::Visibility;
use crate::live::commit::CommitError;
use celery::task::{Phase, QueueName, TaskId, TaskName, json};
use ledger::{Conflict, IdempotencyKey, Task};
use runtime::clock::{self, Time};

#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    #[error("this ledger never saw {0}")]
    Unknown(TaskId),
    #[error("{id} cannot be sent again: {why}")]
    NotReplayable { id: TaskId, why: &'static str },
    /// The task is not a dead letter: it has neither failed nor been lost, or was removed from the list.
    #[error("{0} is not a dead letter")]
    NotDead(TaskId),
    #[error("the old task could not be revoked")]
    Revoke(#[from] RevokeError),
    #[error("the new task was not accepted")]
    Submit(#[from] SubmitError),
    #[error("the ledger failed")]
    Ledger(#[from] ledger::Error),
    #[error("the ledger failed")]
    Commit(#[from] CommitError),
}

impl Gateway {
    /// Submits the task's message again under a new id. With `restart` the old one is revoked first, with SIGTERM if it runs.
    ///
    /// # Cancel safety
    /// A dropped call may have revoked the old task, or submitted the new one.
    pub async fn retry(
        &self,
        visibility: &Visibility,
        id: &TaskId,
        restart: bool,
        repeatable: Option<Idempotency>,
    ) -> Result<Submitted, RetryError> {
        let task = self.ledger.task(id).await?.ok_or_else(|| RetryError::Unknown(id.clone()))?;
        self.check_backlog()?;
        // Build the submission before the revoke, so that a task that cannot be sent again is not stopped.
        let mut submission = self.again_for(visibility, &task, None).await?;
        submission.idempotency = repeatable.map(|given| key(given, &submission, self.keep_idempotency));
        if restart && !task.phase.is_final() {
            self.revoke(id, &RevokeRequest::terminating("restarted")).await?;
        }
        self.send_again(submission).await
    }

    /// As [`Gateway::again`], for a caller that may run only some tasks: it must be allowed to run the following steps too.
    pub(crate) async fn again_for(
        &self,
        visibility: &Visibility,
        task: &Task,
        due_at: Option<Time>,
    ) -> Result<ledger::Submission, RetryError> {
        let submission = self.again(task, due_at).await?;
        let is_foreign =
            |task: &ledger::NewTask| !visibility.sees(Some(task.name.as_str())) || has_foreign(&task.body, visibility);
        if submission.tasks.iter().any(is_foreign) {
            let why = "tasks follow it in its canvas that the token may not submit";
            return Err(RetryError::NotReplayable { id: task.id.clone(), why });
        }
        Ok(submission)
    }

    /// The new submission for a task's message; with `due_at` it is held until then.
    pub(crate) async fn again(&self, task: &Task, due_at: Option<Time>) -> Result<ledger::Submission, RetryError> {
        let now = clock::now();
        let not_replayable = |why| RetryError::NotReplayable { id: task.id.clone(), why };
        if task.adopted {
            return Err(not_replayable("others sent it, and its message was never seen here"));
        }
        let mut submission = replay::replay(&self.ledger, task, now).await.map_err(|error| match error {
            ReplayError::NotReplayable(why) => not_replayable(why),
            ReplayError::Ledger(error) => error.into(),
        })?;
        let first = &mut submission.tasks[0];
        let is_paused = self.pauses.current().contains(first.queue.as_str());
        let is_limited = first.options.limits.is_some() || self.catalog.is_limited(first.name.as_str());
        if due_at.is_some() || is_paused || is_limited {
            (first.phase, first.due_at) = (Phase::Held, Some(due_at.unwrap_or(at_once(now))));
        } else if !is_fanout(first.options.spread.as_ref()) {
            first.way = self.way_to(first.queue.as_str(), first.options.fair.is_some(), first.priority);
        }
        Ok(submission)
    }

    /// Submits a task's message again under the caller's key, so that a repeated call finds the first submission.
    pub(crate) async fn send_once(&self, visibility: &Visibility, task: &Task, name: String) -> Result<(), RetryError> {
        self.check_backlog()?;
        let mut submission = self.again_for(visibility, task, None).await?;
        let given = Idempotency {
            scope: "bulk".to_owned(),
            key: name,
            fingerprint: Vec::new(),
            answer: Answer::new(|_| json::null()),
        };
        submission.idempotency = Some(key(given, &submission, self.keep_idempotency));
        match self.send_again(submission).await {
            Ok(_) | Err(RetryError::Submit(SubmitError::Replay(_))) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn send_again(&self, submission: ledger::Submission) -> Result<Submitted, RetryError> {
        let submitted = summary(&submission);
        match self.commit.commit(submission).await? {
            Ok(_) => Ok(submitted),
            Err(conflict) => Err(RetryError::Submit(refused(conflict))),
        }
    }
}

/// The answer that repeated requests get.
fn key(given: Idempotency, submission: &ledger::Submission, keep: Duration) -> IdempotencyKey {
    IdempotencyKey {
        answer: (given.answer.0)(&summary(submission)),
        scope: given.scope,
        key: given.key,
        fingerprint: given.fingerprint,
        expires_at: submission.at.plus(keep),
    }
}

pub(crate) fn refused(conflict: Conflict) -> SubmitError {
    match conflict {
        Conflict::TaskId(id) | Conflict::Joined(id) => SubmitError::taken(id.as_str()),
        Conflict::GroupId(id) => SubmitError::taken(id.as_str()),
        Conflict::Replay(answer) => SubmitError::Replay(answer),
        Conflict::KeyReused => SubmitError::KeyReused,
        Conflict::Limited { key, wait } => SubmitError::limited(key, wait),
    }
}

fn summary(submission: &ledger::Submission) -> Submitted {
    let first = &submission.tasks[0];
    let children: Vec<(TaskId, TaskName)> = match submission.tasks.as_slice() {
        [_] => Vec::new(),
        all => all.iter().map(|task| (task.id.clone(), task.name.clone())).collect(),
    };
    let queue: QueueName = first.queue.clone();
    Submitted {
        task_id: Some(first.id.clone()),
        group_id: None,
        phase: first.phase,
        status: first.phase.status().to_owned(),
        task: Some(first.name.clone()),
        queue: Some(queue),
        count: submission.tasks.len(),
        children,
        joined: false,
        warnings: Vec::new(),
        replaced: None,
    }
}
