//! Limits on what is published: spaced evenly, first come first served, and given back by every end.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use celery::task::{Phase, QueueName, TaskId, TaskName};
use ledger::{Carrier, Drained, NewTask, News, Outgoing, Rule, Source, Withdrawn};

use super::fixture::{Fixture, T0, after, alone, event, new_id, record, task};
use super::on_both;
use crate::harness::postgres::query;

on_both!(
    a_rate_lets_tasks_pass_one_after_the_other,
    who_was_not_carried_does_not_count,
    a_key_is_held_until_every_kind_of_end,
    nobody_overtakes_at_a_gate,
    a_task_with_two_limits_waits_for_both,
    waiting_tasks_expire_are_revoked_and_paused,
    a_further_delivery_keeps_its_place_under_the_key,
    a_task_that_ends_while_its_pass_is_written_down_holds_nothing,
    a_pass_says_whether_another_one_would_find_more,
    refused_tasks_leave_their_gate_to_the_others,
    a_pass_looks_only_at_the_keys_that_may_go,
    rules_and_withdrawals_let_the_next_one_go,
);

/// One `tasks.slow` in ten seconds.
#[derive(Default)]
struct Broker {
    published: Mutex<Vec<TaskId>>,
    refuses: bool,
    /// The message of this task is refused.
    unfit: Option<TaskId>,
}

#[async_trait]
impl Carrier for Broker {
    async fn carry(&self, batch: &[Outgoing]) -> Vec<i64> {
        if self.refuses {
            return Vec::new();
        }
        self.published.lock().unwrap().extend(batch.iter().map(|row| row.id.clone()));
        batch.iter().map(|row| row.no).collect()
    }

    fn pace(&self, name: &str) -> Option<Duration> {
        (name == "tasks.slow").then_some(Duration::from_secs(10))
    }

    fn refuses_message(&self, id: &TaskId) -> Option<String> {
        (self.unfit.as_ref() == Some(id)).then(|| "its message is too large".to_owned())
    }
}

impl Broker {
    fn take(&self) -> Vec<TaskId> {
        std::mem::take(&mut *self.published.lock().unwrap())
    }
}

async fn drain(ledger: &Fixture, seconds: i64, broker: &Broker) -> Drained {
    ledger.drain(after(seconds), Duration::ZERO, 100, broker).await.unwrap()
}

fn held(id: &TaskId, name: &str) -> NewTask {
    NewTask { phase: Phase::Held, due_at: Some(T0), name: TaskName::parse(name).unwrap(), ..task(id) }
}

fn keyed(id: &TaskId, limits: &[(&str, u32)]) -> NewTask {
    let mut task = held(id, "tasks.add");
    let limits: Vec<_> = limits.iter().map(|(key, max)| serde_json::json!({"key": key, "max": max})).collect();
    task.options.limits = Some(limits.into());
    task
}

async fn insert(ledger: &Fixture, count: usize, make: impl Fn(&TaskId) -> NewTask) -> Vec<TaskId> {
    let ids: Vec<TaskId> = (0..count).map(|_| new_id()).collect();
    for id in &ids {
        ledger.insert(alone(make(id))).await;
    }
    ids
}

