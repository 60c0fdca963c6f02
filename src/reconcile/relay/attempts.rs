//! Publications whose outcome is unknown to the ledger: an answer got lost, or recording it failed.
//!
//! Their rows stay in the outbox, and their markers prevent a second publication, unless Redis has lost its data in between: then a
//! worker may already have the first message. That cannot be known, so the history says that the task was queued again.
//!
//! This is kept in this process's memory only. If it dies at that moment too, the replica that publishes the task suspects it: the task
//! was accepted for the direct path before the loss, and is not recorded as published (see [`super::lives`]).

use std::collections::HashMap;

use super::lives::Lives;
use celery::task::TaskId;
use ledger::Outgoing;
use runtime::clock::{self, Time};

/// The reason in a task's history.
const AGAIN: &str = "Redis lost its data before it was known whether its message was there: it was queued again";
/// Maximum number of remembered attempts; beyond it the entry may be missing in histories.
const CAPACITY: usize = 20_000;

/// The reason for brokers without markers.
const PERHAPS_AGAIN: &str =
    "it was not known whether its message had gone out: it was published, perhaps for the second time";
/// In data that is lost; its name is not known.
const LOST: &str = "";

/// Open attempts, with the incarnation of Redis's data in which they were made.
pub(super) struct Attempts {
    /// Whether the broker refuses duplicates by markers, so that only a loss of its data makes a second publication possible.
    marked: bool,
    lives: Lives,
    /// Tasks that are being pushed right now.
    underway: Vec<TaskId>,
    /// Tasks that are in Redis but not yet recorded as published.
    pushed: Vec<TaskId>,
    open: HashMap<TaskId, Option<String>>,
}

impl Attempts {
    pub fn new(marked: bool) -> Self {
        let lives = Lives::new(clock::now());
        Self { marked, lives, underway: Vec::new(), pushed: Vec::new(), open: HashMap::new() }
    }

