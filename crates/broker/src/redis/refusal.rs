//! Remembers lists that must not be published to, and why: the key has another type, the queue's name is a key of the fleet, or the
//! fleet's workers do not read the list.
//!
//! A refused message stays in the ledger's outbox. A wrong key is tried again after a while, because it may be removed at any time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::Keys;
use celery::Transport;
use celery::task::{Priority, QueueName, pause};

/// How long a wrong key is not tried again.
pub const RETRY_REFUSED: Duration = Duration::from_secs(5);
/// Maximum number of remembered wrong keys.
const MOST: usize = 1_000;

/// Cheap to clone; clones share their state.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// By list: the reason, and until when it is not tried again.
    wrong: BTreeMap<String, (String, Instant)>,
    /// The options of the fleet's workers, if they differ from ours.
    theirs: Option<Transport>,
}

impl Refusals {
    /// Why nothing may be published to this queue now.
    pub fn of(&self, keys: &Keys, queue: &QueueName, priority: Priority) -> Option<String> {
        // Clients cannot use the queue of waiting steps, so only the gateway publishes to it.
        let reserved = queue.reserved().filter(|_| !pause::is_held_here(Some(queue.as_str())));
        if let Some(why) = reserved.map(str::to_owned).or_else(|| keys.transport().refuses(queue.as_str())) {
            return Some(format!("the queue's name {queue} {why}"));
        }
        let list = keys.queue(queue.as_str(), priority);
        let state = self.state();
        if let Some((why, until)) = state.wrong.get(&list)
            && *until > Instant::now()
        {
            return Some(why.clone());
        }
        let theirs = state.theirs.as_ref()?.list(queue.as_str(), priority);
        let ours = keys.transport().list(queue.as_str(), priority);
        (theirs != ours).then(|| {
            let steps = "priority_steps and sep under [broker] are not the fleet's";
            format!("its list would be {ours:?}, and the workers read {theirs:?}: {steps}; run taskgate check")
        })
    }

    /// Records that this key is not a list.
    pub fn note(&self, list: &str) -> String {
        let why = wrong_type(list);
        let mut state = self.state();
        let until = Instant::now() + RETRY_REFUSED;
        if state.wrong.len() < MOST || state.wrong.contains_key(list) {
            state.wrong.insert(list.to_owned(), (why.clone(), until));
        }
        why
    }

    /// Records the fleet's options if they differ from ours; `None` when they are the same.
    pub fn note_theirs(&self, theirs: Option<Transport>) {
        self.state().theirs = theirs;
    }

    /// The fleet's options, if they differ from ours.
    pub fn theirs(&self) -> Option<Transport> {
        self.state().theirs.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics under this lock")
    }
}

/// The problem with a key that should be a list.
pub(super) fn wrong_type(list: &str) -> String {
    format!("the Redis key {list:?} should be a list of messages and holds something else; rename or remove it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> QueueName {
        QueueName::parse(name).unwrap()
    }

    #[test]
    fn what_the_fleet_reads_elsewhere_is_refused_and_the_rest_is_not() {
        let (keys, refusals) = (Keys::new(Transport::default(), 0), Refusals::default());
        let priority = |value| Priority::clamped(value);
        assert_eq!(refusals.of(&keys, &queue("q"), priority(5)), None);
        let tens = Transport { priority_steps: (0..10).collect(), sep: ":".into(), ..Transport::default() };
        refusals.note_theirs(Some(tens));
        assert_eq!(refusals.of(&keys, &queue("q"), priority(0)), None);
        assert!(refusals.of(&keys, &queue("q"), priority(5)).is_some_and(|why| why.contains("\"q:5\"")));
        refusals.note_theirs(None);
        assert_eq!(refusals.of(&keys, &queue("q"), priority(5)), None);
    }

    #[test]
    fn a_wrong_key_is_refused_for_a_while_and_other_lists_are_not() {
        let (keys, refusals) = (Keys::new(Transport::default(), 0), Refusals::default());
        assert!(refusals.note("q").contains("\"q\""));
        assert!(refusals.of(&keys, &queue("q"), Priority::default()).is_some());
        assert_eq!(refusals.of(&keys, &queue("q"), Priority::clamped(9)), None);
        assert_eq!(refusals.of(&keys, &queue("other"), Priority::default()), None);
    }
}
