//! Ids of tasks whose final results were announced lately, whoever sent the tasks.
//!
//! The recorder records the tasks that the ledger knows. Workers that send no events are recognized only some time after they start, and
//! until then their tasks are known by nothing but their results; so the recorder remembers these for the adopter. Bounded: the oldest
//! ids are dropped.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use celery::task::TaskId;

/// The most ids; about two megabytes.
const MOST: usize = 16_384;
/// Longer than it takes to recognize a worker that sends no events.
const KEPT: Duration = Duration::from_secs(120);

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Ended(Arc<Mutex<VecDeque<(Instant, TaskId)>>>);

impl Ended {
    pub(super) fn note(&self, id: TaskId) {
        let now = Instant::now();
        let mut ids = self.0.lock().expect("nothing panics under this lock");
        while ids.len() >= MOST || ids.front().is_some_and(|(at, _)| now.duration_since(*at) > KEPT) {
            ids.pop_front();
        }
        ids.push_back((now, id));
    }

    /// Takes all ids out, the oldest first.
    pub fn take(&self) -> Vec<TaskId> {
        let mut ids = self.0.lock().expect("nothing panics under this lock");
        let all = std::mem::take(&mut *ids);
        all.into_iter().filter(|(at, _)| at.elapsed() <= KEPT).map(|(_, id)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> TaskId {
        TaskId::parse(format!("t{number}")).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_old_or_too_much_is_forgotten_the_oldest_first() {
        let ended = Ended::default();
        ended.note(id(0));
        tokio::time::advance(KEPT + Duration::from_secs(1)).await;
        (1..=MOST + 1).for_each(|number| ended.note(id(number)));
        let taken = ended.take();
        assert_eq!((taken.len(), &taken[0], taken.last()), (MOST, &id(2), Some(&id(MOST + 1))));
        assert!(ended.take().is_empty(), "each id is taken once");
    }
}
