//! Calls that an application's transaction left in an inbox: checked as `POST /v1/tasks` is, and read as tasks before they are drained.
//!
//! What does not fit cannot be refused any more, because its transaction is over: it becomes a dead letter under the id that the caller
//! has, which says what is wrong and where.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Gateway;
use super::submit::{SubmitError, SubmitRequest};
use celery::task::submission::Submission;
use celery::task::{Invalid, Phase, TaskId};
use ledger::inbox::Call;
use ledger::{Adoption, Failure, News, Source, Task, TaskOptions};
use runtime::clock;
use runtime::heavy;

/// The type of the error of a call that does not fit.
const KIND: &str = "InvalidCall";
const NOT_DRAINED: &str = "committed in an inbox, and not drained yet";
/// Between two looks at the ledger, when nothing is heard.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What became of a call.
#[derive(Debug)]
pub enum Taken {
    /// It is a task now, or a dead letter, or was one before.
    Settled,
    /// It cannot be decided now. It stays in the inbox.
    Later(SubmitError),
}

impl Gateway {
    /// Makes tasks of claimed calls, in their order. Calls that are tasks already are left as they are.
    ///
    /// # Errors
    /// When the ledger does not say which of them are.
    pub async fn take(self: &Arc<Self>, calls: &[Call]) -> Result<Vec<Taken>, ledger::Error> {
        let ids: Vec<TaskId> = calls.iter().filter_map(|call| TaskId::parse(&call.task_id).ok()).collect();
        let known = self.ledger.standing(&ids).await?;
        let is_known = |call: &&Call| known.iter().any(|task| task.id.as_str() == call.task_id);
        let mut taken: Vec<Taken> = calls.iter().map(|_| Taken::Settled).collect();
        let (mut places, mut requests) = (Vec::new(), Vec::new());
        for (place, call) in calls.iter().enumerate().filter(|(_, call)| !is_known(call)) {
            match self.read(call).await {
                Ok(request) => {
                    places.push(place);
                    requests.push(request);
                }
                Err(error) => taken[place] = self.settle(call, error).await?,
            }
        }
        for (place, outcome) in places.into_iter().zip(self.submit_many(requests).await) {
            taken[place] = match outcome {
                Ok(submitted) if submitted.joined => {
                    self.note_joined(&calls[place], submitted.task_id.as_ref()).await?
                }
                Ok(_) => Taken::Settled,
                Err(error) => self.settle(&calls[place], error).await?,
            };
        }
        Ok(taken)
    }

    async fn read(&self, call: &Call) -> Result<SubmitRequest, SubmitError> {
        let (text, limits) = (call.text.clone(), self.signature_limits());
        let read = heavy::run(text.len(), move || Submission::parse(&text, limits)).await;
        let submission = read.map_err(SubmitError::Invalid)?;
        let answers = |(_, id): &(String, TaskId)| id.as_str() == call.task_id;
        if !submission.given_ids().iter().any(answers) {
            let detail = format!("no step has the task_id {}, by which the canvas is read", call.task_id);
            return Err(SubmitError::Invalid(vec![Invalid { pointer: String::new(), detail }]));
        }
        Ok(SubmitRequest { committed: true, ..SubmitRequest::new(submission) })
    }

    /// A refusal for good becomes a dead letter; an id that is taken is this very call, taken before.
    async fn settle(&self, call: &Call, error: SubmitError) -> Result<Taken, ledger::Error> {
        let message = match error {
            SubmitError::Invalid(wrong) => told(&wrong),
            SubmitError::NotAllowed { .. } | SubmitError::NotYours { .. } => format!("/task: {error}"),
            SubmitError::Limited { .. } => format!("/limits: {error}"),
            SubmitError::IdTaken { ref id, ref pointer } if *id != call.task_id => {
                format!("{pointer}: the id {id} is taken")
            }
            SubmitError::IdTaken { .. } | SubmitError::Replay(_) | SubmitError::KeyReused => return Ok(Taken::Settled),
            SubmitError::KeyHeld { .. } => error.to_string(),
            SubmitError::Backlog { .. }
            | SubmitError::Ledger(_)
            | SubmitError::Read(_)
            | SubmitError::Revoke(_)
            | SubmitError::NobodyRunsIt(_) => {
                return Ok(Taken::Later(error));
            }
        };
        let failure = Failure { kind: KIND.to_owned(), message };
        self.end_unrun(call, Phase::Failed, Some(failure), "refused when it was taken from the inbox").await?;
        Ok(Taken::Settled)
    }

