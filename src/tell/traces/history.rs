//! Turns a task's recorded changes into spans: one for the whole task and one for each step. Pure.
//!
//! `wait` until a worker has it, `receive` until that worker starts it, `run` for each attempt, `retry` between two attempts; `hold`
//! and `depend` while taskgate or its canvas kept it back. Each ends where the next begins.

use super::context::{self, SpanContext};
use super::span::{Kind, Span, Value};
use celery::task::Phase;
use ledger::{Event, Task};
use runtime::clock::Time;

/// The trace that a task's spans belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub trace: u128,
    /// The span of the request that submitted it, in the message's `traceparent`; none for ticks of schedules and for tasks
    /// that others sent.
    pub sender: Option<SpanContext>,
}

impl Place {
    /// `None` when the task is not traced: its sender decided so, or it was not sampled.
    pub fn of(task: &Task, sample: f64) -> Option<Self> {
        let sender = task.options.traceparent.as_deref().and_then(SpanContext::parse);
        if let Some(sender) = sender {
            return sender.sampled.then_some(Self { trace: sender.trace, sender: Some(sender) });
        }
        let root = task.root_id.as_ref().unwrap_or(&task.id);
        let trace = context::id_of(&["trace", root.as_str()]);
        context::is_sampled(trace, sample).then_some(Self { trace, sender: None })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Hold,
    Depend,
    Wait,
    Receive,
    Run,
    Retry,
}

impl Step {
    /// `None` at the end.
    const fn of(phase: Phase) -> Option<Self> {
        Some(match phase {
            Phase::Held => Self::Hold,
            Phase::Waiting => Self::Depend,
            Phase::Accepted | Phase::Queued => Self::Wait,
            Phase::Received => Self::Receive,
            Phase::Running => Self::Run,
            Phase::Retrying => Self::Retry,
            Phase::Succeeded
            | Phase::Failed
            | Phase::Revoked
            | Phase::Expired
            | Phase::Skipped
            | Phase::Lost
            | Phase::Ignored => return None,
        })
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Depend => "depend",
            Self::Wait => "wait",
            Self::Receive => "receive",
            Self::Run => "run",
            Self::Retry => "retry",
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Self::Hold | Self::Depend | Self::Retry => Kind::Internal,
            Self::Wait => Kind::Producer,
            Self::Receive | Self::Run => Kind::Consumer,
        }
    }
}

/// A step that is still open.
struct Open<'e> {
    step: Step,
    since: Time,
    first: &'e Event,
    worker: Option<&'e str>,
}

/// All spans of a task that has ended. `events` are its changes in order.
pub fn spans(task: &Task, events: &[Event], place: Place) -> Vec<Span> {
    let Some(last) = events.last() else { return Vec::new() };
    let whole = SpanContext { trace: place.trace, span: span_id(task, "task", 0), sampled: true };
    let mut found = vec![Span {
        context: whole,
        parent: place.sender.map(|sender| sender.span),
        link: None,
        name: name(task).to_owned(),
        kind: Kind::Internal,
        start: task.submitted_at,
        end: last.at.max(task.submitted_at),
        attributes: attributes(task, last, last.worker.as_deref().or(task.worker.as_deref())),
        failed: is_failure(last.phase),
    }];
    let mut open: Option<Open<'_>> = None;
    for event in events {
        let step = following(open.as_ref(), event);
        if let Some(now) = &mut open {
            // A worker may receive the next attempt long before it is due.
            let goes_on = step == Some(now.step) || (now.step == Step::Retry && step == Some(Step::Receive));
            if goes_on {
                now.worker = now.worker.or(event.worker.as_deref());
                continue;
            }
        }
        if let Some(done) = open.take() {
            close(task, done, event, whole, place, &mut found);
        }
        open = step.map(|step| Open { step, since: event.at, first: event, worker: event.worker.as_deref() });
    }
    found
}

/// The step that a change begins. Celery may report the next attempt as received before it reports the retry of this one.
fn following(open: Option<&Open<'_>>, event: &Event) -> Option<Step> {
    let is_next_attempt = open.is_some_and(|now| {
        now.step == Step::Run && now.first.delivery == event.delivery && event.retries > now.first.retries
    });
    match Step::of(event.phase) {
        Some(Step::Receive) if is_next_attempt => Some(Step::Retry),
        step => step,
    }
}

