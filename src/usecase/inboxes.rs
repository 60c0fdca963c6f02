//! Calls that an application's transaction wrote into an inbox: they are checked like `POST /v1/tasks`, and can be read as tasks before
//! they are drained.
//!
//! An invalid call cannot be refused, because its transaction is committed: it becomes a dead letter under the caller's id, with all
//! mistakes and their places.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Gateway;
use super::submit::{SubmitError, SubmitRequest};
use crate::live::inboxes;
use celery::task::submission::Submission;
use celery::task::{Invalid, Phase, TaskId};
use ledger::inbox::Call;
use ledger::{Adoption, Failure, News, Source, Task, TaskOptions};
use runtime::clock::{self, Time};
use runtime::heavy;

/// The error type of an invalid call.
const KIND: &str = "InvalidCall";
const NOT_DRAINED: &str = "committed in an inbox, and not drained yet";
/// Pause between two reads of the ledger when there is no signal.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long one inbox may take to report its state.
const STATE_PATIENCE: Duration = Duration::from_secs(2);

/// The outcome of a call.
#[derive(Debug)]
pub enum Taken {
    /// The call is a task or a dead letter, now or already before.
    Settled,
    /// The call cannot be taken now and stays in the inbox.
    Later(SubmitError),
}

impl Gateway {
    /// Turns claimed calls into tasks, in order. Calls that are tasks already are not changed.
    ///
    /// # Errors
    /// When the ledger does not answer.
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

    /// Turns a permanent refusal into a dead letter. An id that exists already means that this call was taken before.
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

    /// Records that `unique` has joined the call to another task: the caller's id refers to that task.
    async fn note_joined(&self, call: &Call, other: Option<&TaskId>) -> Result<Taken, ledger::Error> {
        let other = other.map_or_else(String::new, ToString::to_string);
        self.end_unrun(call, Phase::Skipped, None, &format!("its unique key belongs to {other}")).await?;
        Ok(Taken::Settled)
    }

    /// Records the task as ended, without a message that could be sent.
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

    /// The task of a committed call. If it is not drained within `patience`, a preview of the task ([`Task::is_undrained`]). `None` when
    /// no inbox has such a call.
    pub async fn enqueued(&self, id: &TaskId, patience: Duration) -> Result<Option<Task>, ledger::Error> {
        let deadline = Instant::now() + patience;
        let mut signals = self.hub.watch_task(id);
        loop {
            let call = self.inboxes.find(id.as_str()).await;
            // Read the ledger after the inboxes: a call that was drained in between is found here.
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

/// All mistakes, with places in the call as `POST /v1/tasks` would name them.
fn told(wrong: &[Invalid]) -> String {
    let lines = wrong.iter().map(|fault| {
        if fault.pointer.is_empty() { fault.detail.clone() } else { format!("{}: {}", fault.pointer, fault.detail) }
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

/// The state of an inbox.
#[derive(Debug)]
pub struct InboxState {
    pub name: String,
    pub trouble: Option<String>,
    /// What waits in it, and since when the oldest does.
    pub status: Option<(i64, Option<Time>)>,
    pub poll: Duration,
}

impl Gateway {
    /// Asks all inboxes at the same time; the state of one that does not answer in time says so.
    pub async fn inbox_states(&self) -> Vec<InboxState> {
        let state_of = async |source: &inboxes::Source| {
            let asked = tokio::time::timeout(STATE_PATIENCE, source.inbox.waiting()).await;
            let (status, trouble) = match asked {
                Ok(Ok(status)) => (Some(status), None),
                Ok(Err(error)) => (None, Some(error.to_string())),
                Err(_) => (None, Some("it does not answer in time".to_owned())),
            };
            InboxState { name: source.name.clone(), trouble, status, poll: source.poll }
        };
        futures_util::future::join_all(self.inboxes.sources().iter().map(state_of)).await
    }
}