    /// `unique` has another task for it: the id that the caller has says which.
    async fn note_joined(&self, call: &Call, other: Option<&TaskId>) -> Result<Taken, ledger::Error> {
        let other = other.map_or_else(String::new, ToString::to_string);
        self.end_unrun(call, Phase::Skipped, None, &format!("its unique key belongs to {other}")).await?;
        Ok(Taken::Settled)
    }

    /// Writes the task down as ended, without a message that could ever be sent.
    async fn end_unrun(
        &self,
        call: &Call,
        phase: Phase,
        failure: Option<Failure>,
        reason: &str,
    ) -> Result<(), ledger::Error> {
        let Ok(id) = TaskId::parse(&call.task_id) else { return Ok(()) };
        let shows = self.catalog.defaults_for(&call.task).redact.is_empty();
        let adoption = Adoption {
            name: (!call.task.is_empty()).then(|| call.task.clone()),
            argsrepr: member(call, "args").filter(|_| shows),
            kwargsrepr: member(call, "kwargs").filter(|_| shows),
            ..Adoption::default()
        };
        let news = News {
            failure,
            reason: Some(reason.to_owned()),
            adoption: Some(adoption),
            ..News::new(id, Source::Ledger, phase, clock::now())
        };
        let events = self.ledger.learn(&[news], true).await?;
        self.hub.publish(&events);
        Ok(())
    }

    /// The task of a committed call. When it is not drained within `patience`, as it will be ([`Task::is_undrained`]). `None` when no
    /// inbox has such a call.
    pub async fn enqueued(&self, id: &TaskId, patience: Duration) -> Result<Option<Task>, ledger::Error> {
        let deadline = Instant::now() + patience;
        let mut signals = self.hub.watch_task(id);
        loop {
            let call = self.inboxes.find(id.as_str()).await;
            // After the look into the inboxes: what left one in between is here.
            if let Some(task) = self.ledger.task(id).await? {
                return Ok(Some(task));
            }
            let Some(call) = call else { return Ok(None) };
            if Instant::now() >= deadline {
                return Ok(Some(awaited(id, &call)));
            }
            let until = deadline.min(Instant::now() + LOOK_AGAIN);
            let _ = tokio::time::timeout_at(until, signals.recv()).await;
        }
    }
}

/// All that is wrong, with the places in the call as `POST /v1/tasks` would name them.
fn told(wrong: &[Invalid]) -> String {
    let lines = wrong.iter().map(|one| {
        if one.pointer.is_empty() { one.detail.clone() } else { format!("{}: {}", one.pointer, one.detail) }
    });
    lines.collect::<Vec<_>>().join("; ")
}

fn member(call: &Call, name: &str) -> Option<String> {
    let fields = celery::task::json::Fields::parse(&call.text).ok()?;
    fields.get(name).map(|value| value.get().to_owned())
}

fn awaited(id: &TaskId, call: &Call) -> Task {
    Task {
        no: 0,
        id: id.clone(),
        name: (!call.task.is_empty()).then(|| call.task.clone()),
        queue: None,
        priority: Default::default(),
        phase: Phase::Accepted,
        status: Phase::Accepted.status().to_owned(),
        seq: 0,
        delivery: 1,
        retries: 0,
        worker: None,
        root_id: None,
        parent_id: None,
        group_id: None,
        group_index: None,
        ignore_result: false,
        labels: Vec::new(),
        options: TaskOptions::default(),
        submitted_at: call.enqueued_at,
        queued_at: None,
        received_at: None,
        started_at: None,
        finished_at: None,
        due_at: None,
        expires_at: None,
        runtime: None,
        result: None,
        failure: None,
        traceback: None,
        progress: None,
        children: None,
        retry_of: None,
        retried_as: None,
        schedule: None,
        reason: Some(NOT_DRAINED.to_owned()),
        adopted: false,
        corrected: false,
        argsrepr: None,
        kwargsrepr: None,
        revoke_requested_at: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_every_place() {
        let wrong = [
            Invalid { pointer: "/args/0".to_owned(), detail: "must be a number".to_owned() },
            Invalid { pointer: String::new(), detail: "is not an object".to_owned() },
        ];
        assert_eq!(told(&wrong), "/args/0: must be a number; is not an object");
    }
}