/// Ends a step at the change that follows it. A run whose start arrived after its end gets a span too.
fn close(task: &Task, open: Open<'_>, next: &Event, whole: SpanContext, place: Place, found: &mut Vec<Span>) {
    match unseen_start(task, &open, next) {
        Some(started) => {
            let worker = next.worker.as_deref().or(task.worker.as_deref());
            let run = Open { step: Step::Run, since: started, first: next, worker };
            found.push(span(task, &open, started, next, whole, place));
            found.push(span(task, &run, next.at, next, whole, place));
        }
        None => found.push(span(task, &open, next.at, next, whole, place)),
    }
}

/// When a run began whose start is missing in the history. The record has only the first start: a later attempt whose result arrived
/// before its start event is a run of zero length.
fn unseen_start(task: &Task, open: &Open<'_>, next: &Event) -> Option<Time> {
    if Step::of(next.phase).is_some() || open.step == Step::Run {
        return None;
    }
    let known = task.started_at.filter(|started| *started >= open.since);
    let ran = open.step == Step::Retry && matches!(next.phase, Phase::Succeeded | Phase::Failed);
    known.or_else(|| ran.then_some(next.at))
}

fn span(task: &Task, open: &Open<'_>, end: Time, next: &Event, whole: SpanContext, place: Place) -> Span {
    let is_run = open.step == Step::Run;
    let id = span_id(task, open.step.word(), open.first.seq);
    let worker = open.worker.or(next.worker.as_deref().filter(|_| is_run));
    // An attempt that is followed by another one of the same delivery ended in a retry.
    let is_retried = is_run && matches!(next.phase, Phase::Retrying | Phase::Received);
    let mut attributes = attributes(task, if is_run { next } else { open.first }, worker);
    if is_retried {
        attributes.retain(|(name, _)| !matches!(*name, "celery.state" | "celery.retries" | "taskgate.phase"));
        attributes.push(("celery.state", Phase::Retrying.status().into()));
        attributes.push(("celery.retries", i64::from(open.first.retries).into()));
        attributes.push(("taskgate.phase", Phase::Retrying.as_str().into()));
    }
    Span {
        context: SpanContext { span: id, ..whole },
        parent: Some(whole.span),
        link: place.sender.filter(|_| is_run),
        name: format!("{} {}", name(task), open.step.word()),
        kind: open.step.kind(),
        start: open.since,
        end: end.max(open.since),
        attributes,
        failed: is_retried || (is_run && is_failure(next.phase)),
    }
}

fn span_id(task: &Task, what: &str, seq: i64) -> u64 {
    context::short(context::id_of(&[task.id.as_str(), what, &seq.to_string()]))
}

fn name(task: &Task) -> &str {
    task.name.as_deref().unwrap_or("unknown")
}

const fn is_failure(phase: Phase) -> bool {
    matches!(phase, Phase::Failed | Phase::Lost)
}

