//! Fair shares: how long a small tenant waits behind a large one, and what weights come to.

use std::time::Duration;

use serde_json::json;

use super::filling::submit;
use super::harness::{Celery, CeleryOptions, Gateway, postgres, wait};
use super::played::median;
use super::{AFTER_START, Bench, SETTINGS};

const LARGE: usize = 10_000;
const SMALL: usize = 10;
const SLOTS: u32 = 8;
const ROUNDS: usize = 3;
/// Tasks of each of two keys, and how many starts are counted, of both.
const SHARED: usize = 6_000;
const COUNTED: i64 = 6_000;
const LABELLED: &str = "from taskgate.tasks t join taskgate.label l on l.task_no = t.task_no and l.key = 'of'";
const PATIENCE: Duration = Duration::from_secs(180);

pub async fn measure(bench: &mut Bench) {
    bench.table.heading(&format!("Fair shares of one queue, through a Celery worker with {SLOTS} threads"));
    let mut between = Vec::new();
    for _ in 0..ROUNDS {
        between.push(behind_a_large_one(bench).await);
    }
    bench.table.note(format!(
        "A submits {LARGE}, then B {SMALL}: tasks of A that start after B came and before B's last, in {ROUNDS} rounds: {between:?} (< 40)"
    ));
    let mut shares = Vec::new();
    for _ in 0..ROUNDS {
        shares.push(by_weight(bench).await);
    }
    let share = median(shares.clone());
    let away = (share / (2.0 / 3.0) - 1.0) * 100.0;
    bench.table.note(format!(
        "weights 2 and 1: the first has {:.2} % of {COUNTED} starts (median of {shares:.4?}), {away:+.2} % away from two thirds",
        share * 100.0
    ));
    bench.renew();
}

pub async fn begin(bench: &mut Bench, config: &str) {
    bench.renew();
    let config = format!("{SETTINGS}limits.backlog = 2000000\n{config}");
    bench.gateway = Gateway::serve(&bench.database, &bench.redis.url(0), &bench.redis.url(1), &config);
    tokio::time::sleep(AFTER_START).await;
}

fn worker(bench: &Bench) -> Celery {
    let settings = json!({"worker_prefetch_multiplier": 1});
    Celery::start(
        &bench.redis,
        CeleryOptions { concurrency: SLOTS, pool: "threads", settings, ..CeleryOptions::default() },
    )
}

fn figure(bench: &Bench, sql: &str) -> i64 {
    postgres::query(&bench.database, sql).trim().parse().expect("a number")
}

async fn until(bench: &Bench, what: &str, sql: &str, least: i64) {
    wait::within(PATIENCE, what, async || (figure(bench, sql) >= least).then_some(())).await;
}

/// How many tasks of the large tenant start between the arrival of the small one and the start of its last task.
async fn behind_a_large_one(bench: &mut Bench) -> i64 {
    begin(bench, "").await;
    let task = |key: &str| json!({"task": "demo.sleep", "args": [0.02], "labels": {"of": key}, "fair": {"key": key}});
    let large = task("a");
    submit(bench, LARGE, move |_| large.clone()).await;
    let _celery = worker(bench);
    until(bench, "A has begun", "select count(*) from taskgate.tasks where started_at is not null", 200).await;
    let came = jiff::Timestamp::now().as_microsecond();
    let small = task("b");
    submit(bench, SMALL, move |_| small.clone()).await;
    let of = |key: &str| format!("{LABELLED} where l.value = '{key}'");
    let started = format!("select count(*) {} and t.started_at is not null", of("b"));
    until(bench, "all of B have started", &started, SMALL as i64).await;
    let last = figure(bench, &format!("select max(t.started_at) {}", of("b")));
    figure(bench, &format!("select count(*) {} and t.started_at > {came} and t.started_at < {last}", of("a")))
}

/// The part of the starts that the key of weight 2 has while both have tasks.
async fn by_weight(bench: &mut Bench) -> f64 {
    begin(bench, "").await;
    submit(bench, SHARED * 2, |n| {
        let (key, weight) = if n % 2 == 0 { ("two", 2) } else { ("one", 1) };
        json!({"task": "demo.null", "labels": {"of": key}, "fair": {"key": key, "weight": weight}})
    })
    .await;
    let _celery = worker(bench);
    let started = "select count(*) from taskgate.tasks where started_at is not null";
    until(bench, "many have started", started, COUNTED + 200).await;
    let sql = format!(
        "select count(*) from (select l.value {LABELLED} where t.started_at is not null \
         order by t.started_at limit {COUNTED}) s where s.value = 'two'"
    );
    figure(bench, &sql) as f64 / COUNTED as f64
}
