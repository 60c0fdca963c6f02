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
    /// Of the attempt that ended, where its announcement came later than its end.
    pub retries: Option<i32>,
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
        retries: news.retries.filter(|said| task.phase.is_final() && !is_further && *said > task.retries),
    }
}

/// Pool and main process have clocks of their own: a start is never later than the end.
fn started(task: &Task, news: &News) -> Time {
    task.finished_at.map_or(news.at, |end| news.at.min(end))
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