/// Names from the semantic conventions for messaging and from Celery's instrumentation.
fn attributes(task: &Task, event: &Event, worker: Option<&str>) -> Vec<(&'static str, Value)> {
    let mut found: Vec<(&'static str, Value)> = vec![
        ("messaging.system", "celery".into()),
        ("messaging.message.id", task.id.as_str().into()),
        ("celery.task_name", name(task).into()),
        ("celery.state", event.status.as_str().into()),
        ("celery.retries", i64::from(event.retries).into()),
        ("taskgate.phase", event.phase.as_str().into()),
        ("taskgate.delivery", i64::from(event.delivery).into()),
    ];
    let failure = task.failure.as_ref().filter(|_| is_failure(event.phase)).map(|failure| failure.kind.as_str());
    let more = [
        ("messaging.destination.name", task.queue.as_deref()),
        ("celery.hostname", worker),
        ("taskgate.schedule", task.schedule.as_deref()),
        ("exception.type", failure),
    ];
    found.extend(more.into_iter().filter_map(|(name, value)| Some((name, Value::from(value?)))));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::sample_task;

    const ID: &str = "0199c2a8-0000-7000-8000-000000000001";
    const SENDER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn event(seq: i64, second: i64, phase: Phase, retries: i32) -> Event {
        let worker = phase.is_at_worker().then(|| "celery@a".to_owned());
        let told = Event::of(&sample_task(ID, phase, Time(0)), Time(second * 1_000_000));
        Event { seq, feed: seq, retries, worker, ..told }
    }

    fn traced(phase: Phase) -> (Task, Place) {
        let mut task = sample_task(ID, phase, Time(0));
        task.options.traceparent = Some(SENDER.to_owned());
        let place = Place::of(&task, 1.0).unwrap();
        (task, place)
    }

    fn steps(spans: &[Span]) -> Vec<(&str, i64, i64, bool)> {
        let step = |span: &Span| (span.start.0 / 1_000_000, span.end.0 / 1_000_000);
        spans.iter().map(|span| (span.name.as_str(), step(span).0, step(span).1, span.failed)).collect()
    }

    #[test]
    fn an_attempt_whose_start_was_never_told_is_a_run_without_a_length() {
        let (mut task, place) = traced(Phase::Succeeded);
        task.started_at = Some(Time(1_000_000));
        let events = [
            event(1, 0, Phase::Accepted, 0),
            event(2, 1, Phase::Running, 0),
            event(3, 2, Phase::Retrying, 0),
            event(4, 3, Phase::Received, 1),
            event(5, 6, Phase::Succeeded, 1),
        ];
        let found = spans(&task, &events, place);
        let last = [("tasks.sample retry", 2, 6, false), ("tasks.sample run", 6, 6, false)];
        assert_eq!(steps(&found)[3..], last);
    }

    #[test]
    fn each_attempt_is_a_run_and_each_pause_a_retry() {
        let (task, place) = traced(Phase::Succeeded);
        let events = [
            event(1, 0, Phase::Accepted, 0),
            event(2, 1, Phase::Queued, 0),
            event(3, 2, Phase::Received, 0),
            event(4, 3, Phase::Running, 0),
            event(5, 5, Phase::Retrying, 0),
            event(6, 6, Phase::Received, 1),
            event(7, 9, Phase::Running, 1),
            event(8, 10, Phase::Succeeded, 1),
        ];
        let found = spans(&task, &events, place);
        let expected = [
            ("tasks.sample", 0, 10, false),
            ("tasks.sample wait", 0, 2, false),
            ("tasks.sample receive", 2, 3, false),
            ("tasks.sample run", 3, 5, true),
            ("tasks.sample retry", 5, 9, false),
            ("tasks.sample run", 9, 10, false),
        ];
        assert_eq!(steps(&found), expected);
        let sender = SpanContext::parse(SENDER).unwrap();
        assert!(found.iter().all(|span| span.context.trace == sender.trace));
        assert_eq!(found[0].parent, Some(sender.span));
        assert!(found[1..].iter().all(|span| span.parent == Some(found[0].context.span)));
        assert_eq!(found.iter().filter(|span| span.link == Some(sender)).count(), 2);
        assert_eq!(spans(&task, &events, place), found, "told twice, it is the same");
    }

    #[test]
    fn an_attempt_that_is_announced_before_the_retry_is_said_changes_nothing() {
        let (task, place) = traced(Phase::Succeeded);
        let events = [
            event(1, 0, Phase::Accepted, 0),
            event(2, 3, Phase::Running, 0),
            event(3, 5, Phase::Received, 1),
            event(4, 6, Phase::Retrying, 0),
            event(5, 9, Phase::Running, 1),
            event(6, 10, Phase::Succeeded, 1),
        ];
        let found = spans(&task, &events, place);
        let expected = [
            ("tasks.sample", 0, 10, false),
            ("tasks.sample wait", 0, 3, false),
            ("tasks.sample run", 3, 5, true),
            ("tasks.sample retry", 5, 9, false),
            ("tasks.sample run", 9, 10, false),
        ];
        assert_eq!(steps(&found), expected);
        assert!(found[2].attributes.contains(&("celery.state", "RETRY".into())));
        assert!(found[2].attributes.contains(&("celery.retries", 0.into())));
    }

    #[test]
    fn a_run_whose_start_was_not_heard_is_known_from_the_record() {
        let (mut task, place) = traced(Phase::Failed);
        task.started_at = Some(Time(4_000_000));
        let events = [event(1, 0, Phase::Accepted, 0), event(2, 6, Phase::Failed, 0)];
        let found = spans(&task, &events, place);
        let expected =
            [("tasks.sample", 0, 6, true), ("tasks.sample wait", 0, 4, false), ("tasks.sample run", 4, 6, true)];
        assert_eq!(steps(&found), expected);
    }

    #[test]
    fn what_its_sender_does_not_record_is_not_traced() {
        let mut task = sample_task(ID, Phase::Succeeded, Time(0));
        task.options.traceparent = Some(SENDER.replace("-01", "-00"));
        assert_eq!(Place::of(&task, 1.0), None);
        task.options.traceparent = None;
        assert!(Place::of(&task, 1.0).is_some_and(|place| place.sender.is_none()));
        assert_eq!(Place::of(&task, 0.0), None);
    }
}
