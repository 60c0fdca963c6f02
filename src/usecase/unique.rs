//! Handles a submission whose unique key another task holds: it joins that task, is refused, or replaces it.
//!
//! Replacing has steps that can be repeated: the holder is revoked, with all unfinished tasks of its canvas; the new submission is
//! committed with a key that it takes over from exactly this holder; if another task holds the key by then, the next round starts
//! with that one. A crash between the steps leaves a revoked task and a client without an answer, never two holders.

use std::sync::Arc;
use std::time::Duration;

use super::Gateway;
use super::keys::Dropping;
use super::revoke::{RevokeError, RevokeRequest, Revoked, Verdict};
use super::submit::{SubmitError, SubmitRequest, Submitted};
use crate::guard::tokens::Visibility;
use celery::task::submission::{OnConflict, Unique, UniqueWhile};
use celery::task::{Invalid, QueueName, Signature, TaskId, TaskName};
use ledger::{Conflict, UniqueKey};
use runtime::clock::Time;

/// Maximum number of rounds before the submission is refused.
const ROUNDS: u32 = 5;
/// When to try again if the key is held by a task that the caller may not see.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A submission that may have to replace another task.
pub(super) struct Contest {
    pub wish: OnConflict,
    pub key: String,
    pub visibility: Visibility,
    /// Whether the caller chose the key itself; it may then replace only a task that it may see.
    pub must_see: bool,
}

impl Contest {
    pub fn of(request: &SubmitRequest) -> Option<Self> {
        let Unique { key, on_conflict, .. } = request.submission.unique.as_ref()?;
        let (visibility, must_see) = (request.visibility.clone(), !request.trusted);
        Some(Self { wish: *on_conflict, key: key.clone(), visibility, must_see })
    }
}

impl Gateway {
    /// Gives a call by name the unique key of its catalog entry, whatever key the call has.
    ///
    /// # Errors
    /// When such a task is inside a canvas, because a key is held by the whole submission, not by a step.
    pub(super) fn settle_unique(&self, request: &mut SubmitRequest) -> Result<(), SubmitError> {
        if request.trusted || !self.catalog.has_unique() {
            return Ok(());
        }
        if let Signature::Task(task) = &request.submission.signature
            && task.link.is_empty()
            && task.link_error.is_empty()
        {
            if let Some(declared) = self.declared_unique(task) {
                request.submission.unique = Some(declared);
            }
            return Ok(());
        }
        let mut found = None;
        request.submission.signature.visit(&mut |task| {
            let entry = self.catalog.entry(task.task.as_str());
            if entry.is_some_and(|entry| entry.is_unique() && !entry.open) {
                found.get_or_insert_with(|| task.task.clone());
            }
        });
        let Some(name) = found else { return Ok(()) };
        let detail = format!("{name} has a unique key by its catalog entry, so it must stand alone");
        Err(SubmitError::Invalid(vec![Invalid { pointer: String::new(), detail }]))
    }

    /// Answers a submission whose key is held by `holder`. `rows` is set when the submission may replace it.
    pub(super) async fn contested(
        self: &Arc<Self>,
        contest: Contest,
        rows: Option<(ledger::Submission, Submitted)>,
        holder: TaskId,
    ) -> Result<Submitted, SubmitError> {
        let is_answered = !matches!((contest.wish, &rows), (OnConflict::Replace, Some(_)));
        if is_answered && contest.must_see && !self.sees(&contest.visibility, &holder).await? {
            // Tokens of one namespace share keys, but not all of them see every task.
            return Err(SubmitError::Limited { key: contest.key, retry_after: RETRY_AFTER });
        }
        match (contest.wish, rows) {
            (OnConflict::Join, _) | (OnConflict::Replace, None) => self.joined(&holder).await,
            (OnConflict::Reject, _) => Err(SubmitError::KeyHeld { key: contest.key, holder, fought: false }),
            (OnConflict::Replace, Some((rows, submitted))) => self.replace(contest, rows, submitted, holder).await,
        }
    }

