//! Every order in which the events and the records of a task with two retries may arrive: its history has each retry once, with the number
//! of the attempt that it ended.

use std::time::Duration;

use tokio::time::Instant;

use super::state::State;
use celery::event::{Call, TaskNews};
use celery::result::ResultMeta;
use celery::task::json::verbatim;
use celery::task::{Phase, TaskId};
use ledger::sample_task;
use runtime::clock::Time;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Message {
    Received(i64),
    Started,
    Retried,
    Succeeded,
    Record(&'static str),
    /// Nothing arrives for so long that what is held is told.
    Pause,
}

use Message::{Pause, Received, Record, Retried, Started, Succeeded};

const RECORDS: [Message; 3] = [Record("RETRY"), Record("RETRY"), Record("SUCCESS")];

/// The events, with each retry at any place after the start of its attempt.
fn orders_of_events() -> Vec<Vec<Message>> {
    let usual = [Received(0), Started, Received(1), Started, Received(2), Started, Succeeded];
    let mut orders = Vec::new();
    for first in 2..=usual.len() {
        for second in 4..=usual.len() {
            let mut order = usual.to_vec();
            order.insert(first.max(second), Retried);
            order.insert(first.min(second), Retried);
            orders.push(order);
        }
    }
    orders
}

/// Every way in which two feeds may be read.
fn merged(one: &[Message], other: &[Message]) -> Vec<Vec<Message>> {
    let (Some(first), Some(second)) = (one.first(), other.first()) else {
        return vec![[one, other].concat()];
    };
    let with = |head: &Message, rest: Vec<Vec<Message>>| {
        rest.into_iter().map(|tail| [&[*head], tail.as_slice()].concat()).collect::<Vec<_>>()
    };
    let mut all = with(first, merged(&one[1..], other));
    all.extend(with(second, merged(one, &other[1..])));
    all
}

fn id() -> TaskId {
    TaskId::parse("t").unwrap()
}

fn event(message: Message) -> TaskNews {
    match message {
        Received(retries) => TaskNews::Received(Box::new(Call { retries, ..Call::default() })),
        Started => TaskNews::Started,
        Retried => TaskNews::Retried { exception: "ValueError('boom')".into(), traceback: None },
        Succeeded => TaskNews::Succeeded { result: None, runtime: Some(0.1) },
        Record(_) | Pause => unreachable!("it is no event"),
    }
}

/// The attempts that were retried, as the history tells, and the number of retries at the end.
fn retries_of(messages: &[Message]) -> (Vec<i32>, i32) {
    let (mut state, mut news) = (State::new(false), Vec::new());
    for (second, message) in messages.iter().enumerate() {
        let at = jiff::Timestamp::from_second(i64::try_from(second).unwrap()).unwrap();
        match message {
            Record(status) => {
                let error = r#"{"exc_type": "ValueError", "exc_message": ["boom"], "exc_module": "builtins"}"#;
                state.hear_record(id(), ResultMeta::new(id(), *status, verbatim(error.to_owned()).unwrap()), &mut news);
            }
            Pause => news.extend(state.due(Instant::now() + Duration::from_secs(20))),
            _ => state.hear_event(super::event::sample(id(), at, event(*message)), &mut news),
        }
    }
    news.extend(state.due(Instant::now() + Duration::from_secs(20)));
    let (task, events) = ledger::sample::history(sample_task("t", Phase::Queued, Time(0)), &news);
    let retried = events.iter().filter(|event| event.status == "RETRY").map(|event| event.retries).collect();
    (retried, task.retries)
}

#[test]
fn each_retry_is_told_once_in_whatever_order_its_messages_arrive() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for events in orders_of_events() {
        for messages in merged(&events, &RECORDS) {
            for pause in 0..=messages.len() {
                let mut messages = messages.clone();
                messages.insert(pause, Pause);
                count += 1;
                let found = retries_of(&messages);
                if found != (vec![0, 1], 2) {
                    wrong.push((found, messages));
                }
            }
        }
    }
    shows_none(&wrong, count);
}

/// Celery does not store the retry of an attempt when the next one has stored its success.
#[test]
fn a_retry_whose_record_is_missing_is_proved_by_the_end_of_the_next_attempt() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for events in orders_of_events() {
        let merged = merged(&events, &[Record("RETRY"), Record("SUCCESS")]);
        let end = |messages: &[Message]| messages.iter().position(|one| *one == Record("SUCCESS"));
        let announced = |messages: &[Message]| messages.iter().position(|one| *one == Received(2));
        for messages in merged.into_iter().filter(|messages| announced(messages) < end(messages)) {
            count += 1;
            let found = retries_of(&messages);
            if found != (vec![0, 1], 2) {
                wrong.push((found, messages));
            }
        }
    }
    shows_none(&wrong, count);
}

type Wrong = ((Vec<i32>, i32), Vec<Message>);

fn shows_none(wrong: &[Wrong], count: usize) {
    let shown: Vec<_> = wrong.iter().step_by(wrong.len() / 12 + 1).collect();
    assert!(wrong.is_empty(), "{} of {count} orders: {shown:#?}", wrong.len());
}