    /// The reason for the tasks that [`Attempts::close`] returns.
    pub fn word(&self) -> &'static str {
        if self.marked { AGAIN } else { PERHAPS_AGAIN }
    }

    /// Adds tasks that a dead process may have published.
    pub fn suspect(&mut self, ids: Vec<TaskId>) {
        self.remember(ids);
    }

    /// Adds rows that a replica may have pushed into data that Redis has lost since. Returns those that were not known as attempts.
    pub fn suspect_left_behind(&mut self, rows: &[&Outgoing]) -> Vec<TaskId> {
        let lost = |row: &&&Outgoing| self.lives.may_have_lost(row.accepted_at) && !self.open.contains_key(&row.id);
        let room = CAPACITY.saturating_sub(self.open.len());
        let lost: Vec<TaskId> = rows.iter().filter(lost).map(|row| row.id.clone()).take(room).collect();
        self.open.extend(lost.iter().map(|id| (id.clone(), Some(LOST.to_owned()))));
        lost
    }

    /// Records the present incarnation of Redis's data.
    pub fn see(&mut self, life: String, now: Time) {
        self.lives.see(life, now);
    }

    pub fn has_seen_life(&self) -> bool {
        self.lives.present().is_some()
    }

    /// Marks these as being pushed.
    pub fn begin(&mut self, rows: &[Outgoing]) {
        self.underway = rows.iter().map(|row| row.id.clone()).collect();
    }

    /// The pushes in progress are recorded, or certainly not in Redis.
    pub fn end(&mut self) {
        self.underway.clear();
    }

    /// The pushes in progress are in Redis.
    pub fn pushed(&mut self) {
        self.pushed.append(&mut self.underway);
    }

    /// The pushed tasks are recorded as published.
    pub fn written(&mut self) {
        self.pushed.clear();
    }

    /// The outcome of the pushes in progress is unknown.
    pub fn keep(&mut self) {
        let unknown = std::mem::take(&mut self.underway);
        self.remember(unknown);
    }

    /// The pushed tasks could not be recorded as published.
    pub fn keep_pushed(&mut self) {
        let unwritten = std::mem::take(&mut self.pushed);
        self.remember(unwritten);
    }

    /// Remembers attempts. Only the first attempt of a task counts: later ones were refused by the marker, or are the second publication.
    fn remember(&mut self, ids: Vec<TaskId>) {
        let room = CAPACITY.saturating_sub(self.open.len());
        for id in ids.into_iter().take(room) {
            self.open.entry(id).or_insert_with(|| self.lives.present().map(str::to_owned));
        }
    }

    pub fn is_full(&self) -> bool {
        self.open.len() >= CAPACITY
    }

    pub fn ids(&self) -> Vec<TaskId> {
        self.open.keys().cloned().collect()
    }

    /// Those of the tasks that have left the outbox that may have been published twice.
    pub fn twice(&self, ids: &[TaskId]) -> Vec<TaskId> {
        let again = |id: &TaskId| match self.open.get(id) {
            Some(Some(life)) => !self.marked || self.lives.present() != Some(life),
            Some(None) => !self.marked,
            None => false,
        };
        ids.iter().filter(|id| again(id)).cloned().collect()
    }

    /// Forgets tasks whose outcome is known, and in their histories.
    pub fn close(&mut self, ids: &[TaskId]) {
        for id in ids {
            self.open.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::direct::sample;

    #[test]
    fn without_markers_whatever_was_open_may_be_there_twice() {
        let mut attempts = Attempts::new(false);
        try_one(&mut attempts, "unknown");
        attempts.suspect(vec![TaskId::parse("left").unwrap()]);
        let mut ids = attempts.ids();
        ids.sort();
        assert_eq!(attempts.twice(&ids), ids);
        assert_ne!(attempts.word(), Attempts::new(true).word());
    }

    fn try_one(attempts: &mut Attempts, id: &str) {
        attempts.begin(&[sample(id)]);
        attempts.keep();
    }

    #[test]
    fn what_was_tried_before_redis_lost_its_data_may_be_there_twice() {
        let mut attempts = Attempts::new(true);
        try_one(&mut attempts, "unknown");
        attempts.see("first".to_owned(), Time(1));
        try_one(&mut attempts, "early");
        attempts.see("second".to_owned(), Time(2));
        try_one(&mut attempts, "early");
        try_one(&mut attempts, "late");
        let mut ids = attempts.ids();
        ids.sort();
        assert_eq!(ids.iter().map(TaskId::as_str).collect::<Vec<_>>(), ["early", "late", "unknown"]);
        assert_eq!(attempts.twice(&ids), ids[..1]);
        assert_eq!(attempts.twice(&ids), ids[..1], "it is said again until the history has it");
        attempts.close(&ids);
        assert_eq!(attempts.ids(), []);
    }

    #[test]
    fn what_another_replica_left_behind_before_the_loss_may_be_there_twice() {
        let mut attempts = Attempts::new(true);
        let left = |id: &str, at: i64| Outgoing { accepted_at: Time(at), ..sample(id) };
        let (before, after, known) = (left("before", 1_000), left("after", 9_000_000), left("known", 1_000));
        attempts.see("first".to_owned(), Time(5_000));
        let suspects = |attempts: &mut Attempts| attempts.suspect_left_behind(&[&before, &after, &known]);
        assert_eq!(suspects(&mut attempts), [], "nothing is lost");
        try_one(&mut attempts, "known");
        attempts.see("second".to_owned(), Time(9_500_000));
        assert_eq!(suspects(&mut attempts), std::slice::from_ref(&before.id));
        assert_eq!(suspects(&mut attempts), [], "it is known by now");
        let ids = [before.id.clone(), after.id.clone(), known.id.clone()];
        assert_eq!(attempts.twice(&ids), [before.id.clone(), known.id.clone()]);
    }

    #[test]
    fn what_was_written_down_is_not_remembered() {
        let mut attempts = Attempts::new(true);
        attempts.begin(&[sample("written")]);
        attempts.pushed();
        attempts.begin(&[sample("refused")]);
        attempts.end();
        attempts.written();
        attempts.keep();
        attempts.keep_pushed();
        assert_eq!(attempts.ids(), []);
    }

    #[test]
    fn what_waits_to_be_written_down_is_not_mixed_with_what_is_pushed_now() {
        let mut attempts = Attempts::new(true);
        attempts.begin(&[sample("waits")]);
        attempts.pushed();
        attempts.begin(&[sample("unknown")]);
        attempts.keep();
        assert_eq!(attempts.ids().iter().map(TaskId::as_str).collect::<Vec<_>>(), ["unknown"]);
        attempts.keep_pushed();
        assert_eq!(attempts.ids().len(), 2);
    }
}