    pub(crate) async fn joined(&self, id: &TaskId) -> Result<Submitted, SubmitError> {
        let task = self.ledger.task(id).await?.ok_or_else(|| SubmitError::taken(id.as_str()))?;
        Ok(Submitted {
            task_id: Some(task.id),
            group_id: task.group_id,
            phase: task.phase,
            status: task.status,
            task: task.name.and_then(|name| TaskName::parse(name).ok()),
            queue: task.queue.and_then(|queue| QueueName::parse(queue).ok()),
            count: 1,
            children: Vec::new(),
            joined: true,
            warnings: Vec::new(),
            replaced: None,
        })
    }

    async fn replace(
        self: &Arc<Self>,
        contest: Contest,
        rows: ledger::Submission,
        submitted: Submitted,
        mut holder: TaskId,
    ) -> Result<Submitted, SubmitError> {
        let caller = if contest.must_see { contest.visibility.clone() } else { Visibility::default() };
        let dropping = Dropping::of(&rows, caller);
        for _ in 0..ROUNDS {
            if contest.must_see && !self.sees(&contest.visibility, &holder).await? {
                break;
            }
            let replaced = self.revoke_whole(&contest, &holder).await?;
            let mut rows = rows.clone();
            if let Some(key) = &mut rows.unique {
                key.replaces = Some(holder.clone());
            }
            match self.commit.commit(rows).await? {
                Ok(inserted) => {
                    self.drop_older(&dropping, &inserted).await;
                    return Ok(Submitted { replaced: Some(replaced), ..submitted });
                }
                Err(Conflict::Joined(next)) => holder = next,
                Err(conflict) => return Err(super::retry::refused(conflict)),
            }
        }
        Err(SubmitError::KeyHeld { key: contest.key, holder, fought: true })
    }

    async fn sees(&self, visibility: &Visibility, id: &TaskId) -> Result<bool, SubmitError> {
        Ok(self.ledger.task(id).await?.is_none_or(|task| visibility.sees_task(&task)))
    }

    /// Revokes a task and the unfinished tasks of its canvas, limited to those that the caller may see if required. The verdict is that of
    /// the part that is hardest to stop.
    async fn revoke_whole(&self, contest: &Contest, id: &TaskId) -> Result<Revoked, RevokeError> {
        let request = RevokeRequest::terminating("replaced by a newer submission of the same key");
        let Some((mut tasks, _)) = self.ledger.graph(id).await? else { return Err(RevokeError::Unknown(id.clone())) };
        tasks.retain(|task| !task.phase.is_final());
        let everything = Visibility::default();
        let visibility = if contest.must_see { &contest.visibility } else { &everything };
        let verdicts = Box::pin(self.revoke_each(tasks, visibility, &request)).await?;
        Ok(whole(id, verdicts))
    }
}

/// The row of a key.
pub(super) fn unique_key(unique: Unique, task_id: TaskId, now: Time) -> UniqueKey {
    let until = match unique.until {
        UniqueWhile::Active => None,
        UniqueWhile::Seconds(secs) => Some(now.plus(Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX))),
    };
    UniqueKey { key: unique.key, until, task_id, replaces: None }
}

/// Combines the verdicts of a canvas into one.
fn whole(id: &TaskId, verdicts: Vec<Revoked>) -> Revoked {
    let weight = |revoked: &Revoked| match revoked.verdict {
        Verdict::TooLate => 0,
        Verdict::Prevented => 1,
        Verdict::Signalled if revoked.confirmed => 2,
        Verdict::Signalled => 3,
    };
    let hardest = verdicts.into_iter().max_by_key(weight);
    let over = || Revoked {
        task_id: id.clone(),
        verdict: Verdict::TooLate,
        confirmed: true,
        detail: "it had ended already".to_owned(),
    };
    hardest.map_or_else(over, |hardest| Revoked { task_id: id.clone(), ..hardest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revoked(verdict: Verdict, confirmed: bool) -> Revoked {
        Revoked { task_id: TaskId::parse("step").unwrap(), verdict, confirmed, detail: String::new() }
    }

    #[test]
    fn a_canvas_is_as_hard_to_stop_as_its_hardest_step() {
        let id = TaskId::parse("end").unwrap();
        let steps = vec![revoked(Verdict::Prevented, true), revoked(Verdict::Signalled, false)];
        let verdict = whole(&id, steps);
        assert_eq!((verdict.verdict, verdict.confirmed, verdict.task_id), (Verdict::Signalled, false, id.clone()));
        assert_eq!(whole(&id, Vec::new()).verdict, Verdict::TooLate);
    }
}