async fn a_rate_lets_tasks_pass_one_after_the_other(ledger: &Fixture) {
    let broker = Broker::default();
    let ids = insert(ledger, 4, |id| held(id, "tasks.slow")).await;
    let free = insert(ledger, 1, |id| held(id, "tasks.add")).await;
    let pass = drain(ledger, 0, &broker).await;
    assert_eq!(broker.take(), [ids[0].clone(), free[0].clone()]);
    assert!(!pass.for_ends, "they wait for a time");
    assert_eq!(pass.next_opening, Some(after(10)));
    assert_eq!(drain(ledger, 1, &broker).await.claimed, 0);
    let at = ledger.at_gate(ledger.task(&ids[2]).await.no).await.unwrap().expect("it waits");
    assert_eq!((at.gate.as_str(), at.ahead, at.max), ("the rate limit of tasks.slow", 1, None));
    let opens = drain(ledger, 2, &broker).await.next_opening.expect("a rate");
    assert!(opens > after(9) && opens <= after(10), "{opens:?}");
    for (seconds, id) in [(10, 1), (20, 2), (45, 3)] {
        drain(ledger, seconds, &broker).await;
        assert_eq!(broker.take(), [ids[id].clone()], "at {seconds} s");
        assert_eq!(drain(ledger, seconds, &broker).await.claimed, 0);
    }
    assert_eq!(drain(ledger, 46, &broker).await.next_opening, None);
    assert_eq!(ledger.history(&ids[3]).await, [(1, Phase::Held), (2, Phase::Queued)]);
    // All replicas know the time of the last publication, also after a restart.
    let late = insert(ledger, 1, |id| held(id, "tasks.slow")).await;
    ledger.another().drain(after(50), Duration::ZERO, 100, &broker).await.unwrap();
    assert!(broker.take().is_empty());
    drain(ledger, 55, &broker).await;
    assert_eq!(broker.take(), late);
}

async fn who_was_not_carried_does_not_count(ledger: &Fixture) {
    let ids = insert(ledger, 2, |id| held(id, "tasks.slow")).await;
    let down = Broker { refuses: true, ..Broker::default() };
    let pass = drain(ledger, 0, &down).await;
    assert_eq!((pass.claimed, pass.carried), (1, 0));
    let broker = Broker::default();
    drain(ledger, 1, &broker).await;
    assert_eq!(broker.take(), [ids[0].clone()]);
}

async fn a_key_is_held_until_every_kind_of_end(ledger: &Fixture) {
    let broker = Broker::default();
    let ids = insert(ledger, 6, |id| keyed(id, &[("host", 1)])).await;
    let end = async |id: &TaskId, phase: Phase| {
        ledger.learn(&[event(id, Phase::Received, 2), event(id, Phase::Running, 3)], true).await.unwrap();
        ledger.learn(&[News { source: Source::Ledger, ..record(id, phase, 4) }], true).await.unwrap();
        assert_eq!(ledger.phase(id).await, phase);
    };
    for (place, phase) in
        [Phase::Succeeded, Phase::Failed, Phase::Lost, Phase::Revoked, Phase::Skipped].into_iter().enumerate()
    {
        drain(ledger, 1, &broker).await;
        assert_eq!(broker.take(), [ids[place].clone()], "before {phase}");
        assert_eq!(drain(ledger, 1, &broker).await.claimed, 0);
        let at = ledger.at_gate(ledger.task(&ids[5]).await.no).await.unwrap().expect("it waits");
        assert_eq!((at.max, at.under_way, at.holders), (Some(1), 1, vec![ids[place].clone()]));
        end(&ids[place], phase).await;
    }
    drain(ledger, 2, &broker).await;
    assert_eq!(broker.take(), [ids[5].clone()]);
    assert_eq!(ledger.at_gate(ledger.task(&ids[5]).await.no).await.unwrap(), None);
}

async fn nobody_overtakes_at_a_gate(ledger: &Fixture) {
    let broker = Broker::default();
    let first = insert(ledger, 2, |id| keyed(id, &[("host", 5)])).await;
    drain(ledger, 1, &broker).await;
    assert_eq!(broker.take(), first);
    let narrow = insert(ledger, 1, |id| keyed(id, &[("host", 2)])).await;
    let wide = insert(ledger, 60, |id| keyed(id, &[("host", 100)])).await;
    drain(ledger, 2, &broker).await;
    assert!(broker.take().is_empty(), "the narrow one comes first");
    ledger.learn(&[record(&first[0], Phase::Succeeded, 3)], true).await.unwrap();
    drain(ledger, 4, &broker).await;
    drain(ledger, 4, &broker).await;
    let passed = broker.take();
    assert_eq!(passed[0], narrow[0]);
    assert_eq!(passed[1..], wide[..passed.len() - 1], "more than one look's worth, in order");
    assert_eq!(passed.len(), 61);
}

