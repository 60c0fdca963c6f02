//! How fast a queue drains through a Celery worker, with a release window and without one, in turns.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Celery, CeleryOptions, Gateway, postgres};
use super::{AFTER_START, Bench, SETTINGS};

const TASKS: usize = 4_000;
/// Not counted: the worker starts, its pool warms up.
const FIRST: usize = 500;
const ROUNDS: usize = 2;
const WINDOWS: [u32; 2] = [100, 1_000];

pub async fn measure(bench: &mut Bench) {
    bench.table.heading(&format!("A queue of {TASKS} short tasks drains through a Celery worker with 2 processes"));
    let mut without = 0.0_f64;
    let mut with = [0.0_f64; WINDOWS.len()];
    for _ in 0..ROUNDS {
        without = without.max(drained(bench, "").await);
        for (window, best) in WINDOWS.iter().zip(&mut with) {
            *best = best.max(drained(bench, &format!("[queues.celery]\nwindow = {window}\n")).await);
        }
    }
    bench.table.note(format!("without a window: {without:.0} tasks/s"));
    for (window, rate) in WINDOWS.iter().zip(with) {
        bench
            .table
            .note(format!("with a window of {window}: {rate:.0} tasks/s, {:.1} % of that", 100.0 * rate / without));
    }
    bench.renew();
}

/// Tasks a second, of all but the first.
async fn drained(bench: &mut Bench, config: &str) -> f64 {
    bench.renew();
    bench.gateway =
        Gateway::serve(&bench.database, &bench.redis.url(0), &bench.redis.url(1), &format!("{SETTINGS}{config}"));
    tokio::time::sleep(AFTER_START).await;
    let http = bench.http();
    let task = json!({"task": "demo.null", "args": [1]});
    for _ in 0..TASKS / 1_000 {
        http.post("/v1/tasks/batch", &Value::from(vec![task.clone(); 1_000])).await.expect(202);
    }
    let _celery = Celery::start(&bench.redis, CeleryOptions::default());
    while figure(bench, "select count(*) from taskgate.ended") < TASKS as f64 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let span = format!(
        "select max(finished_at) - min(finished_at) from \
         (select finished_at from taskgate.ended order by finished_at offset {FIRST}) as counted"
    );
    (TASKS - FIRST) as f64 * 1e6 / figure(bench, &span)
}

fn figure(bench: &Bench, sql: &str) -> f64 {
    postgres::query(&bench.database, sql).trim().parse().expect("a number")
}
