//! Counts the attempts of tasks that are retried.
//!
//! Celery numbers only `received`. Starts and retries have no number, and a busy worker may report that the next attempt was received, even
//! that it started, before it reports the retry of the last one. So retries are counted, and the number of `received` tells whether one is
//! missing. A start or an end of the next attempt proves the missing retry: it is told first, and its own event and record then say nothing new.
//!
//! Each retry has an event and a record, which arrive in any order, or not at all. Those that are still to come are counted, too.
//!
//! Bounded; it forgets everything when it is full. Then a late retry is counted for the attempt that runs.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::pending::{REMEMBERED, Recent};
use celery::task::TaskId;

/// For so long after a gap, the announcement of an attempt does not prove that the retry before it is still to come, unless the attempt
/// before was heard of after the gap, too.
const UNSURE: Duration = Duration::from_mins(1);

/// From what a retry is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    Event,
    Record,
    Both,
    /// The start or the end of the next attempt.
    Successor,
}

#[derive(Default)]
pub struct Attempts {
    tasks: HashMap<TaskId, Attempt>,
    unsure_until: Option<Instant>,
    /// Tasks of which workers told after the gap.
    heard: Recent,
}

#[derive(Default)]
struct Attempt {
    /// How many retries were told.
    told: i32,
    /// The highest number of a `received` event.
    announced: i32,
    /// How many events of told retries are still to come.
    events: u32,
    /// The same for their records.
    records: u32,
    /// Whether the last record was that of a retry.
    is_last: bool,
    /// Whether earlier events may have been missed.
    is_unsure: bool,
}

impl Attempt {
    fn next_to_end(&self) -> Option<i32> {
        (self.announced > 0).then_some(self.told)
    }
}

impl Attempts {
    /// Notes that messages may have been missed.
    pub fn doubt(&mut self) {
        self.unsure_until = Some(Instant::now() + UNSURE);
        self.heard = Recent::default();
    }

    /// A worker received this attempt; 0 is the first.
    pub fn announce(&mut self, id: &TaskId, retries: i32) {
        let is_soon = self.unsure_until.is_some_and(|until| Instant::now() < until);
        let is_unsure = is_soon && !self.heard.contains(id);
        if is_soon {
            self.heard.remember(id.clone());
        }
        if retries < 1 {
            return;
        }
        if !self.tasks.contains_key(id) {
            let attempt = Attempt { told: retries - 1, is_unsure, ..Attempt::default() };
            self.insert(id.clone(), attempt);
        }
        let attempt = self.tasks.get_mut(id).expect("it was inserted above");
        if attempt.told < retries - 1 {
            attempt.told = retries;
        }
        attempt.announced = attempt.announced.max(retries);
    }

    /// Counts a retry that is being told. Returns its attempt if that is known.
    pub fn tell(&mut self, id: &TaskId, proof: Proof) -> Option<i32> {
        if !self.tasks.contains_key(id) {
            self.insert(id.clone(), Attempt::default());
        }
        let attempt = self.tasks.get_mut(id).expect("it was inserted above");
        let number = attempt.next_to_end();
        attempt.told += 1;
        attempt.events += u32::from(matches!(proof, Proof::Record | Proof::Successor));
        attempt.records += u32::from(matches!(proof, Proof::Event | Proof::Successor));
        attempt.is_last = matches!(proof, Proof::Record | Proof::Both);
        number
    }

    /// The attempt that the next retry ends, if it is known.
    pub fn next_to_end(&self, id: &TaskId) -> Option<i32> {
        self.tasks.get(id)?.next_to_end()
    }

    /// Whether the event of a retry says nothing new.
    pub fn takes_event(&mut self, id: &TaskId) -> bool {
        let events = self.tasks.get_mut(id).map(|attempt| &mut attempt.events);
        events.is_some_and(count_down)
    }

    /// Whether the record of a retry says nothing new.
    pub fn takes_record(&mut self, id: &TaskId) -> bool {
        let Some(attempt) = self.tasks.get_mut(id) else { return false };
        let is_known = count_down(&mut attempt.records);
        attempt.is_last |= is_known;
        is_known
    }

    /// Whether a start or an end proves a retry that was not told yet.
    pub fn is_retry_untold(&self, id: &TaskId) -> bool {
        self.tasks.get(id).is_some_and(|attempt| !attempt.is_unsure && attempt.told < attempt.announced)
    }

    /// Whether a start belongs to an attempt that is over, because its retry was told before.
    pub fn is_behind(&self, id: &TaskId) -> bool {
        self.tasks.get(id).is_some_and(|attempt| attempt.events > 0)
    }

    /// Whether the last record of the task was that of a retry.
    pub fn is_record_of_retry_last(&self, id: &TaskId) -> bool {
        self.tasks.get(id).is_some_and(|attempt| attempt.is_last)
    }

    /// Another record than that of a retry arrived.
    pub fn note_record(&mut self, id: &TaskId) {
        if let Some(attempt) = self.tasks.get_mut(id) {
            attempt.is_last = false;
        }
    }

    pub fn forget(&mut self, id: &TaskId) {
        self.tasks.remove(id);
    }

    fn insert(&mut self, id: TaskId, attempt: Attempt) {
        if self.tasks.len() >= REMEMBERED {
            self.tasks.clear();
        }
        self.tasks.insert(id, attempt);
    }
}

fn count_down(count: &mut u32) -> bool {
    let is_due = *count > 0;
    *count -= u32::from(is_due);
    is_due
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> TaskId {
        TaskId::parse("t").unwrap()
    }

    #[test]
    fn a_retry_has_the_number_of_the_attempt_that_it_ends() {
        let mut attempts = Attempts::default();
        assert_eq!(
            attempts.tell(&id(), Proof::Both),
            None,
            "no announcement was heard, so it is the attempt that runs"
        );
        attempts.announce(&id(), 1);
        assert!(!attempts.is_retry_untold(&id()));
        attempts.announce(&id(), 2);
        assert!(attempts.is_retry_untold(&id()));
        assert_eq!(attempts.tell(&id(), Proof::Successor), Some(1));
        assert!(attempts.takes_event(&id()) && attempts.takes_record(&id()));
        assert!(!attempts.takes_event(&id()) && !attempts.takes_record(&id()));
    }

    #[test]
    fn what_was_missed_is_not_made_up() {
        let mut attempts = Attempts::default();
        attempts.doubt();
        attempts.announce(&id(), 3);
        assert!(!attempts.is_retry_untold(&id()), "its retry may have been told before the gap");
        assert_eq!(attempts.tell(&id(), Proof::Event), Some(2));
        attempts.forget(&id());
        attempts.announce(&id(), 4);
        assert!(attempts.is_retry_untold(&id()), "the attempt before was heard of after the gap");
    }

    #[test]
    fn an_announcement_that_is_further_on_counts() {
        let mut attempts = Attempts::default();
        attempts.tell(&id(), Proof::Both);
        attempts.announce(&id(), 4);
        assert!(!attempts.is_retry_untold(&id()));
        assert_eq!(attempts.tell(&id(), Proof::Both), Some(4));
    }
}
