//! Whether news changes a task, and into what: the one rule, pure, for both adapters.

use std::time::Duration;

use celery::task::{Phase, Position};
use runtime::clock::Time;

use super::types::{News, Source, Task};

/// What news does to a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// A step forward: gets the next `seq` and an event.
    Change(Change),
    /// A delivery after the end: the task stays as it is, its history says what happened.
    Remark(&'static str),
    /// Too late for a step, but it knows facts the row lacks: written without a `seq`.
    Facts(Facts),
    /// Late, repeated or impossible.
    Drop,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub position: Position,
    pub status: String,
    /// A given-up task whose real end came.
    pub corrected: bool,
    pub facts: Facts,
    /// Why, where the news itself does not say.
    pub reason: Option<&'static str>,
}

/// Columns that are filled when they are null.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    pub received_at: Option<Time>,
    pub started_at: Option<Time>,
    pub worker: Option<String>,
    pub runtime: Option<f64>,
}

impl Facts {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What the history says of a message that a worker took although another had it: its reservation had run out, or its worker gave
/// it back.
pub const REDELIVERED: &str = "the broker delivered it again";
/// The same, of a task that has ended.
pub const DUPLICATE: &str = "a worker took a message of it after its end: it runs twice";

/// The same, of a task whose end was told by a worker that was not heard to have it.
pub const ENDED_ELSEWHERE: &str = "another worker than the one that had it told its end: the broker delivered it again";

/// Of a step of a canvas that stands in its queue.
pub const SENT_BY_WORKER: &str = "a worker sent it";
/// Of a message that is reserved although nobody was heard to take it.
pub const UNHEARD: &str = "a worker took its message and was not heard of since";
/// The same, of a message that had been reserved before.
pub const UNHEARD_AGAIN: &str = "the broker delivered it again, and the worker that took it was not heard";
/// Who announces what it reserved does so at once, by the same clock: what is announced so much later is another delivery.
pub const ANNOUNCED: Duration = Duration::from_secs(2);

/// Decides. The caller holds the row's lock.
pub fn apply(task: &Task, news: &News) -> Verdict {
    if news.if_seq.is_some_and(|seq| seq != task.seq) {
        return Verdict::Drop;
    }
    if news.late && !may_be_late(task, news) {
        return Verdict::Drop;
    }
    if is_received_after_its_end(task, news) {
        return Verdict::Remark(DUPLICATE);
    }
    if is_end_told_elsewhere(task, news) {
        return Verdict::Remark(ENDED_ELSEWHERE);
    }
    if is_taken_again_before_its_end(task, news) || is_marked_afterwards(task, news) {
        return Verdict::Remark(REDELIVERED);
    }
    let position = place(task, news);
    let facts = facts(task, news, position.delivery > task.delivery);
    let is_forward =
        task.position().allows(position) || is_retry_behind_its_successor(task, news) || is_replaced_now(task, news);
    let is_forward = is_forward && !is_start_behind_its_report(task, news, position);
    if !is_forward || (task.corrected && task.phase.is_final()) {
        return late(facts);
    }
    Verdict::Change(Change {
        position,
        status: news.status.clone().unwrap_or_else(|| news.phase.status().to_owned()),
        corrected: task.corrected || (task.phase.is_final() && task.position().is_corrected_by(news.phase)),
        facts,
        reason: (position.delivery > task.delivery).then_some(REDELIVERED),
    })
}

fn late(facts: Facts) -> Verdict {
    if facts.is_empty() { Verdict::Drop } else { Verdict::Facts(facts) }
}

/// Which delivery and attempt the news speaks of.
fn place(task: &Task, news: &News) -> Position {
    let again = i32::from(is_received_again(task, news) || (news.redelivered && is_untold(task)));
    let delivery = news.delivery.unwrap_or(task.delivery + again);
    let retries = match (news.retries, news.phase) {
        (Some(retries), _) => retries,
        (None, Phase::Retrying) if is_retry_behind_its_successor(task, news) => task.retries - 1,
        // What runs or ends after a retry is the next attempt.
        (None, Phase::Running | Phase::Succeeded | Phase::Failed) if task.phase == Phase::Retrying => task.retries + 1,
        (None, _) => task.retries,
    };
    Position { delivery, retries, phase: news.phase }
}

/// Celery announces the next attempt as received (and then holds it until its time) before it says that the present one is
/// to be retried. Until the next one starts, `retrying` is where the task is.
fn is_retry_behind_its_successor(task: &Task, news: &News) -> bool {
    news.phase == Phase::Retrying && news.retries.is_none() && task.phase == Phase::Received && task.retries > 0
}

/// It was found to have replaced itself: it waits once more, for what it sent in its place.
fn is_replaced_now(task: &Task, news: &News) -> bool {
    news.source == Source::Ledger && news.phase == Phase::Waiting && news.if_seq.is_some() && task.phase.is_at_worker()
}

/// The pool reports by itself; that it has begun is said by the worker's main process, often later. A report says more.
fn is_start_behind_its_report(task: &Task, news: &News, position: Position) -> bool {
    let is_start = news.source == Source::Event && news.phase == Phase::Running && news.status.is_none();
    let has_reported = task.phase == Phase::Running && task.status != Phase::Running.status();
    is_start && has_reported && position == task.position()
}

/// A worker announces each message once. A second announcement of the same attempt is a second delivery; the same one heard twice
/// has the same time, and after a retry (whose first time is not kept) at least the same worker.
fn is_received_again(task: &Task, news: &News) -> bool {
    let same_attempt = news.retries.unwrap_or(0) == task.retries && is_same_call(task, news);
    let is_other = news.worker != task.worker || task.retries == 0;
    let slack = if task.worker.is_none() { ANNOUNCED } else { Duration::ZERO };
    let is_later = task.received_at.is_some_and(|at| news.at > at.plus(slack));
    let is_taken = matches!(task.phase, Phase::Received | Phase::Running) && is_later;
    is_taken && ((is_announcement(news) && same_attempt && is_other) || is_start_elsewhere(task, news))
}

/// Whether the mark on its message says more than its history: nobody was heard to have it before it went back.
pub fn is_untold(task: &Task) -> bool {
    match task.phase {
        Phase::Accepted | Phase::Waiting | Phase::Queued => {
            matches!(task.reason.as_deref(), None | Some(SENT_BY_WORKER))
        }
        _ => is_unheard(task) && task.reason.as_deref() == Some(UNHEARD),
    }
}

/// Whether its message is known to be reserved, and by whom is not.
pub fn is_unheard(task: &Task) -> bool {
    let is_noted = matches!(task.reason.as_deref(), Some(UNHEARD | UNHEARD_AGAIN));
    task.phase == Phase::Received && task.worker.is_none() && is_noted
}

/// What a recorder heard and could not write before its successor came, which may have heard it too. Reports and retries have a
/// place among others, and a start that is known says nothing new.
fn may_be_late(task: &Task, news: &News) -> bool {
    match news.phase {
        Phase::Running => {
            news.source == Source::Event && (task.phase.rank() < news.phase.rank() || is_elsewhere(task, news))
        }
        Phase::Retrying => false,
        Phase::Received => task.reason.as_deref() != Some(DUPLICATE) && !is_of_an_earlier_delivery(task, news),
        _ => true,
    }
}

/// It was queued again after that.
fn is_of_an_earlier_delivery(task: &Task, news: &News) -> bool {
    let is_waiting = task.phase.is_ours() || task.phase == Phase::Queued;
    task.delivery > 1 && is_waiting && task.queued_at.is_none_or(|at| news.at < at)
}

/// The announcement was lost, the start or the end was not.
fn is_start_elsewhere(task: &Task, news: &News) -> bool {
    news.source != Source::Ledger
        && matches!(news.phase, Phase::Running | Phase::Succeeded | Phase::Failed)
        && is_elsewhere(task, news)
}

fn is_elsewhere(task: &Task, news: &News) -> bool {
    news.worker.is_some() && task.worker.is_some() && news.worker != task.worker
}

/// The record was here first and does not say whose it is; the event does. Once is enough, and who took it after its end is known.
fn is_end_told_elsewhere(task: &Task, news: &News) -> bool {
    let ended = |phase: Phase| matches!(phase, Phase::Succeeded | Phase::Failed);
    news.source == Source::Event
        && ended(news.phase)
        && ended(task.phase)
        && is_elsewhere(task, news)
        && !is_told_again(task)
}

/// The start of a short task may well be told after its end; its announcement comes before it is begun.
fn is_received_after_its_end(task: &Task, news: &News) -> bool {
    let ran = matches!(task.phase, Phase::Succeeded | Phase::Failed);
    is_announcement(news) && ran && is_same_call(task, news) && task.finished_at.is_some_and(|at| news.at > at)
}

/// The end was heard first, and ends a later delivery than the one that is known. Only first attempts: the times of others are not
/// kept.
fn is_taken_again_before_its_end(task: &Task, news: &News) -> bool {
    let ran = matches!(task.phase, Phase::Succeeded | Phase::Failed);
    let is_first_attempt = task.retries == 0 && news.retries.unwrap_or(0) == 0;
    let is_later = task.received_at.is_some_and(|at| news.at > at.plus(ANNOUNCED));
    is_announcement(news) && ran && is_first_attempt && is_same_call(task, news) && is_later && !is_told_again(task)
}

/// The announcement is known, that its message was on its second way is not.
fn is_marked_afterwards(task: &Task, news: &News) -> bool {
    let is_known = task.received_at == Some(news.at) && task.delivery == 1 && task.retries == 0;
    is_announcement(news) && news.redelivered && is_known && !is_told_again(task)
}

/// Whether the last word of its history is that it was delivered again.
fn is_told_again(task: &Task) -> bool {
    matches!(task.reason.as_deref(), Some(DUPLICATE | ENDED_ELSEWHERE | REDELIVERED))
}

/// Whether a worker was heard to have the delivery that went into the outbox at `since`: then it was published, whatever became of
/// the bookkeeping and of its marker.
pub(super) fn was_taken(task: &Task, since: Time) -> bool {
    let heard = task.received_at.max(task.started_at);
    task.phase.is_at_worker() && heard.is_some_and(|at| at >= since)
}

fn is_announcement(news: &News) -> bool {
    news.source == Source::Event && news.phase == Phase::Received
}

/// A task may replace itself by another one under its id.
fn is_same_call(task: &Task, news: &News) -> bool {
    let name = news.adoption.as_ref().and_then(|call| call.name.as_deref());
    name.is_none() || task.name.is_none() || name == task.name.as_deref()
}

/// Of a further delivery nothing was known before.
fn facts(task: &Task, news: &News, is_further: bool) -> Facts {
    let is_new = |known: Option<Time>| is_further || known.is_none();
    Facts {
        received_at: (news.phase == Phase::Received && is_new(task.received_at)).then_some(news.at),
        started_at: (news.phase == Phase::Running && is_new(task.started_at)).then_some(started(task, news)),
        worker: news.worker.clone().filter(|_| task.worker.is_none()),
        runtime: news.runtime.filter(|_| task.runtime.is_none()),
    }
}

/// Pool and main process have clocks of their own: a start is never later than the end.
fn started(task: &Task, news: &News) -> Time {
    task.finished_at.map_or(news.at, |end| news.at.min(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample_task;

    fn received(task: &Task, worker: &str, at: i64) -> News {
        let mut news = News::new(task.id.clone(), Source::Event, Phase::Received, Time(at));
        news.worker = Some(worker.to_owned());
        news.retries = Some(0);
        news
    }

    fn running() -> Task {
        let mut task = sample_task("t", Phase::Running, Time(0));
        task.received_at = Some(Time(10));
        task.worker = Some("w1".to_owned());
        task
    }

    #[test]
    fn a_second_announcement_is_a_second_delivery_and_an_echo_is_not() {
        let task = running();
        let Verdict::Change(change) = apply(&task, &received(&task, "w2", 20)) else { panic!("it is a step") };
        assert_eq!((change.position.delivery, change.reason), (task.delivery + 1, Some(REDELIVERED)));
        assert_eq!(apply(&task, &received(&task, "w1", 10)), Verdict::Drop);
        assert_eq!(apply(&task, &received(&task, "w2", 5)), Verdict::Drop, "late news of the first delivery");
    }

    #[test]
    fn a_start_that_is_told_after_the_first_report_changes_nothing() {
        let task = Task { status: "PROGRESS".to_owned(), ..running() };
        let mut started = News::new(task.id.clone(), Source::Event, Phase::Running, Time(12));
        started.worker = Some("w1".to_owned());
        let Verdict::Facts(facts) = apply(&task, &started) else { panic!("it only says when") };
        assert_eq!(facts.started_at, Some(Time(12)));
        assert!(matches!(apply(&running(), &started), Verdict::Change(_)));
        let stored = News { source: Source::Result, status: Some("STARTED".to_owned()), ..started.clone() };
        assert!(matches!(apply(&task, &stored), Verdict::Change(_)), "the task says so itself");
        let elsewhere = News { worker: Some("w2".to_owned()), ..started };
        assert!(matches!(apply(&task, &elsewhere), Verdict::Change(_)), "a second delivery");
    }

    #[test]
    fn a_start_elsewhere_is_a_second_delivery_whose_announcement_was_lost() {
        let task = running();
        let started = News { phase: Phase::Running, retries: None, ..received(&task, "w2", 20) };
        let Verdict::Change(change) = apply(&task, &started) else { panic!("it is a step") };
        assert_eq!((change.position.delivery, change.position.phase), (task.delivery + 1, Phase::Running));
        let own = News { worker: Some("w1".to_owned()), ..started };
        let Verdict::Change(change) = apply(&task, &own) else { panic!("it is progress") };
        assert_eq!(change.position.delivery, task.delivery);
    }

    #[test]
    fn an_end_elsewhere_is_a_second_delivery_of_which_nothing_else_was_heard() {
        let task = running();
        let ended = News { phase: Phase::Succeeded, retries: None, ..received(&task, "w2", 20) };
        let Verdict::Change(change) = apply(&task, &ended) else { panic!("it is the end") };
        assert_eq!((change.position.delivery, change.reason), (task.delivery + 1, Some(REDELIVERED)));
        let after = Task { phase: Phase::Succeeded, finished_at: Some(Time(19)), ..running() };
        assert_eq!(apply(&after, &ended), Verdict::Remark(ENDED_ELSEWHERE), "its record came first");
        let told = Task { reason: Some(ENDED_ELSEWHERE.to_owned()), ..after.clone() };
        assert_eq!(apply(&told, &ended), Verdict::Drop);
        let own = News { worker: Some("w1".to_owned()), runtime: Some(1.0), ..ended };
        assert!(matches!(apply(&after, &own), Verdict::Facts(_)));
        let retried = Task { phase: Phase::Retrying, ..running() };
        let Verdict::Change(change) = apply(&retried, &News { worker: Some("w2".to_owned()), ..own }) else { panic!() };
        assert_eq!(change.position.delivery, retried.delivery, "its next attempt");
    }

    #[test]
    fn a_delivery_after_the_end_is_remarked() {
        let ended = Task { phase: Phase::Succeeded, finished_at: Some(Time(30)), ..running() };
        assert_eq!(apply(&ended, &received(&ended, "w2", 40)), Verdict::Remark(DUPLICATE));
        assert_eq!(apply(&ended, &received(&ended, "w1", 10)), Verdict::Drop);
    }

    #[test]
    fn a_mark_that_is_read_after_its_announcement_is_remarked() {
        let again = |task: &Task| News { redelivered: true, ..received(task, "w1", 10) };
        for phase in [Phase::Received, Phase::Running, Phase::Succeeded] {
            let task = Task { phase, delivery: 1, finished_at: phase.is_final().then_some(Time(30)), ..running() };
            assert_eq!(apply(&task, &again(&task)), Verdict::Remark(REDELIVERED), "{phase}");
            let told = Task { reason: Some(REDELIVERED.to_owned()), ..task.clone() };
            assert_eq!(apply(&told, &again(&told)), Verdict::Drop, "{phase}");
            let second = Task { delivery: 2, ..task.clone() };
            assert_eq!(apply(&second, &again(&second)), Verdict::Drop, "{phase}: its history says so");
        }
    }

    #[test]
    fn an_announcement_that_is_heard_after_the_end_and_was_made_before_it_is_remarked() {
        let second = Duration::from_secs(1);
        let ended = Task { phase: Phase::Succeeded, finished_at: Some(Time(10).plus(second * 12)), ..running() };
        let at = |at: Time| received(&ended, "w1", at.0);
        assert_eq!(apply(&ended, &at(Time(10).plus(second * 10))), Verdict::Remark(REDELIVERED));
        assert_eq!(apply(&ended, &at(Time(10))), Verdict::Drop, "the one that is known");
        let told = Task { reason: Some(REDELIVERED.to_owned()), ..ended.clone() };
        assert_eq!(apply(&told, &at(Time(10).plus(second * 10))), Verdict::Drop);
        let retried = News { retries: Some(1), ..at(Time(10).plus(second * 10)) };
        assert_eq!(apply(&ended, &retried), Verdict::Drop);
        assert_eq!(apply(&Task { retries: 1, ..ended.clone() }, &retried), Verdict::Drop, "its next attempt");
    }

    #[test]
    fn a_marked_message_of_which_nobody_was_heard_is_a_second_delivery() {
        let queued = sample_task("t", Phase::Queued, Time(0));
        let marked = News { redelivered: true, ..received(&queued, "w2", 20) };
        let Verdict::Change(change) = apply(&queued, &marked) else { panic!("it is a step") };
        assert_eq!((change.position.delivery, change.reason), (2, Some(REDELIVERED)));
        assert_eq!(change.facts.received_at, Some(Time(20)));
        let told =
            Task { delivery: 2, reason: Some("its message went back to the queue".to_owned()), ..queued.clone() };
        let Verdict::Change(change) = apply(&told, &marked) else { panic!("it is a step") };
        assert_eq!((change.position.delivery, change.reason), (2, None), "its history says so already");
        let Verdict::Change(change) = apply(&queued, &received(&queued, "w2", 20)) else { panic!("it is a step") };
        assert_eq!(change.position.delivery, 1);
    }

    #[test]
    fn who_announces_much_later_than_an_unheard_reservation_is_another_one() {
        let mut unheard = sample_task("t", Phase::Received, Time(0));
        unheard.received_at = Some(Time(10));
        unheard.reason = Some(UNHEARD.to_owned());
        let Verdict::Facts(facts) = apply(&unheard, &received(&unheard, "w1", 10_000)) else { panic!("it is its own") };
        assert_eq!(facts.worker.as_deref(), Some("w1"));
        let Verdict::Change(change) = apply(&unheard, &received(&unheard, "w2", 20_000_000)) else { panic!("a step") };
        assert_eq!((change.position.delivery, change.facts.received_at), (2, Some(Time(20_000_000))));
    }

    #[test]
    fn a_third_announcement_is_a_third_delivery() {
        let second = Task { delivery: 2, worker: Some("w2".to_owned()), received_at: Some(Time(20)), ..running() };
        let Verdict::Change(change) = apply(&second, &received(&second, "w3", 30)) else { panic!("it is a step") };
        assert_eq!((change.position.delivery, change.facts.received_at), (3, Some(Time(30))));
    }

    #[test]
    fn what_a_late_recorder_heard_counts_where_it_can_be_told_twice() {
        let late = |news: News| News { late: true, ..news };
        let task = running();
        let news = |phase: Phase| News { phase, retries: None, ..received(&task, "w1", 20) };
        assert!(matches!(apply(&task, &late(news(Phase::Succeeded))), Verdict::Change(_)));
        assert!(matches!(apply(&task, &late(received(&task, "w2", 20))), Verdict::Change(_)), "a second delivery");
        assert_eq!(apply(&task, &late(news(Phase::Running))), Verdict::Drop, "it may have been heard");
        assert_eq!(apply(&task, &late(news(Phase::Retrying))), Verdict::Drop, "it has no time to be told apart by");
        let report = News { source: Source::Result, status: Some("PROGRESS".to_owned()), ..news(Phase::Running) };
        assert_eq!(apply(&task, &late(report)), Verdict::Drop);
        let requeued = Task { delivery: 2, queued_at: Some(Time(30)), ..sample_task("t", Phase::Queued, Time(0)) };
        assert_eq!(apply(&requeued, &late(received(&requeued, "w1", 20))), Verdict::Drop, "the delivery before");
        let ended = Task { phase: Phase::Succeeded, finished_at: Some(Time(30)), ..running() };
        let again = late(received(&ended, "w2", 40));
        assert_eq!(apply(&ended, &again), Verdict::Remark(DUPLICATE));
        let told = Task { reason: Some(DUPLICATE.to_owned()), ..ended };
        assert_eq!(apply(&told, &again), Verdict::Drop);
    }

    #[test]
    fn a_task_that_replaced_itself_waits_and_goes_on_with_its_replacement() {
        let task = running();
        let waits =
            News { if_seq: Some(task.seq), ..News::new(task.id.clone(), Source::Ledger, Phase::Waiting, Time(30)) };
        let Verdict::Change(change) = apply(&task, &waits) else { panic!("it waits") };
        assert_eq!((change.position.phase, change.position.delivery), (Phase::Waiting, task.delivery));
        assert_eq!(apply(&task, &News { source: Source::Result, ..waits.clone() }), Verdict::Drop);
        let replaced = Task { phase: Phase::Waiting, ..task };
        assert!(replaced.is_replaced());
        for phase in [Phase::Received, Phase::Running, Phase::Succeeded, Phase::Ignored] {
            let news = News { retries: None, ..received(&replaced, "w2", 40) };
            let Verdict::Change(change) = apply(&replaced, &News { phase, ..news }) else { panic!("{phase}") };
            assert_eq!(change.position.delivery, replaced.delivery, "{phase}");
        }
    }

    #[test]
    fn what_was_ignored_is_corrected_once() {
        let ended = Task { phase: Phase::Ignored, finished_at: Some(Time(30)), ..running() };
        let real = News { retries: None, ..received(&ended, "w1", 40) };
        let Verdict::Change(change) = apply(&ended, &News { phase: Phase::Succeeded, ..real.clone() }) else {
            panic!()
        };
        assert!(change.corrected);
        let corrected = Task { corrected: true, ..ended };
        assert!(!matches!(apply(&corrected, &News { phase: Phase::Failed, ..real }), Verdict::Change(_)));
    }

    #[test]
    fn a_verdict_on_what_has_moved_since_is_dropped() {
        let task = running();
        let mut lost = News::new(task.id.clone(), Source::Ledger, Phase::Lost, Time(50));
        lost.if_seq = Some(task.seq - 1);
        assert_eq!(apply(&task, &lost), Verdict::Drop);
        lost.if_seq = Some(task.seq);
        assert!(matches!(apply(&task, &lost), Verdict::Change(_)));
    }
}
