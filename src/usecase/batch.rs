//! Many calls at once. Each is accepted or refused by itself and they share commits; or, atomically, all or none.

use std::sync::Arc;

use futures_util::future::join_all;

use super::Gateway;
use super::keys;
use super::retry::refused;
use super::submit::{SubmitError, SubmitRequest, Submitted};
use celery::task::{Invalid, Json};
use ledger::{Edge, IdempotencyKey};
use runtime::clock;

/// Calls that are checked and planned before others have their turn.
const TURN: usize = 64;

/// Why nothing of an atomic batch was accepted.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Everything that is wrong, with the places in the batch.
    #[error("{} items do not fit", .0.len())]
    Items(Vec<(usize, SubmitError)>),
    #[error("the batch was refused")]
    Whole(#[from] SubmitError),
}

/// `Idempotency-Key` of a whole batch.
pub struct BatchKey {
    pub scope: String,
    pub key: String,
    pub fingerprint: Vec<u8>,
    /// Writes the answer down that repetitions get.
    pub answer: fn(&[Submitted]) -> Json,
}

impl Gateway {
    /// Accepts each call by itself, in this order, in as few commits as the ledger needs. The caller bounds the number and
    /// the size of what is in flight by the length of `requests`.
    ///
    /// # Cancel safety
    /// A dropped call may leave any of them accepted.
    pub async fn submit_many(self: &Arc<Self>, requests: Vec<SubmitRequest>) -> Vec<Result<Submitted, SubmitError>> {
        // Polled in order: so is the committer's queue filled.
        let submit = async |(place, request): (usize, SubmitRequest)| {
            // Checking and planning so many at once would keep a thread from everybody else.
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
    /// Every item that does not fit, or the one conflict with what the ledger has.
    pub async fn submit_all(
        &self,
        requests: Vec<SubmitRequest>,
        key: Option<BatchKey>,
    ) -> Result<Vec<Submitted>, BatchError> {
        self.check_backlog()?;
        let now = clock::now();
        let (mut parts, mut wrong) = (Vec::with_capacity(requests.len()), Vec::new());
        for (index, request) in requests.into_iter().enumerate() {
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
        let dropping = keys::dropping(&whole);
        match self.commit.commit(whole).await.map_err(SubmitError::from)? {
            Ok(inserted) => {
                self.drop_older(&dropping, &inserted).await;
                Ok(submitted)
            }
            Err(conflict) => Err(refused(conflict).into()),
        }
    }
}

/// A batch is one submission, and a submission has one key.
fn without_key(part: (ledger::Submission, Submitted)) -> Result<(ledger::Submission, Submitted), SubmitError> {
    if part.0.unique.is_none() {
        return Ok(part);
    }
    let detail = "the task has a unique key by its catalog entry, so it cannot be a part of an atomic batch".to_owned();
    Err(SubmitError::Invalid(vec![Invalid { pointer: String::new(), detail }]))
}

/// One submission of all tasks. Each keeps its own root: they are canvases beside each other.
fn merged(submissions: Vec<ledger::Submission>, at: clock::Time) -> ledger::Submission {
    let mut whole = ledger::Submission {
        at,
        tasks: Vec::new(),
        edges: Vec::new(),
        groups: Vec::new(),
        idempotency: None,
        fan_out: None,
        unique: None,
    };
    for one in submissions {
        let first = whole.tasks.len();
        whole.edges.extend(one.edges.into_iter().map(|edge| Edge {
            from: edge.from + first,
            to: edge.to + first,
            ..edge
        }));
        whole.tasks.extend(one.tasks);
        whole.groups.extend(one.groups);
    }
    whole
}
