//! Dispatch: which tasks wait in the ledger, for what, and in which order unmodified Celery workers get them.

mod fair;
mod limits;
mod schedules;
mod window;

use serde_json::{Value, json};

use crate::harness::environment::Harness;
use crate::harness::{CeleryOptions, postgres};

/// A worker with this many slots that reserves no more than it runs.
fn worker(concurrency: u32) -> CeleryOptions {
    CeleryOptions {
        concurrency,
        pool: "threads",
        settings: json!({"worker_prefetch_multiplier": 1}),
        ..CeleryOptions::default()
    }
}

/// Ids of tasks in the order in which they reached a phase, with the time in microseconds.
fn reached(env: &Harness, phase: &str) -> Vec<(String, i64)> {
    let sql = format!(
        "select t.task_id, e.at from taskgate.event e join taskgate.tasks t on t.task_no = e.task_no \
         where e.phase = '{phase}' order by e.feed"
    );
    times(env, &sql)
}

/// When each task began, in this order. A task whose end is recorded first has no event of its start: then its end counts.
fn begun(env: &Harness) -> Vec<(String, i64)> {
    let sql = "select t.task_id, min(e.at) from taskgate.event e join taskgate.tasks t on t.task_no = e.task_no \
               where e.phase in ('running', 'succeeded') group by t.task_id order by 2";
    times(env, sql)
}

fn times(env: &Harness, sql: &str) -> Vec<(String, i64)> {
    let rows = postgres::query(&env.database, sql);
    let row = |line: &str| {
        let (id, at) = line.split_once('|').expect("two columns");
        (id.to_owned(), at.parse().expect("a number"))
    };
    rows.lines().map(row).collect()
}

/// Ids of tasks in the order in which workers received them. A task that is received before its publication is recorded has no event
/// for the publication.
fn received(env: &Harness) -> Vec<String> {
    let sql = "select t.task_id from taskgate.tasks t where t.received_at is not null order by t.received_at";
    postgres::query(&env.database, sql).lines().map(str::to_owned).collect()
}

/// Ids of the tasks that succeeded, in the order in which they ended.
fn finished(env: &Harness) -> Vec<String> {
    let sql = "select t.task_id from taskgate.tasks t where t.phase = 'succeeded' order by t.finished_at";
    postgres::query(&env.database, sql).lines().map(str::to_owned).collect()
}

/// The largest number of messages of a queue that were published and not yet received, according to the ledger.
fn most_in_broker(env: &Harness, queue: &str) -> i64 {
    let sql = format!(
        "select case when e.phase = 'queued' then 1 else -1 end from taskgate.event e \
         join taskgate.tasks t on t.task_no = e.task_no where t.queue = '{queue}' and (e.phase = 'queued' or (e.seq = \
         (select min(f.seq) from taskgate.event f where f.task_no = e.task_no and f.phase not in ('accepted', 'held', 'queued')) \
         and exists (select 1 from taskgate.event q where q.task_no = e.task_no and q.phase = 'queued' and q.seq < e.seq))) \
         order by e.feed"
    );
    let (mut open, mut most) = (0, 0);
    for step in postgres::query(&env.database, &sql).lines() {
        open += step.parse::<i64>().expect("a number");
        most = most.max(open);
    }
    most
}

async fn explained(http: &crate::harness::Http, id: &str, words: &str) -> Value {
    crate::harness::eventually(&format!("{id} waits: {words}"), async || {
        let why = http.get(&format!("/v1/tasks/{id}/explain")).await.expect(200);
        why["sentence"].as_str().unwrap_or_default().contains(words).then_some(why)
    })
    .await
}
