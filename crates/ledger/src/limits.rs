//! Queries about limits and lines, and rules for keys that are set by hand.
//!
//! A rule set by hand overrides the limits of submissions and the catalog until it is reset.

use async_trait::async_trait;
use std::collections::HashMap;

use celery::task::TaskId;
use celery::task::limit::{KeyLimit, Rate};
use runtime::clock::Time;

use super::Error;
use super::rate_gates::AtGate;

/// Tasks of a key are counted up to this number.
pub const COUNTED: i64 = 10_000;
/// A task that could start within this time is not refused.
const SOON: i64 = 20_000;

/// A rule for a key, set by hand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    pub max: Option<u32>,
    pub rate: Option<Rate>,
    /// Whether no task of the key may start.
    pub paused: bool,
}

/// Rules by key.
pub(super) type Rules = HashMap<String, Rule>;

impl Rule {
    /// The effective limit: the rule's values replace the task's.
    pub(super) fn over(&self, limit: &KeyLimit) -> KeyLimit {
        let max = if self.paused { Some(0) } else { self.max.or(limit.max) };
        KeyLimit { max, rate: self.rate.clone().or_else(|| limit.rate.clone()), ..limit.clone() }
    }
}

/// The state of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyState {
    pub key: String,
    /// The rule set by hand, and since when.
    pub rule: Option<(Rule, Time)>,
    /// The maximum according to its tasks: those under way, or the first that waits.
    pub max: Option<u32>,
    /// The shortest interval between two starts in microseconds, according to its tasks.
    pub interval: Option<i64>,
    /// Tasks that were published and have not ended.
    pub under_way: i64,
    /// Tasks that wait for it, up to [`COUNTED`].
    pub waiting: i64,
    /// When the rate lets the next task start.
    pub opens_at: Option<Time>,
}

impl KeyState {
    /// `None` if another task of the key may start at once; else how long that task should wait, in microseconds.
    pub(super) fn refuses(&self, limit: &KeyLimit, now: Time) -> Option<i64> {
        const SECOND: i64 = 1_000_000;
        let rule = self.rule.as_ref().map(|(rule, _)| rule);
        if rule.is_some_and(|rule| rule.paused) {
            return Some(60 * SECOND);
        }
        let limit = rule.map_or_else(|| limit.clone(), |rule| rule.over(limit));
        if limit.max.is_some_and(|max| self.under_way + self.waiting >= i64::from(max)) {
            return Some(SECOND);
        }
        let interval = limit.rate.as_ref()?.interval_micros();
        let opens = self.opens_at.map_or(0, |at| at.0).max(now.0);
        let permitted = opens.saturating_add(interval.saturating_mul(self.waiting));
        (permitted > now.0 + SOON).then(|| permitted - now.0)
    }
}

/// The position of a task that waits only for room in its queue's window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InLine {
    pub queue: String,
    /// The number of tasks before it, counted up to [`COUNTED`]. With fair sharing: tasks of its own key.
    pub ahead: i64,
    /// Messages of the queue that no worker has received yet.
    pub in_broker: i64,
    /// Its fair-share key; empty without one.
    pub share: String,
}

/// Limits by key, and the lines in which tasks wait for room in their queues.
#[async_trait]
pub trait Limits: Send + Sync {
    /// The gate that holds a task of the outbox back.
    async fn at_gate(&self, task_no: i64) -> Result<Option<AtGate>, Error>;

    /// The line in which a task waits for room in its queue.
    async fn in_line(&self, task_no: i64) -> Result<Option<InLine>, Error>;

    /// Keys that begin with `prefix` and come after `after`, in order: keys with rules, and keys of tasks that wait or are under way.
    async fn keys(&self, prefix: &str, after: &str, limit: i64) -> Result<Vec<KeyState>, Error>;

    /// The state of a key, also of an unknown one.
    async fn key(&self, key: &str) -> Result<KeyState, Error>;

    /// Sets the rule of a key.
    async fn set_rule(&self, key: &str, rule: &Rule, at: Time) -> Result<(), Error>;

    /// Removes the rule of a key, and the time at which its rate opens. False when there was neither.
    async fn reset_key(&self, key: &str) -> Result<bool, Error>;

    /// Tasks that wait at these keys' gates and were accepted before this one, oldest first.
    async fn waiting_before(&self, keys: &[String], task_no: i64, limit: i64) -> Result<Vec<TaskId>, Error>;
}

/// The two gates of a key, by name.
pub(super) const KEY: &str = "key ";
pub(super) const PACE: &str = "pace ";

/// The range of gates of one kind whose keys begin with `prefix` and come after `after`; both ends are exclusive.
pub(super) fn range(kind: &str, prefix: &str, after: &str) -> (String, String) {
    (format!("{kind}{}", prefix.max(after)), format!("{kind}{prefix}{}", char::MAX))
}

/// Merges keys from several sources and returns the first `limit`.
pub(super) fn merged(found: Vec<String>, limit: i64) -> Vec<String> {
    let key = |gate: &String| gate.strip_prefix(KEY).or_else(|| gate.strip_prefix(PACE)).map(str::to_owned);
    let mut keys: Vec<String> = found.iter().filter_map(key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.truncate(usize::try_from(limit).unwrap_or_default());
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn limit(max: Option<u32>, rate: Option<&str>) -> KeyLimit {
        KeyLimit { max, rate: rate.map(|rate| Rate::parse(rate).unwrap()), ..KeyLimit::at_most("k", 1) }
    }

    #[test]
    fn what_could_not_start_at_once_is_refused_and_told_when() {
        let now = Time(100 * SECOND);
        let free = KeyState::default();
        assert_eq!(free.refuses(&limit(Some(1), Some("1/m")), now), None);
        let busy = KeyState { under_way: 1, ..KeyState::default() };
        assert_eq!(busy.refuses(&limit(Some(1), None), now), Some(SECOND));
        assert_eq!(busy.refuses(&limit(Some(2), None), now), None);
        let spent = KeyState { opens_at: Some(Time(130 * SECOND)), ..KeyState::default() };
        assert_eq!(spent.refuses(&limit(None, Some("1/m")), now), Some(30 * SECOND));
        let line = KeyState { waiting: 1, ..KeyState::default() };
        assert_eq!(line.refuses(&limit(None, Some("1/m")), now), Some(60 * SECOND));
        assert_eq!(line.refuses(&limit(None, Some("100/s")), now), None, "in ten milliseconds");
    }

    #[test]
    fn what_is_said_by_hand_stands_above_what_tasks_say() {
        let rule = |rule: Rule| Some((rule, Time(0)));
        let wider =
            KeyState { under_way: 1, rule: rule(Rule { max: Some(2), ..Rule::default() }), ..KeyState::default() };
        assert_eq!(wider.refuses(&limit(Some(1), None), Time(0)), None);
        let paused = KeyState { rule: rule(Rule { paused: true, ..Rule::default() }), ..KeyState::default() };
        assert!(paused.refuses(&limit(Some(9), None), Time(0)).is_some());
    }

    #[test]
    fn a_page_of_keys_begins_after_the_last_one_and_stays_in_its_namespace() {
        assert_eq!(range(KEY, "", ""), ("key ".to_owned(), format!("key {}", char::MAX)));
        assert_eq!(range(PACE, "@a/", "@a/k").0, "pace @a/k");
        let found = ["key b", "pace a", "pace b", "other", "key c"].map(str::to_owned).to_vec();
        assert_eq!(merged(found, 2), ["a", "b"]);
    }
}
