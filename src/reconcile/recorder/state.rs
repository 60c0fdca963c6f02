//! What the recorder remembers between messages: uncertain ends, and recent ends.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::asking::Asking;
use super::attempts::{Attempts, Proof};
use super::pending::{Pending, Recent};
use super::unsure::Unsure;
use super::{event, record};
use celery::event::{Event, Kind, TaskNews};
use celery::result::ResultMeta;
use celery::task::{Phase, TaskId};
use ledger::{News, Source};
use runtime::clock;

/// An unconfirmed FAILURE or REVOKED counts as the end after this time.
const DOUBT: Duration = Duration::from_secs(10);
/// How long to wait for the record after the event of the same end.
const RECORD_PATIENCE: Duration = Duration::from_millis(250);

/// How often the registry is told that a worker sends task events: its successor may send none.
const TELLER: Duration = Duration::from_secs(5);
/// Maximum number of remembered workers.
const TELLERS: usize = 10_000;

/// The recorder's state between batches. It is lost with the process; records are then read again.
#[derive(Default)]
pub struct State {
    pub pending: Pending,
    pub asking: Asking,
    pub unsure: Unsure,
    /// When to read records again that could not be read after a gap.
    pub catch_up_at: Option<Instant>,
    /// No record comes by itself: that of an end is looked up at once.
    looks_up: bool,
    recent: Recent,
    /// Workers that send task events, and when the registry was last told.
    tellers: HashMap<String, Instant>,
    attempts: Attempts,
}

impl State {
    pub fn new(looks_up: bool) -> Self {
        let mut state = Self { looks_up, ..Self::default() };
        state.note_gap();
        state
    }

    /// Messages may have been missed.
    pub fn note_gap(&mut self) {
        self.attempts.doubt();
    }

    pub fn hear_record(&mut self, id: TaskId, record: ResultMeta, news: &mut Vec<News>) {
        let mut told = self.pending.withdraw(&id);
        if let Some(retry) = told.take_if(|told| told.phase == Phase::Retrying) {
            news.push(self.retry_by_record(retry));
        }
        let now = clock::now();
        news.extend(record::reject_before(&id, &record, now));
        match record::read(id.clone(), record, now) {
            // Only the order of events tells which attempt it was; the record has more details.
            record::Said::Now(report) if report.phase == Phase::Retrying => {
                if !self.attempts.takes_record(&id) {
                    // Two retries in a row: the attempt between them has run, and its events are still to come.
                    let is_next = self.attempts.is_record_of_retry_last(&id);
                    let retries = self.attempts.next_to_end(&id);
                    let between = || News { retries, ..News::new(id, Source::Result, Phase::Running, report.at) };
                    news.extend(is_next.then(between));
                    news.extend(self.pending.hold(*report, RECORD_PATIENCE));
                }
            }
            record::Said::Now(mut report) => {
                let is_end = report.phase.is_final();
                if is_end && self.attempts.is_retry_untold(&id) {
                    // The retry was not stored, because the next attempt had ended by then.
                    news.push(self.retry_by_successor(&report));
                }
                if is_end {
                    self.attempts.forget(&id)
                } else {
                    self.attempts.note_record(&id)
                }
                // Only the event may name the worker.
                let teller = told.as_ref().filter(|told| told.source == Source::Event && is_end);
                report.worker = report.worker.or_else(|| teller?.worker.clone());
                news.push(*report);
                // The event came first: its facts (run time, worker) are still useful.
                news.extend(told.filter(|told| told.source == Source::Event && is_end));
                if is_end {
                    self.recent.remember(id);
                }
            }
            record::Said::Unless { first, end } => {
                news.extend(first.map(|first| *first));
                news.extend(self.pending.hold(*end, DOUBT));
            }
        }
    }

