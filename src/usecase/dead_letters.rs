//! Dead letters: tasks that failed for good or were lost, until a person deletes them from the list or re-queues them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Gateway;
use super::retry::RetryError;
use super::submit::Submitted;
use crate::guard::tokens::Visibility;
use crate::tell::stats;
use celery::task::TaskId;
use ledger::{Ended, Filter, Page, Task};
use runtime::clock;

/// One call re-queues at most this many; a caller repeats it while `remaining` is true.
pub const MAX_REQUEUED: usize = 5_000;
const PAGE: i64 = 500;

/// Which dead letters, and how fast.
#[derive(Debug, Clone, Default)]
pub struct Bulk {
    pub filter: Filter,
    /// Only failures of this kind, as `GET /v1/stats/errors` names it.
    pub fingerprint: Option<String>,
    /// Rate at which they are published, to avoid an overload. `None`: all at once.
    pub max_per_second: Option<f64>,
    /// Only count them.
    pub dry_run: bool,
}

/// The outcome of a bulk re-queue.
#[derive(Debug, Default)]
pub struct Requeued {
    pub matched: usize,
    /// Old id and new id.
    pub requeued: Vec<(TaskId, TaskId)>,
    /// Dead letters that were not re-queued, with the reason.
    pub skipped: Vec<(TaskId, String)>,
    /// Whether there may be more than one call handles.
    pub remaining: bool,
}

impl Gateway {
    /// Re-queues one dead letter and deletes it from the list.
    ///
    /// # Cancel safety
    /// A dropped call may have sent the task again but left it in the list, with `retried_as`.
    pub async fn requeue(&self, visibility: &Visibility, id: &TaskId) -> Result<Submitted, RetryError> {
        let task = self.ledger.task(id).await?.ok_or_else(|| RetryError::Unknown(id.clone()))?;
        if !self.is_dead(&task).await? {
            return Err(RetryError::NotDead(id.clone()));
        }
        self.check_backlog()?;
        let submission = self.again_for(visibility, &task, None).await?;
        let submitted = self.send_again(submission).await?;
        self.ledger.dismiss(std::slice::from_ref(id)).await?;
        Ok(submitted)
    }

    /// Re-queues all matching dead letters, oldest first.
    pub async fn requeue_all(&self, visibility: &Visibility, bulk: Bulk) -> Result<Requeued, RetryError> {
        let (letters, remaining) = match &bulk.fingerprint {
            Some(fingerprint) => self.letters_of_kind(&bulk.filter, fingerprint).await?,
            None => self.letters(&bulk.filter).await?,
        };
        let mut done = Requeued { matched: letters.len(), remaining, ..Requeued::default() };
        if bulk.dry_run {
            return Ok(done);
        }
        self.check_backlog()?;
        let start = clock::now();
        let step = bulk.max_per_second.map(|rate| Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX));
        for task in letters {
            let place = u32::try_from(done.requeued.len()).unwrap_or(u32::MAX);
            let due_at = step.filter(|_| place > 0).map(|step| start.plus(step.saturating_mul(place)));
            match self.again_for(visibility, &task, due_at).await {
                Ok(submission) => {
                    let new = submission.tasks[0].id.clone();
                    self.send_again(submission).await?;
                    self.ledger.dismiss(std::slice::from_ref(&task.id)).await?;
                    done.requeued.push((task.id, new));
                }
                Err(RetryError::NotReplayable { why, .. }) => done.skipped.push((task.id, why.to_owned())),
                Err(other) => return Err(other),
            }
        }
        Ok(done)
    }

    /// Removes a task from the list. It stays in the history.
    pub async fn dismiss(&self, id: &TaskId) -> Result<(), RetryError> {
        if self.ledger.dismiss(std::slice::from_ref(id)).await? == 1 {
            return Ok(());
        }
        match self.ledger.task(id).await? {
            Some(_) => Err(RetryError::NotDead(id.clone())),
            None => Err(RetryError::Unknown(id.clone())),
        }
    }

    /// Removes all matching tasks from the list. Returns their number.
    pub async fn dismiss_all(&self, filter: &Filter) -> Result<i64, ledger::Error> {
        let mut gone = 0;
        loop {
            let (letters, remaining) = self.letters(filter).await?;
            let ids: Vec<TaskId> = letters.into_iter().map(|task| task.id).collect();
            let now = self.ledger.dismiss(&ids).await?;
            gone += now;
            if !remaining || now == 0 {
                return Ok(gone);
            }
        }
    }

    /// Dead letters, oldest first, and whether there may be more.
    async fn letters(&self, filter: &Filter) -> Result<(Vec<Task>, bool), ledger::Error> {
        let filter = Filter { dead_letters: true, ..filter.clone() };
        let (mut letters, mut after) = (Vec::new(), None);
        loop {
            let (tasks, next) = self.ledger.tasks(&filter, &Page { limit: PAGE, after }).await?;
            letters.extend(tasks);
            after = next;
            if after.is_none() || letters.len() >= MAX_REQUEUED {
                break;
            }
        }
        let remaining = after.is_some() || letters.len() > MAX_REQUEUED;
        letters.truncate(MAX_REQUEUED);
        letters.reverse();
        Ok((letters, remaining))
    }

    /// As [`Gateway::letters`], but only failures of one kind; none when the kind is unknown.
    async fn letters_of_kind(&self, filter: &Filter, fingerprint: &str) -> Result<(Vec<Task>, bool), ledger::Error> {
        let kinds = self.ledger.failure_kinds(&[fingerprint.to_owned()]).await?;
        let Some(kind) = kinds.into_iter().next() else { return Ok((Vec::new(), false)) };
        if !filter.task.is_empty() && !filter.task.contains(&kind.name) {
            return Ok((Vec::new(), false));
        }
        let (letters, remaining) = self.letters(&Filter { task: vec![kind.name], ..filter.clone() }).await?;
        let mut of_kind = HashSet::new();
        for page in letters.chunks(usize::try_from(PAGE).unwrap_or(usize::MAX)) {
            let numbers: Vec<i64> = page.iter().map(|task| task.no).collect();
            let ended = self.ledger.ended(&numbers).await?;
            let ended: HashMap<i64, Ended> = ended.into_iter().map(|end| (end.task_no, end)).collect();
            let alike = page.iter().filter(|task| {
                let name = task.name.as_deref().unwrap_or_default();
                ended.get(&task.no).is_some_and(|ended| stats::fingerprint(name, task.phase, ended) == fingerprint)
            });
            of_kind.extend(alike.map(|task| task.no));
        }
        Ok((letters.into_iter().filter(|task| of_kind.contains(&task.no)).collect(), remaining))
    }

    async fn is_dead(&self, task: &Task) -> Result<bool, ledger::Error> {
        let filter = Filter {
            dead_letters: true,
            q: Some(task.id.to_string()),
            from: Some(task.submitted_at),
            to: Some(task.submitted_at.plus(Duration::from_micros(1))),
            ..Filter::default()
        };
        let (found, _) = self.ledger.tasks(&filter, &Page { limit: PAGE, after: None }).await?;
        Ok(found.iter().any(|dead| dead.id == task.id))
    }
}
