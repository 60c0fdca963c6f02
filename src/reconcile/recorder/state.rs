//! What the recorder remembers from one word to the next: ends in doubt, and ends just heard.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::asking::Asking;
use super::pending::{Pending, Recent};
use super::unsure::Unsure;
use super::{event, record};
use celery::event::{Event, Kind, TaskNews};
use celery::result::ResultMeta;
use celery::task::{Phase, TaskId};
use ledger::{News, Source};
use runtime::clock;

/// A FAILURE or REVOKED that nothing else confirms is the end after this.
const DOUBT: Duration = Duration::from_secs(10);
/// How long the record may arrive after the event that tells the same end.
const RECORD_PATIENCE: Duration = Duration::from_millis(250);

/// That a worker tells of its tasks is passed on this often: the one after it may not.
const TELLER: Duration = Duration::from_secs(5);
/// Workers remembered.
const TELLERS: usize = 10_000;

/// What the recorder remembers between batches. Lost with the process; the records are read again then.
#[derive(Default)]
pub struct State {
    pub pending: Pending,
    pub asking: Asking,
    pub unsure: Unsure,
    /// Records are to be read again then: they could not be read after a gap.
    pub catch_up_at: Option<Instant>,
    recent: Recent,
    /// Workers that were heard to tell of their tasks; they are told of once in a while.
    tellers: HashMap<String, Instant>,
    /// Retries whose event was heard and whose record was not.
    retried: Recent,
}

impl State {
    pub fn hear_record(&mut self, id: TaskId, record: ResultMeta, news: &mut Vec<News>) {
        let mut told = self.pending.withdraw(&id);
        news.extend(told.take_if(|told| told.phase == Phase::Retrying));
        match record::read(id.clone(), record, clock::now()) {
            // Only the events' order tells which attempt it was; the record has the better words.
            record::Said::Now(one) if one.phase == Phase::Retrying => {
                if !self.retried.forget(&id) {
                    news.extend(self.pending.hold(*one, RECORD_PATIENCE));
                }
            }
            record::Said::Now(mut one) => {
                let is_end = one.phase.is_final();
                // Whose end it is only the event may say.
                let teller = told.as_ref().filter(|told| told.source == Source::Event && is_end);
                one.worker = one.worker.or_else(|| teller?.worker.clone());
                news.push(*one);
                // The event came first: its facts (run time, worker) are still good.
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

    /// What the registry of workers wants to hear: their own words, and now and then that they tell of their tasks.
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
            event::Said::Now(one) if one.phase == Phase::Retrying => news.push(self.retry_by_event(*one)),
            event::Said::Now(one) => {
                let is_retry = self.pending.get(&one.task_id).is_some_and(|held| held.phase == Phase::Retrying);
                if one.phase.is_final() || (one.phase == Phase::Received && !is_retry) {
                    self.pending.withdraw(&one.task_id);
                }
                news.push(*one);
            }
            event::Said::End(one) if self.recent.contains(&one.task_id) => news.push(*one),
            event::Said::End(one) => self.end_by_event(*one, news),
            event::Said::Nothing => {}
        }
    }

    /// A record may overtake the first word of a task that others sent. The ledger does not know that task yet and takes no end of
    /// it, so the event that tells the end must not come alone.
    pub fn note_untaken(&mut self, told: &[News], taken: &[ledger::Event]) {
        let is_end = |one: &&News| one.source == Source::Result && one.phase.is_final();
        if !told.iter().any(|one| is_end(&one)) {
            return;
        }
        let taken: HashSet<&TaskId> =
            taken.iter().filter(|event| event.phase.is_final()).map(|event| &event.task_id).collect();
        for one in told.iter().filter(is_end).filter(|one| !taken.contains(&one.task_id)) {
            self.recent.forget(&one.task_id);
        }
    }

    /// The event's place and the record's words.
    fn retry_by_event(&mut self, one: News) -> News {
        match self.pending.withdraw(&one.task_id) {
            Some(record) if record.phase == Phase::Retrying => {
                News { failure: record.failure, traceback: record.traceback, children: record.children, ..one }
            }
            _ => {
                self.retried.remember(one.task_id.clone());
                one
            }
        }
    }

    /// A FAILURE that the task had set itself is confirmed by the event; else the record has a moment to arrive.
    fn end_by_event(&mut self, one: News, news: &mut Vec<News>) {
        match self.pending.withdraw(&one.task_id) {
            Some(doubtful) if doubtful.source == Source::Result && doubtful.phase == Phase::Failed => {
                news.push(doubtful);
                news.push(one);
            }
            _ => news.extend(self.pending.hold(one, RECORD_PATIENCE)),
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

    /// As the ledger tells what it took.
    fn told(one: &News) -> ledger::Event {
        ledger::Event::of(&sample_task(one.task_id.as_str(), one.phase, one.at), one.at)
    }

    fn retried() -> Event {
        event(TaskNews::Retried { exception: "ValueError('event')".into(), traceback: None })
    }

    fn phases(news: &[News]) -> Vec<Phase> {
        news.iter().map(|one| one.phase).collect()
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
