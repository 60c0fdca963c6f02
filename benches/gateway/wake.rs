//! How late a task that waits for its start time or for a rate is in Redis, on an idle system.

use std::time::Duration;

use serde_json::json;

use super::harness::{Gateway, postgres, wait};
use super::{Bench, SETTINGS};

const TASKS: usize = 35;
/// A rate of one task every 100 ms.
const RATED: &str = "[[tasks]]\nname = 'demo.mul'\nrate_limit = '600/m'\n";
const SCHEDULED: &str = "select queued_at - due_at as late from taskgate.tasks where name = 'demo.add'";
/// Lateness compared with even spacing from the first task on, because a task after a late one is released sooner.
const SPACED: &str = "select queued_at - min(queued_at) over () - 100000 * (row_number() over (order by task_no) - 1) as late \
    from taskgate.tasks where name = 'demo.mul'";

pub async fn measure(bench: &mut Bench) {
    bench.renew();
    bench.table.heading("a task that waits, on an idle system");
    bench.gateway =
        Gateway::serve(&bench.database, &bench.redis.url(0), &bench.redis.url(1), &format!("{SETTINGS}{RATED}"));
    let http = bench.http();
    for n in 0..TASKS {
        let countdown = 1.0 + 0.217 * n as f64;
        let task = json!({"task": "demo.add", "args": [1, 2], "queue": "bench", "countdown": countdown});
        http.post("/v1/tasks", &task).await.expect(202);
    }
    note(bench, "scheduled by a countdown", SCHEDULED).await;
    for _ in 0..TASKS {
        let task = json!({"task": "demo.mul", "args": [1, 2], "queue": "bench"});
        http.post("/v1/tasks", &task).await.expect(202);
    }
    note(bench, "under a rate of ten a second", SPACED).await;
    let metrics = http.get("/metrics").await.text();
    let polls = metrics.lines().find(|line| line.starts_with("taskgate_fallback_polls_total{")).unwrap_or_default();
    bench.table.note(polls.to_owned());
}

async fn note(bench: &mut Bench, what: &str, late: &str) {
    let question = format!(
        "select count(late), coalesce(percentile_disc(0.5) within group (order by late), 0), coalesce(max(late), 0) from ({late}) l"
    );
    let told = wait::within(Duration::from_secs(60), "all are in Redis", async || {
        let told = postgres::query(&bench.database, &question);
        told.starts_with(&format!("{TASKS}|")).then_some(told)
    })
    .await;
    let millis: Vec<f64> =
        told.split('|').skip(1).map(|text| text.parse::<f64>().expect("a number") / 1_000.0).collect();
    bench.table.note(format!("{what}: {TASKS} tasks, p50 {:.1} ms, at most {:.1} ms late", millis[0], millis[1]));
}