async fn a_task_with_two_limits_waits_for_both(ledger: &Fixture) {
    let broker = Broker::default();
    let a = insert(ledger, 1, |id| keyed(id, &[("a", 1)])).await;
    let b = insert(ledger, 1, |id| keyed(id, &[("b", 1)])).await;
    let both = insert(ledger, 1, |id| keyed(id, &[("a", 1), ("b", 1)])).await;
    drain(ledger, 1, &broker).await;
    broker.take();
    ledger.learn(&[record(&a[0], Phase::Succeeded, 2)], true).await.unwrap();
    drain(ledger, 3, &broker).await;
    assert!(broker.take().is_empty());
    let at = ledger.at_gate(ledger.task(&both[0]).await.no).await.unwrap().expect("it waits");
    assert_eq!(at.gate, "the limit of b");
    let next = insert(ledger, 1, |id| keyed(id, &[("a", 1)])).await;
    drain(ledger, 4, &broker).await;
    assert_eq!(broker.take(), next, "who waits elsewhere keeps no place here");
    ledger.learn(&[record(&b[0], Phase::Failed, 5), record(&next[0], Phase::Succeeded, 5)], true).await.unwrap();
    drain(ledger, 6, &broker).await;
    assert_eq!(broker.take(), both);
}

async fn waiting_tasks_expire_are_revoked_and_paused(ledger: &Fixture) {
    let broker = Broker::default();
    let make = |id: &TaskId| NewTask { expires_at: Some(after(30)), ..keyed(id, &[("host", 1)]) };
    let ids = insert(ledger, 4, make).await;
    drain(ledger, 1, &broker).await;
    assert_eq!(broker.take(), [ids[0].clone()]);
    let news = News::new(ids[1].clone(), Source::Ledger, Phase::Revoked, after(2));
    assert!(matches!(ledger.withdraw(&ids[1], news).await.unwrap(), Withdrawn::Done(_)));
    let queue = QueueName::parse("celery").unwrap();
    ledger.pause_queue(&queue, after(2)).await.unwrap();
    ledger.learn(&[record(&ids[0], Phase::Succeeded, 3)], true).await.unwrap();
    assert_eq!(drain(ledger, 4, &broker).await.claimed, 0);
    ledger.resume_queue(&queue, after(5)).await.unwrap();
    drain(ledger, 6, &broker).await;
    assert_eq!(broker.take(), [ids[2].clone()]);
    let pass = drain(ledger, 31, &broker).await;
    assert_eq!((pass.expired, pass.carried), (1, 0));
    assert_eq!(ledger.phase(&ids[3]).await, Phase::Expired);
    assert!(!drain(ledger, 32, &broker).await.for_ends);
}

async fn a_further_delivery_keeps_its_place_under_the_key(ledger: &Fixture) {
    let broker = Broker::default();
    let ids = insert(ledger, 2, |id| keyed(id, &[("host", 1)])).await;
    drain(ledger, 1, &broker).await;
    broker.take();
    let seq = ledger.task(&ids[0]).await.seq;
    ledger.requeue(&ids[0], seq, "Redis forgot it", after(2)).await.expect("it has a message");
    drain(ledger, 3, &broker).await;
    assert_eq!(broker.take(), [ids[0].clone()]);
    // A slow task with a rate waits again, and its history says why.
    let slow = insert(ledger, 1, |id| held(id, "tasks.slow")).await;
    drain(ledger, 3, &broker).await;
    let seq = ledger.task(&slow[0]).await.seq;
    ledger.requeue(&slow[0], seq, "Redis forgot it", after(4)).await.expect("it has a message");
    drain(ledger, 5, &broker).await;
    assert_eq!(ledger.phase(&slow[0]).await, Phase::Held);
    assert_eq!(ledger.task(&slow[0]).await.reason.as_deref(), Some("the rate limit of tasks.slow"));
    broker.take();
    drain(ledger, 14, &broker).await;
    assert_eq!(broker.take(), slow);
}

