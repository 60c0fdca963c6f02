//! Lines: tasks that wait for room in their queue's window, the order in which they leave, and what frees room.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use celery::task::limit::{Fair, KeyLimit, OnLimit};
use celery::task::{Phase, Priority, QueueName, TaskId};
use ledger::{Carrier, Conflict, Drained, NewTask, News, Outgoing, Rule, Source, TaskOptions, Way, Withdrawn};

use super::fixture::{Fixture, after, alone, event, new_id, record, task};
use super::on_both;

on_both!(
    only_the_window_goes_and_every_reception_makes_room,
    the_lowest_rank_goes_first_whatever_the_order_of_acceptance,
    keys_share_a_queue_by_their_weights,
    a_key_that_comes_late_begins_where_the_others_are,
    tasks_without_a_key_take_turns_too,
    a_paused_queue_releases_nothing_of_its_line,
    what_waits_in_line_is_withdrawn_expires_and_is_queued_again,
    a_limit_is_asked_before_the_window_and_again_behind_it,
    a_refusing_key_takes_one_of_many,
    what_is_said_by_hand_holds_for_all_replicas,
    keys_are_listed_page_by_page,
);

/// Windows by queue; 4 where keys take turns.
#[derive(Default)]
struct Broker {
    published: Mutex<Vec<TaskId>>,
    windows: HashMap<&'static str, u32>,
}

#[async_trait]
impl Carrier for Broker {
    async fn carry(&self, batch: &[Outgoing]) -> Vec<i64> {
        self.published.lock().unwrap().extend(batch.iter().map(|row| row.id.clone()));
        batch.iter().map(|row| row.no).collect()
    }

    fn window(&self, queue: &str, shared: bool) -> Option<u32> {
        self.windows.get(queue).copied().or(shared.then_some(4))
    }
}

impl Broker {
    fn with(queue: &'static str, window: u32) -> Self {
        Self { windows: HashMap::from([(queue, window)]), ..Self::default() }
    }

    fn take(&self) -> Vec<TaskId> {
        std::mem::take(&mut *self.published.lock().unwrap())
    }
}

async fn drain(ledger: &Fixture, seconds: i64, broker: &Broker) -> Drained {
    ledger.drain(after(seconds), Duration::ZERO, 1_000, broker).await.unwrap()
}

/// As the gateway makes a task of a queue with a window.
fn in_line(id: &TaskId, priority: u8) -> NewTask {
    let way = Way::Line { rank: i16::from(priority) };
    NewTask { way, priority: Priority::new(priority).unwrap(), ..task(id) }
}

/// As the gateway makes a task with a share.
fn shared(id: &TaskId, key: &str, weight: u32) -> NewTask {
    let fair = Some(Fair { key: key.to_owned(), weight });
    NewTask { way: Way::Pass, options: TaskOptions { fair, ..TaskOptions::default() }, ..task(id) }
}

async fn insert(ledger: &Fixture, count: usize, make: impl Fn(&TaskId) -> NewTask) -> Vec<TaskId> {
    let ids: Vec<TaskId> = (0..count).map(|_| new_id()).collect();
    for id in &ids {
        ledger.insert(alone(make(id))).await;
    }
    ids
}

async fn receive(ledger: &Fixture, ids: &[TaskId]) {
    let news: Vec<News> = ids.iter().map(|id| event(id, Phase::Received, 2)).collect();
    ledger.learn(&news, true).await.unwrap();
}

/// Repeats passes and receptions until no task leaves; returns the order in which tasks left.
async fn run_dry(ledger: &Fixture, broker: &Broker) -> Vec<TaskId> {
    let mut order = Vec::new();
    loop {
        drain(ledger, 20, broker).await;
        let gone = broker.take();
        if gone.is_empty() {
            return order;
        }
        receive(ledger, &gone).await;
        order.extend(gone);
    }
}

