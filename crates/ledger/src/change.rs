//! Decides whether and how news changes a task. Pure, the only rule for both adapters.

use std::time::Duration;

use celery::task::{Phase, Position};
use runtime::clock::Time;

use super::stats::REJECTED;
use super::types::{News, Source, Task};

/// The effect of news on a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// A step forward: gets the next `seq` and an event.
    Change(Change),
    /// A delivery after the end: the task does not change, but its history gets a remark.
    Remark(&'static str),
    /// Too late for a step, but it has facts that the row lacks: written without a `seq`.
    Facts(Facts),
    /// Late, repeated or impossible.
    Drop,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub position: Position,
    pub status: String,
    /// Whether a given-up task got its real end.
    pub corrected: bool,
    pub facts: Facts,
    /// The reason, if the news has none.
    pub reason: Option<&'static str>,
}

/// Columns to fill if they are null.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    pub received_at: Option<Time>,
    pub started_at: Option<Time>,
    pub worker: Option<String>,
    pub runtime: Option<f64>,
    /// The attempt that ended, if its `received` event came after its end.
    pub retries: Option<i32>,
}

impl Facts {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The reason when a worker receives a message that another one had: the reservation had expired, or the worker had given it back.
pub const REDELIVERED: &str = "the broker delivered it again";
/// The reason for a delivery of a task that has ended.
pub const DUPLICATE: &str = "a worker received a message of the task after its end: it runs twice";

/// The reason when a worker reports the end of a task that another worker has received.
pub const ENDED_ELSEWHERE: &str = "a different worker reported its end: the broker delivered it again";

/// The reason of a canvas step that a worker has put into its queue.
pub const SENT_BY_WORKER: &str = "a worker sent it";
/// The reason when a message is reserved, but no worker has reported it as received.
pub const UNHEARD: &str = "a worker took its message and has sent no event about it";
/// As [`UNHEARD`], when the message had been reserved before.
pub const UNHEARD_AGAIN: &str = "the broker delivered it again, to a worker that has sent no event about it";
/// A worker sends its `received` event directly after the reservation, by the same clock; a much later event is another delivery.
pub const ANNOUNCED: Duration = Duration::from_secs(2);

/// Decides the effect of news. The caller holds the row's lock.
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
    let is_repeated = is_start_behind_its_report(task, news, position) || is_rejected_already(task, news, position);
    let is_forward = is_forward && !is_repeated;
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

/// The delivery and attempt that the news is about.
fn place(task: &Task, news: &News) -> Position {
    let again = i32::from(is_received_again(task, news) || (news.redelivered && is_untold(task)));
    let delivery = news.delivery.unwrap_or(task.delivery + again);
    let retries = match (news.retries, news.phase) {
        (Some(retries), _) => retries,
        (None, Phase::Retrying) if is_retry_behind_its_successor(task, news) => task.retries - 1,
        // A start or an end after a retry belongs to the next attempt.
        (None, Phase::Running | Phase::Succeeded | Phase::Failed) if task.phase == Phase::Retrying => task.retries + 1,
        (None, _) => task.retries,
    };
    Position { delivery, retries, phase: news.phase }
}

/// Whether this is a retry whose next attempt was reported first: Celery may report the next attempt as received (and then hold it until
/// its time) before it reports the retry of the present one. Until the next attempt starts, the task is `retrying`.
fn is_retry_behind_its_successor(task: &Task, news: &News) -> bool {
    let is_of_the_last_attempt = news.retries.is_none_or(|retries| retries == task.retries - 1);
    news.phase == Phase::Retrying && is_of_the_last_attempt && task.phase == Phase::Received && task.retries > 0
}

/// Whether the task was found to have replaced itself: it then waits for its replacement.
fn is_replaced_now(task: &Task, news: &News) -> bool {
    news.source == Source::Ledger && news.phase == Phase::Waiting && news.if_seq.is_some() && task.phase.is_at_worker()
}

/// Whether this is a start that comes after a progress report. The pool process reports progress itself, but the main process reports
/// the start, often later; the state from the progress report stays.
fn is_start_behind_its_report(task: &Task, news: &News, position: Position) -> bool {
    let is_start = news.source == Source::Event && news.phase == Phase::Running && news.status.is_none();
    let has_reported = task.phase == Phase::Running && task.status != Phase::Running.status();
    is_start && has_reported && position == task.position()
}

/// Whether the reject is known: the record and the event both report it.
fn is_rejected_already(task: &Task, news: &News, position: Position) -> bool {
    news.status.as_deref() == Some(REJECTED) && task.status == REJECTED && position == task.position()
}

/// Whether this is a second delivery. A worker sends one `received` event for each message, so a second event for the same attempt is a
/// second delivery, unless it is the same event again: then it has the same time, or after a retry (whose first time is not stored) at least
/// the same worker.
fn is_received_again(task: &Task, news: &News) -> bool {
    let same_attempt = news.retries.unwrap_or(0) == task.retries && is_same_call(task, news);
    let is_other = news.worker != task.worker || task.retries == 0;
    let slack = if task.worker.is_none() { ANNOUNCED } else { Duration::ZERO };
    let is_later = task.received_at.is_some_and(|at| news.at > at.plus(slack));
    let is_taken = matches!(task.phase, Phase::Received | Phase::Running) && is_later;
    is_taken && ((is_announcement(news) && same_attempt && is_other) || is_start_elsewhere(task, news))
}

/// Whether a redelivery mark on the task's message is new information: no worker has reported the earlier delivery.
pub fn is_untold(task: &Task) -> bool {
    match task.phase {
        Phase::Accepted | Phase::Waiting | Phase::Queued => {
            matches!(task.reason.as_deref(), None | Some(SENT_BY_WORKER))
        }
        _ => is_unheard(task) && task.reason.as_deref() == Some(UNHEARD),
    }
}

/// Whether an unknown worker has reserved the task's message.
pub fn is_unheard(task: &Task) -> bool {
    let is_noted = matches!(task.reason.as_deref(), Some(UNHEARD | UNHEARD_AGAIN));
    task.phase == Phase::Received && task.worker.is_none() && is_noted
}

/// Whether news from a recorder that has lost its lease may be applied, although the new recorder may have got it too. Progress and retries
/// may not, because they depend on their order; nor may a start that is known.
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

/// Whether the task was queued again after this news.
fn is_of_an_earlier_delivery(task: &Task, news: &News) -> bool {
    let is_waiting = task.phase.is_ours() || task.phase == Phase::Queued;
    task.delivery > 1 && is_waiting && task.queued_at.is_none_or(|at| news.at < at)
}

/// Whether another worker starts or ends the task and its `received` event was lost.
fn is_start_elsewhere(task: &Task, news: &News) -> bool {
    news.source != Source::Ledger
        && matches!(news.phase, Phase::Running | Phase::Succeeded | Phase::Failed)
        && is_elsewhere(task, news)
}

fn is_elsewhere(task: &Task, news: &News) -> bool {
    news.worker.is_some() && task.worker.is_some() && news.worker != task.worker
}

/// Whether an event reports a known end from a worker other than the task's. The end is known from the record, which does not name a worker.
/// Recorded once, and not if a redelivery is known already.
fn is_end_told_elsewhere(task: &Task, news: &News) -> bool {
    let ended = |phase: Phase| matches!(phase, Phase::Succeeded | Phase::Failed);
    news.source == Source::Event
        && ended(news.phase)
        && ended(task.phase)
        && is_elsewhere(task, news)
        && !is_told_again(task)
}

/// Whether a worker received the task after its end. The start of a short task may arrive after its end, but a `received` event is sent
/// before the start.
fn is_received_after_its_end(task: &Task, news: &News) -> bool {
    let ran = matches!(task.phase, Phase::Succeeded | Phase::Failed);
    is_announcement(news) && ran && is_same_call(task, news) && task.finished_at.is_some_and(|at| news.at > at)
}

/// Whether a `received` event belongs to a later delivery whose end arrived first. Only for first attempts, because the times of others
/// are not stored.
fn is_taken_again_before_its_end(task: &Task, news: &News) -> bool {
    let ran = matches!(task.phase, Phase::Succeeded | Phase::Failed);
    let is_first_attempt = task.retries == 0 && news.retries.unwrap_or(0) == 0;
    let is_later = task.received_at.is_some_and(|at| news.at > at.plus(ANNOUNCED));
    is_announcement(news) && ran && is_first_attempt && is_same_call(task, news) && is_later && !is_told_again(task)
}

/// Whether the `received` event is known, but not that its message was a redelivery.
fn is_marked_afterwards(task: &Task, news: &News) -> bool {
    let is_known = task.received_at == Some(news.at) && task.delivery == 1 && task.retries == 0;
    is_announcement(news) && news.redelivered && is_known && !is_told_again(task)
}

/// Whether the last entry of the task's history is a redelivery.
fn is_told_again(task: &Task) -> bool {
    matches!(task.reason.as_deref(), Some(DUPLICATE | ENDED_ELSEWHERE | REDELIVERED))
}

/// Whether a worker reported the delivery that went into the outbox at `since`: then it was published, even if the record of it and its
/// marker were lost.
pub(super) fn was_taken(task: &Task, since: Time) -> bool {
    let heard = task.received_at.max(task.started_at);
    task.phase.is_at_worker() && heard.is_some_and(|at| at >= since)
}

fn is_announcement(news: &News) -> bool {
    news.source == Source::Event && news.phase == Phase::Received
}

/// Whether the news is about the same call: a task may replace itself by another one with the same id.
fn is_same_call(task: &Task, news: &News) -> bool {
    let name = news.adoption.as_ref().and_then(|call| call.name.as_deref());
    name.is_none() || task.name.is_none() || name == task.name.as_deref()
}

/// The facts in the news that the task's row lacks. The times of an earlier delivery do not count as known.
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

/// The time of the start. Pool and main process may have different clocks, so it is limited to the end.
fn started(task: &Task, news: &News) -> Time {
    task.finished_at.map_or(news.at, |end| news.at.min(end))
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
