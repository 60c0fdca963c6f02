//! Decides when to ask workers to send task events: most run without `-E`, and a worker that starts later has missed earlier requests.
//!
//! A worker that just came online does not listen to requests yet, but will some milliseconds later; nothing tells when. So it is
//! asked at once, again soon, and once more at its next heartbeat. Asking a worker that sends events already does no harm.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use celery::event::{Event, Kind, WorkerNews};

/// Delays of the requests after a worker came online.
const AGAIN: [Duration; 3] = [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(300)];
/// How many names are remembered; in a larger fleet each further worker causes another request.
const REMEMBERED: usize = 10_000;
/// How many requests are planned at a time: workers that start together are asked by the same broadcasts.
const PLANNED: usize = 8;

/// The workers that were asked, and the times of further requests.
#[derive(Default)]
pub struct Asking {
    due: Vec<Instant>,
    asked: HashSet<String>,
}

impl Asking {
    /// Handles an event of a worker about itself.
    pub fn hear(&mut self, event: &Event, now: Instant) {
        let Kind::Worker { news, .. } = &event.kind else { return };
        if *news == WorkerNews::Online {
            self.asked.remove(&event.hostname);
            self.plan(AGAIN.iter().map(|pause| now + *pause));
        } else if *news == WorkerNews::Heartbeat && !self.asked.contains(&event.hostname) {
            if self.asked.len() >= REMEMBERED {
                self.asked.clear();
            }
            self.asked.insert(event.hostname.clone());
            self.plan([now]);
        }
    }

    /// The next request's time.
    pub fn next(&self) -> Option<Instant> {
        self.due.iter().min().copied()
    }

    /// Whether to ask now.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let before = self.due.len();
        self.due.retain(|time| *time > now);
        self.due.len() < before
    }

    fn plan(&mut self, times: impl IntoIterator<Item = Instant>) {
        let room = PLANNED.saturating_sub(self.due.len());
        self.due.extend(times.into_iter().take(room));
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use celery::event::WorkerState;

    fn event(news: WorkerNews) -> Event {
        let kind = Kind::Worker { news, state: WorkerState::default() };
        Event { hostname: "w1".into(), pid: None, clock: 0, utcoffset: 0.0, timestamp: Timestamp::UNIX_EPOCH, kind }
    }

    #[test]
    fn a_new_worker_is_asked_until_it_listens_and_an_old_one_is_left_alone() {
        let (mut asking, now) = (Asking::default(), Instant::now());
        asking.hear(&event(WorkerNews::Online), now);
        assert!(asking.is_due(now), "at once");
        assert_eq!(asking.next(), Some(now + AGAIN[1]), "and soon again");
        assert!(asking.is_due(now + AGAIN[2]));
        asking.hear(&event(WorkerNews::Heartbeat), now);
        assert!(asking.is_due(now), "and with its first heartbeat");
        asking.hear(&event(WorkerNews::Heartbeat), now);
        assert!(!asking.is_due(now), "and no more");
        assert_eq!(asking.next(), None);
    }
}