async fn only_the_window_goes_and_every_reception_makes_room(ledger: &Fixture) {
    let broker = Broker::with("celery", 3);
    let ids = insert(ledger, 8, |id| in_line(id, 0)).await;
    let pass = drain(ledger, 0, &broker).await;
    assert_eq!(broker.take(), ids[..3]);
    assert!(pass.in_line && pass.dry && !pass.for_ends, "{pass:?}");
    assert_eq!(drain(ledger, 1, &broker).await.claimed, 0, "it is full");
    let at = ledger.in_line(ledger.task(&ids[5]).await.no).await.unwrap().expect("it waits");
    assert_eq!((at.queue.as_str(), at.ahead, at.in_broker, at.share.as_str()), ("celery", 2, 3, ""));
    assert_eq!(ledger.phase(&ids[5]).await, Phase::Accepted);
    receive(ledger, &ids[..1]).await;
    drain(ledger, 1, &broker).await;
    assert_eq!(broker.take(), ids[3..4]);
    // An end without a reception frees room too, as with workers that send no events.
    ledger.learn(&[record(&ids[1], Phase::Succeeded, 4)], true).await.unwrap();
    // The same after a restart.
    ledger.another().drain(after(2), Duration::ZERO, 100, &broker).await.unwrap();
    assert_eq!(broker.take(), ids[4..5]);
    receive(ledger, &ids[2..5]).await;
    assert_eq!(run_dry(ledger, &broker).await, ids[5..]);
    assert!(!drain(ledger, 3, &broker).await.in_line);
    assert_eq!(ledger.history(&ids[7]).await[..2], [(1, Phase::Accepted), (2, Phase::Queued)]);
}

async fn the_lowest_rank_goes_first_whatever_the_order_of_acceptance(ledger: &Fixture) {
    let broker = Broker::with("celery", 1);
    let mut ids = Vec::new();
    for priority in [9, 3, 0, 5, 3] {
        ids.extend(insert(ledger, 1, |id| in_line(id, priority)).await);
    }
    assert_eq!(run_dry(ledger, &broker).await, [2, 1, 4, 3, 0].map(|place: usize| ids[place].clone()));
}

async fn keys_share_a_queue_by_their_weights(ledger: &Fixture) {
    let broker = Broker::with("celery", 10);
    let heavy = insert(ledger, 150, |id| shared(id, "heavy", 2)).await;
    let light = insert(ledger, 150, |id| shared(id, "light", 1)).await;
    // All tasks are in the line before the first is examined.
    drain(ledger, 1, &Broker::with("celery", 0)).await;
    let order = run_dry(ledger, &broker).await;
    let share = order[..210].iter().filter(|id| heavy.contains(id)).count();
    assert!((133..=147).contains(&share), "{share} of 210 are two thirds");
    let of = |ids: &[TaskId]| order.iter().filter(|id| ids.contains(id)).cloned().collect::<Vec<_>>();
    assert_eq!((of(&heavy), of(&light)), (heavy.clone(), light.clone()), "first come, first served within a key");
}

async fn a_key_that_comes_late_begins_where_the_others_are(ledger: &Fixture) {
    let broker = Broker::default();
    let first = insert(ledger, 60, |id| shared(id, "a", 1)).await;
    let mut gone = Vec::new();
    for _ in 0..5 {
        drain(ledger, 1, &broker).await;
        gone = broker.take();
        receive(ledger, &gone).await;
    }
    assert_eq!(gone, first[16..20]);
    let second = insert(ledger, 10, |id| shared(id, "b", 1)).await;
    let order = run_dry(ledger, &broker).await;
    let last = order.iter().position(|id| *id == second[9]).unwrap();
    // One window of tasks was published when it arrived; after that they take turns.
    assert!(last < 4 + 20, "its last goes as number {last}");
    assert_eq!(order.len(), 50);
}

async fn tasks_without_a_key_take_turns_too(ledger: &Fixture) {
    let broker = Broker::with("celery", 4);
    let keyed = insert(ledger, 20, |id| shared(id, "a", 1)).await;
    let plain = insert(ledger, 20, |id| in_line(id, 0)).await;
    let order = run_dry(ledger, &broker).await;
    assert_eq!(order.len(), keyed.len() + plain.len());
    let early = order[8..24].iter().filter(|id| plain.contains(id)).count();
    assert!((6..=10).contains(&early), "{early} of 16");
}