/// Its tasks end before the pass that published them commits: another transaction is ending them.
struct Quick<'a>(&'a Fixture);

#[async_trait]
impl Carrier for Quick<'_> {
    async fn carry(&self, batch: &[Outgoing]) -> Vec<i64> {
        use sqlx::{Connection, Executor, PgConnection};
        let numbers: Vec<i64> = batch.iter().map(|row| row.no).collect();
        let mut other = PgConnection::connect(&self.0.url).await.expect("the cluster is up");
        other.execute("begin").await.unwrap();
        for sql in [
            "select 1 from taskgate.flight where task_no = any($1) for update",
            "delete from taskgate.gate_hold where task_no = any($1)",
            "delete from taskgate.flight where task_no = any($1)",
        ] {
            sqlx::query(sql).bind(&numbers).execute(&mut other).await.unwrap();
        }
        tokio::spawn(async move {
            // Until this transaction's locks block the pass.
            let stopped = "select exists (select 1 from pg_locks where not granted and locktype = 'transactionid' \
                           and transactionid = pg_current_xact_id()::xid)";
            while !sqlx::query_scalar::<_, bool>(stopped).fetch_one(&mut other).await.unwrap() {
                tokio::task::yield_now().await;
            }
            other.execute("commit").await.unwrap();
        });
        numbers
    }

    fn pace(&self, _: &str) -> Option<Duration> {
        None
    }
}

/// SQLite has one writer, so nothing runs concurrently with a pass.
async fn a_task_that_ends_while_its_pass_is_written_down_holds_nothing(ledger: &Fixture) {
    if !ledger.is_postgres() {
        return;
    }
    insert(ledger, 1, |id| keyed(id, &[("host", 1)])).await;
    ledger.drain(after(1), Duration::ZERO, 100, &Quick(ledger)).await.unwrap();
    assert_eq!(query(&ledger.url, "select count(*) from taskgate.gate_hold"), "0");
}

async fn a_pass_says_whether_another_one_would_find_more(ledger: &Fixture) {
    let broker = Broker::default();
    let ids = insert(ledger, 60, |id| keyed(id, &[("host", 100)])).await;
    let pass = ledger.drain(after(1), Duration::ZERO, 25, &broker).await.unwrap();
    assert_eq!((pass.carried, pass.again), (25, true), "more are due than a pass reads");
    while ledger.drain(after(1), Duration::ZERO, 25, &broker).await.unwrap().again {}
    assert_eq!(broker.take(), ids);
    // More wait at a gate than a pass reads there.
    let first = insert(ledger, 1, |id| keyed(id, &[("wide", 1)])).await;
    drain(ledger, 2, &broker).await;
    assert_eq!(broker.take(), first);
    let narrow = insert(ledger, 1, |id| keyed(id, &[("wide", 1)])).await;
    let wide = insert(ledger, 120, |id| keyed(id, &[("wide", 200)])).await;
    while drain(ledger, 3, &broker).await.again {}
    assert!(broker.take().is_empty(), "the narrow one comes first");
    let pass = drain(ledger, 3, &broker).await;
    assert_eq!((pass.claimed, pass.again, pass.for_ends), (0, false, true));
    ledger.learn(&[record(&first[0], Phase::Succeeded, 4)], true).await.unwrap();
    let mut passes = 1;
    while drain(ledger, 5, &broker).await.again {
        passes += 1;
    }
    assert_eq!((broker.take(), passes), ([narrow, wide].concat(), 4), "sixteen, twice fifty, and the rest");
}

/// A refused task that stayed at its gate would be claimed by every pass, one after the other without a pause.
async fn refused_tasks_leave_their_gate_to_the_others(ledger: &Fixture) {
    let ids = insert(ledger, 3, |id| keyed(id, &[("host", 1)])).await;
    let broker = Broker { unfit: Some(ids[1].clone()), ..Broker::default() };
    drain(ledger, 1, &Broker::default()).await;
    ledger.learn(&[record(&ids[0], Phase::Succeeded, 2)], true).await.unwrap();
    while drain(ledger, 3, &broker).await.again {}
    let pass = drain(ledger, 3, &broker).await;
    assert_eq!((pass.claimed, pass.again), (0, false), "{pass:?}");
    assert_eq!(broker.take(), [ids[2].clone()], "the next one of the key goes");
    assert_eq!(ledger.at_gate(ledger.task(&ids[1]).await.no).await.unwrap(), None);
}

