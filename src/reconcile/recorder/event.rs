//! Translates a worker's event into news of its task.

use metrics::counter;
use tracing::warn;

use celery::event::{Call, Event, Kind, TaskNews};
use celery::task::Phase;
use ledger::{Adoption, Failure, News, Source};
use runtime::clock::Time;

/// What an event means for its task.
#[derive(Debug)]
pub enum Said {
    /// A change that only events report.
    Now(Box<News>),
    /// An end. The result record has more details (value, exception) and arrives separately, so the end waits for it a moment.
    End(Box<News>),
    /// Nothing about a task's state.
    Nothing,
}

/// The events of a message; empty if it cannot be read.
pub fn decode(payload: &[u8]) -> Vec<Event> {
    Event::decode(payload).unwrap_or_else(|error| {
        counter!("taskgate_events_unreadable_total").increment(1);
        warn!(error = %error, "a message on the event channel {error}, it is left alone");
        Vec::new()
    })
}

/// Reads an event.
pub fn read(event: Event) -> Said {
    let Event { hostname, timestamp, kind, .. } = event;
    let Kind::Task { uuid, news } = kind else { return Said::Nothing };
    let at = Time(timestamp.as_microsecond());
    let step = |phase| News {
        worker: Some(hostname.clone()),
        adoption: Some(Adoption::default()),
        ..News::new(uuid.clone(), Source::Event, phase, at)
    };
    match news {
        TaskNews::Sent(call) => {
            now(News { worker: None, retries: retries(&call), adoption: Some(adoption(*call)), ..step(Phase::Queued) })
        }
        TaskNews::Received(call) => {
            let (retries, redelivered) = (retries(&call), call.redelivered);
            now(News { retries, redelivered, adoption: Some(adoption(*call)), ..step(Phase::Received) })
        }
        TaskNews::Started => now(step(Phase::Running)),
        TaskNews::Succeeded { runtime, .. } => end(News { runtime, ..step(Phase::Succeeded) }),
        TaskNews::Failed { exception, traceback } => {
            end(News { failure: Some(failure(&exception)), traceback, ..step(Phase::Failed) })
        }
        TaskNews::Retried { exception, traceback } => {
            now(News { failure: Some(failure(&exception)), traceback, ..step(Phase::Retrying) })
        }
        TaskNews::Revoked { expired: true, .. } => {
            now(News { reason: Some("expired before it started".to_owned()), ..step(Phase::Expired) })
        }
        TaskNews::Revoked { terminated, .. } => {
            let reason = if terminated { "terminated" } else { "revoked" };
            now(News { reason: Some(reason.to_owned()), ..step(Phase::Revoked) })
        }
        TaskNews::Rejected { requeue } => now(super::record::rejected(step(Phase::Running), requeue)),
        TaskNews::Cancelled => Said::Nothing,
    }
}

/// The news of an event that reports a change.
pub fn step(event: Event) -> Option<News> {
    match read(event) {
        Said::Now(news) => Some(*news),
        Said::End(_) | Said::Nothing => None,
    }
}

/// A worker's event about a task, for tests.
#[cfg(test)]
pub fn sample(uuid: celery::task::TaskId, timestamp: jiff::Timestamp, news: TaskNews) -> Event {
    let kind = Kind::Task { uuid, news };
    Event { hostname: "w".into(), pid: None, clock: 1, utcoffset: 0.0, timestamp, kind }
}

fn now(news: News) -> Said {
    Said::Now(Box::new(news))
}

fn end(news: News) -> Said {
    Said::End(Box::new(news))
}

fn retries(call: &Call) -> Option<i32> {
    i32::try_from(call.retries).ok()
}

fn adoption(call: Call) -> Adoption {
    Adoption {
        name: call.name,
        shadow: None,
        queue: call.queue.or(call.routing_key),
        priority: None,
        root_id: call.root_id,
        parent_id: call.parent_id,
        group_id: None,
        argsrepr: call.args,
        kwargsrepr: call.kwargs,
    }
}

/// `ValueError('boom')`, as Python's `repr` writes exceptions.
fn failure(text: &str) -> Failure {
    let (kind, rest) = text.split_once('(').unwrap_or((text, ""));
    let inner = rest.strip_suffix(')').unwrap_or(rest).trim_end_matches(',');
    let quoted = |quote: char| inner.strip_prefix(quote).and_then(|inner| inner.strip_suffix(quote));
    let message = quoted('\'').or_else(|| quoted('"')).unwrap_or(inner);
    let is_name = !kind.is_empty() && kind.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'));
    if is_name {
        Failure { kind: kind.to_owned(), message: message.to_owned() }
    } else {
        Failure { kind: "Exception".to_owned(), message: text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_is_read_from_its_python_text() {
        assert_eq!(failure("ValueError('boom')"), Failure { kind: "ValueError".into(), message: "boom".into() });
        assert_eq!(failure("Ugly(1, 'a')"), Failure { kind: "Ugly".into(), message: "1, 'a'".into() });
        assert_eq!(failure("KeyError"), Failure { kind: "KeyError".into(), message: String::new() });
        assert_eq!(failure("<odd thing>").kind, "Exception");
    }
}
