//! Decides which submissions of a batch may be inserted. Pure, shared by both adapters.
//!
//! The adapter looks up taken ids and keys and calls [`judge`]; a submission may also conflict with an earlier one of its batch. If another
//! transaction takes an id meanwhile, the insert fails with a unique violation, and the adapter repeats the look-up and the call.

use std::collections::{HashMap, HashSet};

use celery::task::{GroupId, TaskId};

use super::limits::KeyState;
use super::submission::{Conflict, NewTask, Submission};

/// The ids and keys named in a batch that are taken in the ledger. Expired keys are left out.
#[derive(Default)]
pub(super) struct Taken {
    pub tasks: HashSet<String>,
    pub groups: HashSet<String>,
    /// (scope, key) → fingerprint and answer.
    pub idempotency: HashMap<(String, String), (Vec<u8>, String)>,
    /// key → the task that a later submission joins.
    pub unique: HashMap<String, String>,
    /// The state of limit keys that may refuse tasks.
    pub keys: HashMap<String, KeyState>,
}

/// One answer per submission: `None` means that it may be inserted.
pub(super) fn judge(batch: &[Submission], mut taken: Taken) -> Vec<Option<Conflict>> {
    batch
        .iter()
        .map(|submission| {
            let conflict = clash(submission, &taken);
            if conflict.is_none() {
                take(submission, &mut taken);
            }
            conflict
        })
        .collect()
}

fn clash(submission: &Submission, taken: &Taken) -> Option<Conflict> {
    replay(submission, taken)
        .or_else(|| joined(submission, taken))
        .or_else(|| repeated_task(submission, taken).map(Conflict::TaskId))
        .or_else(|| repeated_group(submission, taken).map(Conflict::GroupId))
        .or_else(|| limited(submission, taken))
}

/// The conflict with a limit. If several limits refuse the submission, the one with the longest wait.
fn limited(submission: &Submission, taken: &Taken) -> Option<Conflict> {
    let limits = submission.tasks.iter().flat_map(NewTask::refusing);
    let waits = limits.filter_map(|limit| Some((taken.keys.get(&limit.key)?.refuses(limit, submission.at)?, limit)));
    let (wait, limit) = waits.max_by_key(|(wait, _)| *wait)?;
    Some(Conflict::Limited { key: limit.key.clone(), wait })
}

/// The limit keys of a batch that may refuse tasks, each once.
pub(super) fn refusing_keys(batch: &[Submission]) -> Vec<String> {
    let limits = batch.iter().flat_map(|submission| &submission.tasks).flat_map(NewTask::refusing);
    let mut keys: Vec<String> = limits.map(|limit| limit.key.clone()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn replay(submission: &Submission, taken: &Taken) -> Option<Conflict> {
    let key = submission.idempotency.as_ref()?;
    let (fingerprint, answer) = taken.idempotency.get(&(key.scope.clone(), key.key.clone()))?;
    if *fingerprint != key.fingerprint {
        return Some(Conflict::KeyReused);
    }
    Some(serde_json::value::RawValue::from_string(answer.clone()).map_or(Conflict::KeyReused, Conflict::Replay))
}

fn joined(submission: &Submission, taken: &Taken) -> Option<Conflict> {
    let key = submission.unique.as_ref()?;
    let id = taken.unique.get(&key.key)?;
    if key.replaces.as_ref().is_some_and(|replaced| replaced.as_str() == id) {
        return None;
    }
    TaskId::parse(id).ok().map(Conflict::Joined)
}

fn repeated_task(submission: &Submission, taken: &Taken) -> Option<TaskId> {
    let mut own = HashSet::with_capacity(submission.tasks.len());
    submission
        .tasks
        .iter()
        .map(|task| &task.id)
        .find(|id| taken.tasks.contains(id.as_str()) || !own.insert(*id))
        .cloned()
}

fn repeated_group(submission: &Submission, taken: &Taken) -> Option<GroupId> {
    let mut own = HashSet::with_capacity(submission.groups.len());
    let mut groups = submission.groups.iter().map(|group| &group.id);
    groups.find(|id| taken.groups.contains(id.as_str()) || !own.insert(*id)).cloned()
}

fn take(submission: &Submission, taken: &mut Taken) {
    taken.tasks.extend(submission.tasks.iter().map(|task| task.id.as_str().to_owned()));
    taken.groups.extend(submission.groups.iter().map(|group| group.id.as_str().to_owned()));
    if let Some(key) = &submission.idempotency {
        let answer = (key.fingerprint.clone(), key.answer.get().to_owned());
        taken.idempotency.insert((key.scope.clone(), key.key.clone()), answer);
    }
    for limit in submission.tasks.iter().flat_map(NewTask::refusing) {
        if let Some(state) = taken.keys.get_mut(&limit.key) {
            state.waiting += 1;
        }
    }
    if let Some(key) = &submission.unique {
        taken.unique.insert(key.key.clone(), key.task_id.as_str().to_owned());
    }
}
