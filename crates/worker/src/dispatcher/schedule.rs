//! The tasks that wait for their time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use jiff::Timestamp;

use super::Key;

/// Tasks that wait for their time do not count as prefetched, up to this many (kombu's bound).
const HELD: usize = 65_535;

#[derive(Default)]
pub(super) struct Schedule(BinaryHeap<Reverse<(Timestamp, Key)>>);

impl Schedule {
    /// Returns whether the task still counts as prefetched, because too many wait.
    pub fn add(&mut self, eta: Timestamp, key: Key) -> bool {
        self.0.push(Reverse((eta, key)));
        self.0.len() > HELD
    }

    /// The time of the next task.
    pub fn next(&self) -> Option<Timestamp> {
        self.0.peek().map(|Reverse((eta, _))| *eta)
    }

    /// Takes out a task whose time has come.
    pub fn due(&mut self, now: Timestamp) -> Option<Key> {
        let Reverse((eta, key)) = *self.0.peek()?;
        (eta <= now).then(|| {
            self.0.pop();
            key
        })
    }

    /// Removes the tasks that are not here any more.
    pub fn keep(&mut self, is_here: impl Fn(Key) -> bool) {
        self.0.retain(|Reverse((_, key))| is_here(*key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn tasks_are_due_in_the_order_of_their_times() {
        let mut schedule = Schedule::default();
        for (second, key) in [(3, 1), (1, 2), (2, 3)] {
            assert!(!schedule.add(at(second), key));
        }
        assert_eq!(schedule.next(), Some(at(1)));
        assert_eq!([schedule.due(at(2)), schedule.due(at(2)), schedule.due(at(2))], [Some(2), Some(3), None]);
        assert_eq!(schedule.due(at(3)), Some(1));
    }

    #[test]
    fn what_the_broker_took_back_again_and_again_fills_nothing() {
        let mut schedule = Schedule::default();
        for key in 0..200_000 {
            assert!(!schedule.add(at(1), key), "delivery {key} of the same message");
            schedule.keep(|_| false);
        }
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn beyond_the_bound_a_task_counts_as_prefetched() {
        let mut schedule = Schedule::default();
        assert!((0..HELD as Key).all(|key| !schedule.add(at(1), key)));
        assert!(schedule.add(at(1), 0));
    }
}
