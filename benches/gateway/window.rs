//! How fast a queue drains through a Celery worker, with a release window and without one, in turns. Each round compares the runs that
//! followed each other, because the machine may do something else beside; the figure is the median of the rounds.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Celery, CeleryOptions, Gateway, postgres};
use super::played::median;
use super::{AFTER_START, Bench, SETTINGS};

const TASKS: usize = 4_000;
/// Not counted: the worker starts, its pool warms up.
const FIRST: usize = 500;
const ROUNDS: usize = 5;
const WINDOWS: [u32; 2] = [100, 1_000];
const PROMISED: f64 = 95.0;

pub async fn measure(bench: &mut Bench) {
    bench.table.heading(&format!("A queue of {TASKS} short tasks drains through a Celery worker with 2 processes"));
    let mut without = Vec::new();
    let mut shares = [const { Vec::new() }; WINDOWS.len()];
    for _ in 0..ROUNDS {
        let before = drained(bench, "").await;
        let mut with = Vec::new();
        for window in WINDOWS {
            with.push(drained(bench, &format!("[queues.celery]\nwindow = {window}\n")).await);
        }
        let after = drained(bench, "").await;
        // What else the machine did may have changed in between.
        let beside = f64::midpoint(before, after);
        without.extend([before, after]);
        for (shares, rate) in shares.iter_mut().zip(with) {
            shares.push(100.0 * rate / beside);
        }
    }
    bench.table.note(format!("without a window: {:.0} tasks/s", median(without)));
    for (window, shares) in WINDOWS.iter().zip(shares) {
        let share = median(shares.clone());
        bench.table.note(format!(
            "with a window of {window}: {share:.1} % of that (rounds: {shares:.1?})   {}",
            if share >= PROMISED { "holds" } else { "DOES NOT HOLD" }
        ));
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
