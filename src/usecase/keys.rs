//! Keys of limits: lists, changes, pauses and resets them by hand, and drops older waiting tasks for newer ones.
//!
//! A limit set by hand overrides those of submissions and the catalog, for all tasks of the key that have not started.

use std::collections::HashSet;

use tracing::{info, warn};

use super::Gateway;
use super::revoke::end_revoked;
use super::submit::SubmitRequest;
use crate::guard::namespace;
use crate::guard::tokens::Visibility;
use celery::task::TaskId;
use celery::task::limit::{KeyLimit, OnLimit};
use ledger::{Error, Inserted, KeyState, News, Rule, Source, Submission, Way};
use runtime::clock;

/// The most tasks that are dropped for a newer one. Only after an outage do so many wait.
const MOST_DROPPED: i64 = 1_000;

impl Gateway {
    /// Keys after this one, only of the caller's namespace and without its prefix.
    pub async fn limit_keys(
        &self,
        namespace: Option<&str>,
        after: &str,
        limit: i64,
    ) -> Result<(Vec<KeyState>, Option<String>), Error> {
        let prefix = namespace.map(namespace::prefix).unwrap_or_default();
        let after = if after.is_empty() { String::new() } else { namespace::key(namespace, after) };
        let mut states = self.ledger.keys(&prefix, &after, limit.saturating_add(1)).await?;
        let has_more = states.len() as i64 > limit;
        states.truncate(usize::try_from(limit).unwrap_or_default());
        let states: Vec<KeyState> = states.into_iter().filter_map(|state| named(state, namespace)).collect();
        let next = states.last().filter(|_| has_more).map(|state| state.key.clone());
        Ok((states, next))
    }

    /// Sets the limits of a key, whatever its tasks say. Returns the key's state.
    pub async fn set_limit(&self, namespace: Option<&str>, word: &str, rule: &Rule) -> Result<KeyState, Error> {
        let key = namespace::key(namespace, word);
        let _announcing = self.hub.announcing();
        self.ledger.set_rule(&key, rule, clock::now()).await?;
        info!("the limit of {key} was changed by hand");
        self.relay.nudge();
        let state = self.ledger.key(&key).await?;
        Ok(KeyState { key: word.to_owned(), ..state })
    }

    /// Resets a key: the limits of its tasks apply again, and the rate starts afresh. Unfinished tasks still count.
    pub async fn reset_limit(&self, namespace: Option<&str>, word: &str) -> Result<bool, Error> {
        let _announcing = self.hub.announcing();
        let is_reset = self.ledger.reset_key(&namespace::key(namespace, word)).await?;
        self.relay.nudge();
        Ok(is_reset)
    }

    /// Revokes tasks that waited before these, for keys where only the newest task may wait.
    pub(crate) async fn drop_older(&self, dropping: &Dropping, inserted: &Inserted) {
        let Some(first) = inserted.task_nos.first().filter(|_| !dropping.is_empty()) else { return };
        // The newer task is accepted. Older tasks that cannot be dropped now are dropped at the next submission.
        if let Err(error) = self.try_drop(dropping, *first).await {
            warn!(error = %error, "tasks that wait at a key were not dropped for a newer one: {error}");
        }
    }

    async fn try_drop(&self, dropping: &Dropping, first: i64) -> Result<(), Error> {
        let mut older = self.ledger.waiting_before(&dropping.keys, first, MOST_DROPPED).await?;
        if dropping.caller.is_limited() {
            // Tokens of one namespace share keys, but not all of them see every task.
            let tasks = self.ledger.tasks_by_id(&older).await?;
            let seen: HashSet<TaskId> =
                tasks.into_iter().filter(|task| dropping.caller.sees_task(task)).map(|task| task.id).collect();
            older.retain(|id| seen.contains(id));
        }
        for id in older {
            end_revoked(self, &id, dropped(&id)).await?;
        }
        Ok(())
    }
}

fn dropped(id: &TaskId) -> News {
    let reason = "a newer task of its key took its place".to_owned();
    News { reason: Some(reason), ..News::new(id.clone(), Source::Ledger, celery::task::Phase::Revoked, clock::now()) }
}

fn named(state: KeyState, namespace: Option<&str>) -> Option<KeyState> {
    let key = namespace::word(namespace, &state.key)?.to_owned();
    Some(KeyState { key, ..state })
}

/// Who must see the tasks that a submission drops: everything may be dropped if the catalog names the key.
pub(crate) fn caller(request: &SubmitRequest) -> Visibility {
    if request.trusted { Visibility::default() } else { request.visibility.clone() }
}

/// Keys of a submission at which only the newest task may wait, and whose tasks it may drop.
pub(crate) struct Dropping {
    keys: Vec<String>,
    caller: Visibility,
}

impl Dropping {
    pub fn of(submission: &Submission, caller: Visibility) -> Self {
        let limits = submission.tasks.iter().flat_map(|task| match &task.way {
            Way::Gate(limits) => limits.as_slice(),
            Way::Direct | Way::Pass | Way::Line { .. } => &[],
        });
        let mut keys: Vec<String> = limits
            .filter(|limit: &&KeyLimit| limit.on_limit == OnLimit::DropOldest)
            .map(|limit| limit.key.clone())
            .collect();
        keys.sort_unstable();
        keys.dedup();
        Self { keys, caller }
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}