    /// Whether the registry needs this event: events about workers themselves, and occasionally a task event.
    pub fn is_of_a_worker(&mut self, event: &Event) -> bool {
        match &event.kind {
            Kind::Worker { .. } => true,
            Kind::Task { news: TaskNews::Sent(_), .. } | Kind::Other { .. } => false,
            Kind::Task { .. } => {
                let now = Instant::now();
                if self.tellers.get(&event.hostname).is_some_and(|at| now.duration_since(*at) < TELLER) {
                    return false;
                }
                if self.tellers.len() >= TELLERS {
                    self.tellers.clear();
                }
                self.tellers.insert(event.hostname.clone(), now);
                true
            }
        }
    }

    pub fn hear_event(&mut self, event: Event, news: &mut Vec<News>) {
        self.asking.hear(&event, Instant::now());
        match event::read(event) {
            event::Said::Now(report) if report.phase == Phase::Retrying => {
                let is_over = self.recent.contains(&report.task_id);
                if !is_over && !self.attempts.takes_event(&report.task_id) {
                    news.push(self.retry_by_event(*report));
                }
            }
            event::Said::Now(mut report) => {
                if report.phase == Phase::Received {
                    self.attempts.announce(&report.task_id, report.retries.unwrap_or(0));
                }
                let is_start = report.phase == Phase::Running && report.status.is_none();
                if is_start && self.attempts.is_retry_untold(&report.task_id) {
                    news.push(self.retry_by_successor(&report));
                } else if report.phase == Phase::Running && self.attempts.is_behind(&report.task_id) {
                    // The start of an attempt that is over: only its time counts; the next attempt has not begun.
                    report.retries = Some(0);
                }
                let is_retry = self.pending.get(&report.task_id).is_some_and(|held| held.phase == Phase::Retrying);
                if report.phase.is_final() || (report.phase == Phase::Received && !is_retry) {
                    self.pending.withdraw(&report.task_id);
                }
                news.push(*report);
            }
            event::Said::End(report) if self.recent.contains(&report.task_id) => news.push(*report),
            event::Said::End(report) => self.end_by_event(*report, news),
            event::Said::Nothing => {}
        }
    }

    /// The uncertain ends whose wait is over. A retry among them is recorded without its event.
    pub fn due(&mut self, now: Instant) -> Vec<News> {
        let due = self.pending.due(now);
        due.into_iter().map(|held| self.told_alone(held)).collect()
    }

    fn told_alone(&mut self, held: News) -> News {
        if held.phase == Phase::Retrying {
            return self.retry_by_record(held);
        }
        self.attempts.forget(&held.task_id);
        held
    }

    fn retry_by_record(&mut self, retry: News) -> News {
        News { retries: self.attempts.tell(&retry.task_id, Proof::Record), ..retry }
    }

    /// The retry that a start or an end of the next attempt proves, with the words of its record if that is here.
    fn retry_by_successor(&mut self, next: &News) -> News {
        let id = &next.task_id;
        let is_held = self.pending.get(id).is_some_and(|held| held.phase == Phase::Retrying);
        let held = if is_held { self.pending.withdraw(id) } else { None };
        let proof = if held.is_some() { Proof::Record } else { Proof::Successor };
        let retries = self.attempts.tell(id, proof);
        let retry = held.unwrap_or_else(|| News::new(id.clone(), Source::Event, Phase::Retrying, next.at));
        News { retries, ..retry }
    }

    /// A record may arrive before the first event of a task that another client sent. The ledger does not know that task yet and does not
    /// accept its end; so the id is removed from the recent ends, and the event of the end will wait for its record again.
    pub fn note_untaken(&mut self, told: &[News], taken: &[ledger::Event]) {
        let is_end = |report: &&News| report.source == Source::Result && report.phase.is_final();
        if !told.iter().any(|report| is_end(&report)) {
            return;
        }
        let taken: HashSet<&TaskId> =
            taken.iter().filter(|event| event.phase.is_final()).map(|event| &event.task_id).collect();
        for report in told.iter().filter(is_end).filter(|report| !taken.contains(&report.task_id)) {
            self.recent.forget(&report.task_id);
        }
    }

