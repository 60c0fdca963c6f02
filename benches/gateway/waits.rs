//! How late steps that wait or sleep end on an idle system: until the end is in the ledger, and until the next task is in Redis.

use std::time::Duration;

use serde_json::{Value, json};

use super::Bench;
use super::harness::{postgres, wait};

const STEPS: usize = 200;
/// Seconds between two ends.
const APART: f64 = 0.037;
const ENDED: &str =
    "select ended_at - expires_at as late from taskgate.wait where is_sleep = $SLEEP and ended_at is not null";
const FOLLOWED: &str = "select t.queued_at - w.expires_at as late from taskgate.wait w join taskgate.tasks t on t.root_id = w.task_id \
    where w.is_sleep = $SLEEP and t.queued_at is not null";

pub async fn measure(bench: &mut Bench) {
    bench.renew();
    bench.table.heading("a step that waits or sleeps, on an idle system");
    let sleeps = |seconds: f64| json!({"sleep": seconds});
    let waits = |seconds: f64| json!({"wait": {"name": "bench", "timeout": seconds, "on_timeout": "skip"}});
    of_kind(bench, "sleeps", true, &sleeps).await;
    of_kind(bench, "waits that nobody answers", false, &waits).await;
}

async fn of_kind(bench: &mut Bench, what: &str, is_sleep: bool, step: &dyn Fn(f64) -> Value) {
    let http = bench.http();
    let next = json!({"task": "demo.add", "args": [1, 2], "queue": "bench", "immutable": true});
    for n in 0..STEPS {
        // All steps are in the ledger before the first one ends.
        let chain = json!({"chain": [step(10.0 + APART * n as f64), next]});
        http.post("/v1/tasks", &chain).await.expect(202);
    }
    note(bench, &format!("{what}: ended in the ledger"), &of(ENDED, is_sleep)).await;
    note(bench, &format!("{what}: the next task in Redis"), &of(FOLLOWED, is_sleep)).await;
}

fn of(question: &str, is_sleep: bool) -> String {
    question.replace("$SLEEP", if is_sleep { "true" } else { "false" })
}

async fn note(bench: &mut Bench, what: &str, late: &str) {
    let part = |share: &str| format!("coalesce(percentile_disc({share}) within group (order by late), 0)");
    let question =
        format!("select count(late), {}, {}, coalesce(max(late), 0) from ({late}) l", part("0.5"), part("0.99"));
    let told = wait::within(Duration::from_secs(120), "all have ended", async || {
        let told = postgres::query(&bench.database, &question);
        told.starts_with(&format!("{STEPS}|")).then_some(told)
    })
    .await;
    let millis: Vec<f64> =
        told.split('|').skip(1).map(|text| text.parse::<f64>().expect("a number") / 1_000.0).collect();
    bench.table.note(format!(
        "{what}: {STEPS} steps, p50 {:.1} ms, p99 {:.1} ms, at most {:.1} ms late",
        millis[0], millis[1], millis[2]
    ));
}
