//! Remembers news that was committed without waiting for the disk, as long as a crash of PostgreSQL may undo it.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use celery::task::Phase;
use ledger::{News, Source};

/// Three times `wal_writer_delay` (0.2 s by default), and some more until the crash is noticed.
const KEPT: Duration = Duration::from_secs(2);
/// Maximum number of remembered news, the newest: a third of a second of the fastest feed, some 30 MB.
const CAPACITY: usize = 16_384;

/// Received and started tasks. Progress reports cannot be repeated late, because their order would be lost, and ends wait for the disk.
#[derive(Default)]
pub struct Unsure(VecDeque<(Instant, News)>);

impl Unsure {
    pub fn keep(&mut self, now: Instant, written: Vec<News>) {
        while self.0.front().is_some_and(|(at, _)| now.duration_since(*at) > KEPT) {
            self.0.pop_front();
        }
        let may_be_late =
            |report: &News| report.source == Source::Event && matches!(report.phase, Phase::Received | Phase::Running);
        self.put_back(now, written.into_iter().filter(may_be_late).collect());
    }

    pub fn put_back(&mut self, now: Instant, news: Vec<News>) {
        self.0.extend(news.into_iter().map(|report| (now, report)));
        self.0.drain(..self.0.len().saturating_sub(CAPACITY));
    }

    /// Returns the news in order, marked as late.
    pub fn take(&mut self) -> Vec<News> {
        self.0.drain(..).map(|(_, report)| News { late: true, ..report }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use celery::task::TaskId;
    use runtime::clock::Time;

    fn news(id: &str, phase: Phase) -> News {
        News::new(TaskId::parse(id).unwrap(), Source::Event, phase, Time(0))
    }

    fn ids(unsure: &mut Unsure) -> Vec<String> {
        unsure.take().into_iter().filter(|report| report.late).map(|report| report.task_id.to_string()).collect()
    }

    #[test]
    fn announcements_and_starts_are_kept_for_a_moment() {
        let (mut unsure, begin) = (Unsure::default(), Instant::now());
        unsure.keep(begin, vec![news("old", Phase::Received)]);
        let later = begin + KEPT + Duration::from_millis(1);
        let report = News { source: Source::Result, ..news("report", Phase::Running) };
        unsure.keep(later, vec![news("a", Phase::Received), report, news("b", Phase::Running)]);
        unsure.keep(later + KEPT, vec![news("c", Phase::Retrying), news("d", Phase::Received)]);
        assert_eq!(ids(&mut unsure), ["a", "b", "d"]);
        assert!(ids(&mut unsure).is_empty());
    }

    #[test]
    fn of_too_many_the_newest_are_kept() {
        let mut unsure = Unsure::default();
        unsure.keep(Instant::now(), vec![news("first", Phase::Received)]);
        unsure.keep(Instant::now(), vec![news("next", Phase::Received); CAPACITY]);
        assert_eq!(ids(&mut unsure), vec!["next"; CAPACITY]);
    }
}