    /// Combines the event's attempt with the record's details.
    fn retry_by_event(&mut self, report: News) -> News {
        match self.pending.withdraw(&report.task_id) {
            Some(record) if record.phase == Phase::Retrying => {
                let retries = self.attempts.tell(&report.task_id, Proof::Both);
                News {
                    retries,
                    failure: record.failure,
                    traceback: record.traceback,
                    children: record.children,
                    ..report
                }
            }
            _ => News { retries: self.attempts.tell(&report.task_id, Proof::Event), ..report },
        }
    }

    /// Handles an end from an event: it confirms a FAILURE that the task had set itself; otherwise it waits a moment for the record.
    fn end_by_event(&mut self, report: News, news: &mut Vec<News>) {
        let mut held = self.pending.withdraw(&report.task_id);
        if let Some(retry) = held.take_if(|held| held.phase == Phase::Retrying) {
            news.push(self.retry_by_record(retry));
        }
        match held {
            Some(doubtful) if doubtful.source == Source::Result && doubtful.phase == Phase::Failed => {
                self.attempts.forget(&report.task_id);
                news.push(doubtful);
                news.push(report);
            }
            _ => {
                let patience = if self.looks_up { Duration::ZERO } else { RECORD_PATIENCE };
                news.extend(self.pending.hold(report, patience));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use celery::event::Call;
    use celery::task::json::verbatim;
    use ledger::sample_task;

    fn id() -> TaskId {
        TaskId::parse("t").unwrap()
    }

    fn record(status: &str) -> ResultMeta {
        let error = r#"{"exc_type": "ValueError", "exc_message": ["boom"], "exc_module": "builtins"}"#;
        ResultMeta::new(id(), status, verbatim(error.to_owned()).unwrap())
    }

    fn event(news: TaskNews) -> Event {
        super::event::sample(id(), jiff::Timestamp::UNIX_EPOCH, news)
    }

    /// The event that the ledger returns for accepted news.
    fn told(report: &News) -> ledger::Event {
        ledger::Event::of(&sample_task(report.task_id.as_str(), report.phase, report.at), report.at)
    }

    fn retried() -> Event {
        event(TaskNews::Retried { exception: "ValueError('event')".into(), traceback: None })
    }

    fn phases(news: &[News]) -> Vec<Phase> {
        news.iter().map(|report| report.phase).collect()
    }

    #[test]
    fn a_retry_has_the_event_s_place_and_the_record_s_words() {
        let (mut state, mut news) = (State::default(), Vec::new());
        state.hear_record(id(), record("RETRY"), &mut news);
        assert!(news.is_empty(), "the record waits for its event");
        state.hear_event(event(TaskNews::Received(Box::new(Call { retries: 1, ..Call::default() }))), &mut news);
        state.hear_event(retried(), &mut news);
        assert_eq!(phases(&news), [Phase::Received, Phase::Retrying]);
        assert_eq!(news[1].failure.as_ref().unwrap().message, "boom");
    }

    #[test]
    fn a_retry_s_record_that_comes_after_its_event_says_nothing_new() {
        let (mut state, mut news) = (State::default(), Vec::new());
        state.hear_event(retried(), &mut news);
        state.hear_record(id(), record("RETRY"), &mut news);
        assert_eq!(phases(&news), [Phase::Retrying]);
        assert_eq!(state.pending.next_deadline(), None);
    }

    fn steps(news: &[News]) -> Vec<(Phase, Option<i32>)> {
        news.iter().map(|report| (report.phase, report.retries)).collect()
    }

    #[test]
    fn attempts_are_counted_once_when_their_events_come_behind_their_records() {
        let received = |retries| event(TaskNews::Received(Box::new(Call { retries, ..Call::default() })));
        let (mut state, mut news) = (State::default(), Vec::new());
        state.hear_event(received(0), &mut news);
        state.hear_record(id(), record("RETRY"), &mut news);
        news.extend(state.due(Instant::now() + DOUBT));
        state.hear_record(id(), record("RETRY"), &mut news);
        news.extend(state.due(Instant::now() + DOUBT));
        for late in [event(TaskNews::Started), received(1), retried(), event(TaskNews::Started), received(2), retried()]
        {
            state.hear_event(late, &mut news);
        }
        state.hear_event(event(TaskNews::Started), &mut news);
        // A start with `Some(0)` only has a time; a start without a number begins the next attempt.
        let expected = [
            (Phase::Received, Some(0)),
            (Phase::Retrying, None),
            (Phase::Running, None),
            (Phase::Retrying, None),
            (Phase::Running, Some(0)),
            (Phase::Received, Some(1)),
            (Phase::Running, Some(0)),
            (Phase::Received, Some(2)),
            (Phase::Running, None),
        ];
        assert_eq!(steps(&news), expected);
        assert!(!state.attempts.is_behind(&id()));
    }

    #[test]
    fn a_retry_is_told_before_the_next_attempt_begins_and_once() {
        let received = |retries| event(TaskNews::Received(Box::new(Call { retries, ..Call::default() })));
        let started = || event(TaskNews::Started);
        let (mut state, mut news) = (State::default(), Vec::new());
        for heard in [received(0), started(), received(1), started(), retried(), received(2), retried(), started()] {
            state.hear_event(heard, &mut news);
        }
        state.hear_record(id(), record("RETRY"), &mut news);
        state.hear_record(id(), record("RETRY"), &mut news);
        news.extend(state.due(Instant::now() + DOUBT));
        let expected = [
            (Phase::Received, Some(0)),
            (Phase::Running, None),
            (Phase::Received, Some(1)),
            (Phase::Retrying, Some(0)),
            (Phase::Running, None),
            (Phase::Received, Some(2)),
            (Phase::Retrying, Some(1)),
            (Phase::Running, None),
        ];
        assert_eq!(steps(&news), expected);
    }

    #[test]
    fn an_end_keeps_the_retry_whose_event_is_late() {
        let (mut state, mut news) = (State::default(), Vec::new());
        state.hear_record(id(), record("RETRY"), &mut news);
        state.hear_event(event(TaskNews::Succeeded { result: None, runtime: Some(0.1) }), &mut news);
        state.hear_record(id(), record("SUCCESS"), &mut news);
        assert_eq!(phases(&news), [Phase::Retrying, Phase::Succeeded, Phase::Succeeded]);
    }

    #[test]
    fn the_end_counts_the_attempts_whose_events_are_behind() {
        let (mut state, mut news) = (State::default(), Vec::new());
        state.hear_record(id(), record("RETRY"), &mut news);
        state.hear_record(id(), record("RETRY"), &mut news);
        state.hear_record(id(), record("SUCCESS"), &mut news);
        assert_eq!(phases(&news), [Phase::Retrying, Phase::Running, Phase::Retrying, Phase::Succeeded]);
        assert!(!state.attempts.is_behind(&id()));
    }

    #[test]
    fn an_end_that_the_ledger_did_not_take_is_told_with_its_record_again() {
        for taken in [true, false] {
            let (mut state, mut news) = (State::default(), Vec::new());
            state.hear_record(id(), record("SUCCESS"), &mut news);
            let events: Vec<_> = news.iter().filter(|_| taken).map(told).collect();
            state.note_untaken(&news, &events);
            news.clear();
            let end = TaskNews::Succeeded { result: None, runtime: Some(0.1) };
            state.hear_event(event(end), &mut news);
            assert_eq!((news.len(), state.pending.get(&id()).is_some()), (usize::from(taken), !taken));
        }
    }

    #[test]
    fn without_its_event_a_retry_is_heard_before_what_follows_it() {
        let (mut state, mut news) = (State::default(), Vec::new());
        state.hear_record(id(), record("RETRY"), &mut news);
        state.hear_record(id(), record("PROGRESS"), &mut news);
        assert_eq!(phases(&news), [Phase::Retrying, Phase::Running]);
    }
}
