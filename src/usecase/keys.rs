//! Keys of limits: listed, changed, paused and reset by hand; and the tasks that make room for newer ones.
//!
//! What is said by hand stands above what submissions and the catalog say, for all tasks of the key that have not started.

use tracing::{info, warn};

use super::Gateway;
use super::revoke::end_revoked;
use crate::guard::namespace;
use celery::task::TaskId;
use celery::task::limit::{KeyLimit, OnLimit};
use ledger::{Error, Inserted, KeyState, News, Rule, Source, Submission, Way};
use runtime::clock;

/// Tasks that make room for one newer one. The line has as many only after an outage.
const MOST_DROPPED: i64 = 1_000;

impl Gateway {
    /// Keys after this one, of the caller's namespace only, as the caller writes them.
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

    /// From now on this holds for the key, whatever its tasks say. Answers how it stands.
    pub async fn set_limit(&self, namespace: Option<&str>, word: &str, rule: &Rule) -> Result<KeyState, Error> {
        let key = namespace::key(namespace, word);
        self.ledger.set_rule(&key, rule, clock::now()).await?;
        info!("the limit of {key} was changed by hand");
        self.relay.nudge();
        let state = self.ledger.key(&key).await?;
        Ok(KeyState { key: word.to_owned(), ..state })
    }

    /// What the tasks say holds again, and the rate begins anew. Those that are under way go on counting.
    pub async fn reset_limit(&self, namespace: Option<&str>, word: &str) -> Result<bool, Error> {
        let is_reset = self.ledger.reset_key(&namespace::key(namespace, word)).await?;
        self.relay.nudge();
        Ok(is_reset)
    }

    /// Revokes those that waited before these tasks at keys where only the newest may wait.
    pub(crate) async fn drop_older(&self, dropping: &[String], inserted: &Inserted) {
        let Some(first) = inserted.task_nos.first().filter(|_| !dropping.is_empty()) else { return };
        // The newer task is accepted. Older ones that cannot be dropped now are dropped for the next one.
        if let Err(error) = self.try_drop(dropping, *first).await {
            warn!(error = %error, "tasks that wait at a key were not dropped for a newer one: {error}");
        }
    }

    async fn try_drop(&self, dropping: &[String], first: i64) -> Result<(), Error> {
        for id in self.ledger.waiting_before(dropping, first, MOST_DROPPED).await? {
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

/// Keys of a submission at which only the newest may wait.
pub(crate) fn dropping(submission: &Submission) -> Vec<String> {
    let limits = submission.tasks.iter().flat_map(|task| match &task.way {
        Way::Gate(limits) => limits.as_slice(),
        Way::Direct | Way::Pass | Way::Line { .. } => &[],
    });
    let mut keys: Vec<String> =
        limits.filter(|one: &&KeyLimit| one.on_limit == OnLimit::DropOldest).map(|one| one.key.clone()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}