async fn a_paused_queue_releases_nothing_of_its_line(ledger: &Fixture) {
    let broker = Broker::with("celery", 1);
    let ids = insert(ledger, 3, |id| in_line(id, 0)).await;
    drain(ledger, 0, &broker).await;
    let queue = QueueName::parse("celery").unwrap();
    ledger.pause_queue(&queue, after(1)).await.unwrap();
    receive(ledger, &broker.take()).await;
    assert_eq!(drain(ledger, 2, &broker).await.claimed, 0);
    ledger.resume_queue(&queue, after(3)).await.unwrap();
    assert_eq!(run_dry(ledger, &broker).await, ids[1..]);
}

async fn what_waits_in_line_is_withdrawn_expires_and_is_queued_again(ledger: &Fixture) {
    let broker = Broker::with("celery", 1);
    let make = |id: &TaskId| NewTask { expires_at: Some(after(10)), ..in_line(id, 0) };
    let first = insert(ledger, 2, |id| in_line(id, 0)).await;
    let late = insert(ledger, 1, make).await;
    drain(ledger, 0, &broker).await;
    assert_eq!(broker.take(), first[..1]);
    let revoked = News { source: Source::Ledger, ..record(&first[1], Phase::Revoked, 2) };
    assert!(matches!(ledger.withdraw(&first[1], revoked).await.unwrap(), Withdrawn::Done(_)));
    assert_eq!(drain(ledger, 11, &broker).await.expired, 1);
    assert_eq!(ledger.phase(&late[0]).await, Phase::Expired);
    // A message that the broker lost takes no room any more; its task waits for its turn again.
    let task = ledger.task(&first[0]).await;
    ledger.requeue(&first[0], task.seq, "it was lost", after(12)).await.expect("queued again");
    let next = insert(ledger, 1, |id| in_line(id, 0)).await;
    assert_eq!(run_dry(ledger, &broker).await.len(), 2, "both");
    assert_eq!(ledger.phase(&next[0]).await, Phase::Received);
}

async fn a_limit_is_asked_before_the_window_and_again_behind_it(ledger: &Fixture) {
    let broker = Broker::with("celery", 2);
    let keyed = |id: &TaskId| {
        let limits = serde_json::to_value([KeyLimit::at_most("host", 1)]).ok();
        let options = TaskOptions { limits, ..TaskOptions::default() };
        NewTask { phase: Phase::Held, due_at: Some(after(0)), options, ..task(id) }
    };
    let plain = insert(ledger, 2, |id| in_line(id, 0)).await;
    let limited = insert(ledger, 3, keyed).await;
    drain(ledger, 0, &broker).await;
    assert_eq!(broker.take(), plain);
    assert!(ledger.in_line(ledger.task(&limited[0]).await.no).await.unwrap().is_some(), "no room");
    assert!(ledger.at_gate(ledger.task(&limited[1]).await.no).await.unwrap().is_some(), "one of the key at most");
    receive(ledger, &plain).await;
    let end = |id: &TaskId| News { source: Source::Ledger, ..record(id, Phase::Succeeded, 4) };
    for id in &limited {
        for _ in 0..2 {
            drain(ledger, 2, &broker).await;
        }
        assert_eq!(broker.take(), std::slice::from_ref(id), "one after the other");
        ledger.learn(&[event(id, Phase::Received, 3), end(id)], true).await.unwrap();
    }
}

async fn a_refusing_key_takes_one_of_many(ledger: &Fixture) {
    let limit = KeyLimit { on_limit: OnLimit::Reject, ..KeyLimit::at_most("report", 1) };
    let refusing = |id: &TaskId| {
        let options = TaskOptions { limits: serde_json::to_value([&limit]).ok(), ..TaskOptions::default() };
        NewTask { phase: Phase::Held, due_at: Some(after(0)), way: Way::Gate(vec![limit.clone()]), options, ..task(id) }
    };
    let ids: Vec<TaskId> = (0..5).map(|_| new_id()).collect();
    let batch: Vec<_> = ids.iter().map(|id| alone(refusing(id))).collect();
    let (one, other) = (ledger.another(), ledger.another());
    let (first, second) = tokio::join!(async { one.insert(&batch[..3]).await.unwrap() }, async {
        other.insert(&batch[3..]).await.unwrap()
    },);
    let answers: Vec<_> = first.into_iter().chain(second).collect();
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    let is_limited =
        |conflict: &Conflict| matches!(conflict, Conflict::Limited { key, wait } if key == "report" && *wait > 0);
    assert!(answers.iter().filter_map(|answer| answer.as_ref().err()).all(is_limited), "{answers:?}");
    let broker = Broker::default();
    drain(ledger, 1, &broker).await;
    let gone = broker.take();
    assert_eq!(gone.len(), 1);
    let again = alone(refusing(&new_id()));
    assert!(ledger.ledger.insert(std::slice::from_ref(&again)).await.unwrap()[0].is_err(), "it is under way");
    let end = News { source: Source::Ledger, ..record(&gone[0], Phase::Succeeded, 4) };
    ledger.learn(&[end], true).await.unwrap();
    assert!(ledger.ledger.insert(std::slice::from_ref(&again)).await.unwrap()[0].is_ok());
}