/// How many gates the ledger has a time for, and how many of them the next pass looks at without news. PostgreSQL's are enough to read.
fn assert_looks(ledger: &Fixture, gates: usize, at_once: usize) {
    if !ledger.is_postgres() {
        return;
    }
    let minute = after(60).0;
    let sql = format!("select count(*), count(*) filter (where look_at <= {minute}) from taskgate.gate_wait");
    assert_eq!(query(&ledger.url, &sql).trim(), format!("{gates}|{at_once}"));
}

async fn a_pass_looks_only_at_the_keys_that_may_go(ledger: &Fixture) {
    const KEYS: usize = 30;
    let broker = Broker::default();
    let key = |n: usize| format!("host-{n}");
    let mut ids = Vec::new();
    for n in 0..KEYS * 2 {
        ids.extend(insert(ledger, 1, |id| keyed(id, &[(&key(n % KEYS), 1)])).await);
    }
    while drain(ledger, 1, &broker).await.again {}
    assert_eq!(broker.take(), ids[..KEYS]);
    assert_looks(ledger, KEYS, 0);
    ledger.learn(&[record(&ids[7], Phase::Succeeded, 2)], true).await.unwrap();
    let pass = drain(ledger, 3, &broker).await;
    assert_eq!((broker.take(), pass.for_ends), (vec![ids[KEYS + 7].clone()], true));
    while drain(ledger, 3, &broker).await.again {}
    assert_looks(ledger, KEYS - 1, 0);
    for id in &ids[..KEYS] {
        ledger.learn(&[record(id, Phase::Succeeded, 4)], true).await.unwrap();
    }
    while drain(ledger, 5, &broker).await.again {}
    let pass = drain(ledger, 6, &broker).await;
    assert_eq!(broker.take().len(), KEYS - 1);
    assert_looks(ledger, 0, 0);
    assert_eq!((pass.for_ends, pass.next_opening), (false, None));
}

async fn rules_and_withdrawals_let_the_next_one_go(ledger: &Fixture) {
    let broker = Broker::default();
    let first = insert(ledger, 3, |id| keyed(id, &[("host", 3)])).await;
    drain(ledger, 1, &broker).await;
    assert_eq!(broker.take(), first);
    // The narrow one keeps the wide ones back, until it is withdrawn.
    let narrow = insert(ledger, 1, |id| keyed(id, &[("host", 1)])).await;
    let wide = insert(ledger, 3, |id| keyed(id, &[("host", 4)])).await;
    drain(ledger, 2, &broker).await;
    assert!(broker.take().is_empty());
    let news = News { source: Source::Ledger, ..record(&narrow[0], Phase::Revoked, 3) };
    ledger.withdraw(&narrow[0], news).await.unwrap();
    drain(ledger, 4, &broker).await;
    assert_eq!(broker.take(), wide[..1]);
    let rule = Rule { max: Some(5), ..Rule::default() };
    ledger.set_rule("host", &rule, after(5)).await.unwrap();
    drain(ledger, 6, &broker).await;
    assert_eq!(broker.take(), wide[1..2]);
    ledger.set_rule("host", &Rule { paused: true, ..rule }, after(7)).await.unwrap();
    ledger
        .learn(&[record(&first[0], Phase::Succeeded, 8), record(&first[1], Phase::Succeeded, 8)], true)
        .await
        .unwrap();
    drain(ledger, 9, &broker).await;
    assert!(broker.take().is_empty(), "it is paused");
    assert!(ledger.reset_key("host").await.unwrap());
    drain(ledger, 10, &broker).await;
    assert_eq!(broker.take(), wide[2..]);
}
