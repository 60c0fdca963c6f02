//! How fast a queue drains through a Celery worker, with a release window and without one, in turns. Each round compares queues that
//! were drained one after the other, because the machine may do something else beside; the figure is the median of the rounds.

use std::time::Duration;

use serde_json::json;

use super::filling::submit;
use super::harness::{Celery, CeleryOptions, Gateway, postgres};
use super::played::median;
use super::{AFTER_START, Bench, SETTINGS};

const TASKS: usize = 3_000;
/// Not counted: the tasks are still being submitted.
const FIRST: usize = 500;
const ROUNDS: usize = 7;
const PROMISED: f64 = 95.0;
/// Without a window, and with ones of 100 and 1,000 messages.
const PLAIN: &str = "plain";
const WINDOWS: [(u32, &str); 2] = [(100, "small"), (1_000, "large")];
const CONFIG: &str = "[queues.plain]\nwindow = 0\n[queues.small]\nwindow = 100\n[queues.large]\nwindow = 1000\n";
const PATIENCE: Duration = Duration::from_secs(120);

pub async fn measure(bench: &mut Bench) {
    bench.table.heading(&format!("A queue of {TASKS} short tasks drains through a Celery worker with 2 processes"));
    bench.renew();
    let config = format!("{SETTINGS}{CONFIG}");
    bench.gateway = Gateway::serve(&bench.database, &bench.redis.url(0), &bench.redis.url(1), &config);
    tokio::time::sleep(AFTER_START).await;
    let queues = format!("{PLAIN},{}", WINDOWS.map(|(_, queue)| queue).join(","));
    let mut celery = Celery::start(&bench.redis, CeleryOptions { queues, ..CeleryOptions::default() });
    celery.wait_until_ready();
    // Not counted: the worker's processes, the statements and the tables begin cold.
    drained(bench, PLAIN).await;
    let mut without = vec![drained(bench, PLAIN).await];
    let mut shares = [const { Vec::new() }; WINDOWS.len()];
    for _ in 0..ROUNDS {
        let mut with = Vec::new();
        for (_, queue) in WINDOWS {
            with.push(drained(bench, queue).await);
        }
        let before = without.last().copied().unwrap_or_default();
        let after = drained(bench, PLAIN).await;
        without.push(after);
        for (shares, rate) in shares.iter_mut().zip(with) {
            // What else the machine did may have changed in between.
            shares.push(100.0 * rate / f64::midpoint(before, after));
        }
    }
    bench.table.note(format!("without a window: {:.0} tasks/s", median(without)));
    for ((window, _), shares) in WINDOWS.iter().zip(shares) {
        let share = median(shares.clone());
        bench.table.note(format!(
            "with a window of {window}: {share:.1} % of that (rounds: {shares:.1?})   {}",
            if share >= PROMISED { "holds" } else { "DOES NOT HOLD" }
        ));
    }
    drop(celery);
    bench.renew();
}

/// Tasks a second, of all but the first.
async fn drained(bench: &Bench, queue: &'static str) -> f64 {
    let before = figure(bench, "select coalesce(max(task_no), 0) from taskgate.ended");
    submit(bench, TASKS, move |_| json!({"task": "demo.null", "args": [1], "queue": queue})).await;
    let ended = format!("select count(*) from taskgate.ended where task_no > {before}");
    let until = std::time::Instant::now() + PATIENCE;
    while figure(bench, &ended) < TASKS as f64 {
        assert!(std::time::Instant::now() < until, "the queue {queue} does not drain");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let span = format!(
        "select max(finished_at) - min(finished_at) from \
         (select finished_at from taskgate.ended where task_no > {before} order by finished_at offset {FIRST}) as counted"
    );
    (TASKS - FIRST) as f64 * 1e6 / figure(bench, &span)
}

fn figure(bench: &Bench, sql: &str) -> f64 {
    postgres::query(&bench.database, sql).trim().parse().expect("a number")
}