async fn what_is_said_by_hand_holds_for_all_replicas(ledger: &Fixture) {
    let broker = Broker::default();
    let keyed = |id: &TaskId| {
        let limits = serde_json::to_value([KeyLimit::at_most("host", 1)]).ok();
        let options = TaskOptions { limits, ..TaskOptions::default() };
        NewTask { phase: Phase::Held, due_at: Some(after(0)), options, ..task(id) }
    };
    let ids = insert(ledger, 6, keyed).await;
    drain(ledger, 1, &broker).await;
    assert_eq!(broker.take(), ids[..1]);
    let wider = Rule { max: Some(3), ..Rule::default() };
    ledger.set_rule("host", &wider, after(1)).await.unwrap();
    ledger.another().drain(after(2), Duration::ZERO, 100, &broker).await.unwrap();
    assert_eq!(broker.take(), ids[1..3]);
    ledger.set_rule("host", &Rule { paused: true, ..wider }, after(3)).await.unwrap();
    let end = |id: &TaskId| News { source: Source::Ledger, ..record(id, Phase::Succeeded, 4) };
    ledger.learn(&[end(&ids[0]), end(&ids[1]), end(&ids[2])], true).await.unwrap();
    drain(ledger, 4, &broker).await;
    assert!(broker.take().is_empty(), "it is paused");
    let state = ledger.key("host").await.unwrap();
    assert_eq!((state.under_way, state.waiting), (0, 3));
    assert!(state.rule.is_some_and(|(rule, at)| rule.paused && at == after(3)));
    assert!(ledger.reset_key("host").await.unwrap());
    drain(ledger, 5, &broker).await;
    assert_eq!(broker.take(), ids[3..4], "what the tasks say holds again");
    assert!(!ledger.reset_key("host").await.unwrap());
}

async fn keys_are_listed_page_by_page(ledger: &Fixture) {
    let broker = Broker::default();
    for key in ["a", "@t/x", "b", "@t/y"] {
        let make = |id: &TaskId| {
            let limits = serde_json::to_value([KeyLimit::at_most(key, 1)]).ok();
            let options = TaskOptions { limits, ..TaskOptions::default() };
            NewTask { phase: Phase::Held, due_at: Some(after(0)), options, ..task(id) }
        };
        insert(ledger, 2, make).await;
    }
    drain(ledger, 1, &broker).await;
    ledger.set_rule("c", &Rule { max: Some(1), ..Rule::default() }, after(1)).await.unwrap();
    let names = async |prefix: &str, after: &str, limit| {
        let found = ledger.keys(prefix, after, limit).await.unwrap();
        found.into_iter().map(|state| (state.key, state.under_way, state.waiting)).collect::<Vec<_>>()
    };
    let key = |name: &str, under_way, waiting| (name.to_owned(), under_way, waiting);
    assert_eq!(names("", "", 3).await, [key("@t/x", 1, 1), key("@t/y", 1, 1), key("a", 1, 1)]);
    assert_eq!(names("", "a", 3).await, [key("b", 1, 1), key("c", 0, 0)]);
    assert_eq!(names("@t/", "", 9).await, [key("@t/x", 1, 1), key("@t/y", 1, 1)]);
    assert_eq!(names("@t/", "@t/x", 9).await, [key("@t/y", 1, 1)]);
    assert_eq!(ledger.keys("", "", 1).await.unwrap()[0].max, Some(1));
}
