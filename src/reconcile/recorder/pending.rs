//! Uncertain ends: they become news when nothing better arrives in time.
//!
//! Bounded: when it is full, the oldest end becomes news at once. That may be too early, but a later real end corrects it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use celery::task::TaskId;
use ledger::News;

/// Maximum number of uncertain ends, which only an attack would reach.
const CAPACITY: usize = 100_000;
/// How many ids of read records are remembered while their events may still arrive: some seconds of the fastest feed.
pub const REMEMBERED: usize = 65_536;

/// Uncertain ends by task.
#[derive(Default)]
pub struct Pending {
    ends: HashMap<TaskId, (Instant, News)>,
    /// Deadlines in order; entries of withdrawn ends are skipped.
    order: VecDeque<(Instant, TaskId)>,
}

impl Pending {
    /// Adds an uncertain end, replacing an earlier one. Returns an end that had to make room.
    pub fn hold(&mut self, news: News, patience: Duration) -> Option<News> {
        let deadline = Instant::now() + patience;
        let id = news.task_id.clone();
        self.ends.insert(id.clone(), (deadline, news));
        let place = self.order.partition_point(|(other, _)| *other <= deadline);
        self.order.insert(place, (deadline, id));
        if self.ends.len() > CAPACITY { self.pop() } else { None }
    }

    /// Removes the end of this task because something else arrived.
    pub fn withdraw(&mut self, id: &TaskId) -> Option<News> {
        self.ends.remove(id).map(|(_, news)| news)
    }

    pub fn get(&self, id: &TaskId) -> Option<&News> {
        self.ends.get(id).map(|(_, news)| news)
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.order.front().map(|(deadline, _)| *deadline)
    }

    /// The ends whose wait is over.
    pub fn due(&mut self, now: Instant) -> Vec<News> {
        let mut due = Vec::new();
        while self.order.front().is_some_and(|(deadline, _)| *deadline <= now) {
            due.extend(self.pop());
        }
        due
    }

    fn pop(&mut self) -> Option<News> {
        let (deadline, id) = self.order.pop_front()?;
        let is_current = self.ends.get(&id).is_some_and(|(current, _)| *current == deadline);
        if is_current { self.withdraw(&id) } else { None }
    }
}

/// The latest tasks whose records contained the end.
#[derive(Default)]
pub struct Recent {
    ids: HashSet<TaskId>,
    order: VecDeque<TaskId>,
}

impl Recent {
    pub fn remember(&mut self, id: TaskId) {
        if !self.ids.insert(id.clone()) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    pub fn contains(&self, id: &TaskId) -> bool {
        self.ids.contains(id)
    }

    /// Removes an id; returns whether it was there.
    pub fn forget(&mut self, id: &TaskId) -> bool {
        self.ids.remove(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use celery::task::Phase;
    use ledger::Source;
    use runtime::clock::Time;

    fn news(id: &str) -> News {
        News::new(TaskId::parse(id).unwrap(), Source::Event, Phase::Succeeded, Time(0))
    }

    #[test]
    fn an_end_in_doubt_becomes_news_when_nothing_better_is_heard() {
        let mut pending = Pending::default();
        pending.hold(news("slow"), Duration::from_secs(10));
        pending.hold(news("quick"), Duration::from_secs(1));
        pending.hold(news("heard"), Duration::from_secs(1));
        pending.withdraw(&TaskId::parse("heard").unwrap());
        let ids = |due: Vec<News>| due.into_iter().map(|report| report.task_id.to_string()).collect::<Vec<_>>();
        assert_eq!(ids(pending.due(Instant::now() + Duration::from_secs(2))), ["quick"]);
        assert_eq!(ids(pending.due(Instant::now() + Duration::from_secs(20))), ["slow"]);
        assert_eq!(pending.next_deadline(), None);
    }

    #[test]
    fn a_second_doubt_replaces_the_first() {
        let mut pending = Pending::default();
        pending.hold(news("a"), Duration::from_secs(1));
        pending.hold(news("a"), Duration::from_secs(5));
        assert!(pending.due(Instant::now() + Duration::from_secs(2)).is_empty());
        assert_eq!(pending.due(Instant::now() + Duration::from_secs(6)).len(), 1);
    }
}
