//! Batches of calls. Each call is accepted or refused separately, and they share commits; an atomic batch is accepted as a whole or not.

use std::sync::Arc;

use futures_util::future::join_all;

use super::Gateway;
use super::keys::{self, Dropping};
use super::offload::Roster;
use super::retry::refused;
use super::submit::{SubmitError, SubmitRequest, Submitted};
use celery::task::invalid::MAX_FOUND;
use celery::task::{Invalid, Json};
use ledger::{Edge, IdempotencyKey};
use runtime::clock;

/// How many calls are checked and planned before other requests get a turn.
const TURN: usize = 64;

/// Why an atomic batch was refused.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// All mistakes, with their positions in the batch.
    #[error("{} items do not fit", .0.len())]
    Items(Vec<(usize, SubmitError)>),
    #[error("the batch was refused")]
    Whole(#[from] SubmitError),
}

/// The `Idempotency-Key` of a whole batch.
pub struct BatchKey {
    pub scope: String,
    pub key: String,
    pub fingerprint: Vec<u8>,
    /// Writes the answer that repeated requests get.
    pub answer: fn(&[Submitted]) -> Json,
}

impl Gateway {
    /// Accepts or refuses each call separately, in this order, in as few commits as possible. The caller bounds the work in
    /// flight by the length of `requests`.
    ///
    /// # Cancel safety
    /// A dropped call may leave any of them accepted.
    pub async fn submit_many(self: &Arc<Self>, requests: Vec<SubmitRequest>) -> Vec<Result<Submitted, SubmitError>> {
        let (among_many, roster) = (requests.len() > 1, Roster::default());
        // The futures are polled in order, so the committer's queue is filled in order.
        let submit = async |(place, mut request): (usize, SubmitRequest)| {
            request.among_many = among_many;
            request.roster = roster.clone();
            // Checking and planning many calls at once would block the thread for other requests.
            for _ in 0..place / TURN {
                tokio::task::yield_now().await;
            }
            self.submit(request).await
        };
        join_all(requests.into_iter().enumerate().map(submit)).await
    }

    /// Accepts all calls in one transaction, or none. `unique` has no meaning here and is refused.
    ///
    /// # Errors
    /// All invalid items, or the conflict with existing tasks.
    pub async fn submit_all(
        &self,
        requests: Vec<SubmitRequest>,
        key: Option<BatchKey>,
    ) -> Result<Vec<Submitted>, BatchError> {
        self.check_backlog()?;
        let now = clock::now();
        let caller = requests.first().map(keys::caller).unwrap_or_default();
        let (mut parts, mut wrong) = (Vec::with_capacity(requests.len()), Vec::new());
        for (index, request) in requests.into_iter().enumerate() {
            if wrong.len() >= MAX_FOUND {
                break;
            }
            if index % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let checked = match self.check_call(&request) {
                Ok(()) => self.check_hooks(&request.submission.webhooks).await,
                refused => refused,
            };
            let checked = match checked {
                Ok(()) => self.check_retries(&request.submission).await,
                refused => refused,
            };
            match checked.and_then(|()| self.prepared(request, now)).and_then(without_key) {
                Ok(part) => parts.push(part),
                Err(error) => wrong.push((index, error)),
            }
        }
        if !wrong.is_empty() {
            return Err(BatchError::Items(wrong));
        }
        let (submissions, submitted): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let mut whole = merged(submissions, now);
        whole.idempotency = key.map(|key| IdempotencyKey {
            answer: (key.answer)(&submitted),
            scope: key.scope,
            key: key.key,
            fingerprint: key.fingerprint,
            expires_at: now.plus(self.keep_idempotency),
        });
        let _files = self.offload(&mut whole.tasks, &Roster::default()).await;
        self.prepare_queue(&whole).await;
        let dropping = Dropping::of(&whole, caller);
        match self.commit.commit(whole).await.map_err(SubmitError::from)? {
            Ok(inserted) => {
                self.drop_older(&dropping, &inserted).await;
                Ok(submitted)
            }
            Err(conflict) => Err(refused(conflict).into()),
        }
    }
}

/// A batch is one submission, and a submission has one key and one DAG.
fn without_key(part: (ledger::Submission, Submitted)) -> Result<(ledger::Submission, Submitted), SubmitError> {
    let detail = match (&part.0.unique, &part.0.dag) {
        (None, None) => return Ok(part),
        (Some(_), _) => "the task has a unique key by its catalog entry, so it cannot be a part of an atomic batch",
        (None, Some(_)) => "a DAG cannot be a part of an atomic batch",
    };
    let detail = detail.to_owned();
    Err(SubmitError::Invalid(vec![Invalid { pointer: String::new(), detail }]))
}

/// Merges all tasks into one submission. Each keeps its own root, so they remain separate canvases.
fn merged(submissions: Vec<ledger::Submission>, at: clock::Time) -> ledger::Submission {
    let mut whole = ledger::Submission {
        at,
        tasks: Vec::new(),
        edges: Vec::new(),
        groups: Vec::new(),
        idempotency: None,
        fan_out: None,
        dag: None,
        unique: None,
    };
    for submission in submissions {
        let first = whole.tasks.len();
        whole.edges.extend(submission.edges.into_iter().map(|edge| Edge {
            from: edge.from + first,
            to: edge.to + first,
            ..edge
        }));
        whole.tasks.extend(submission.tasks);
        whole.groups.extend(submission.groups);
    }
    whole
}
