//! A thousand schedules that are due in the same second: how late each is in the ledger, and in Redis.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::Bench;
use super::harness::{postgres, wait};

const SCHEDULES: usize = 1_000;
/// Between the creation of the first and the common tick.
const AHEAD: i64 = 30;
/// Requests that create them, at a time.
const CREATING: usize = 32;
const QUESTION: &str = "select count(*), \
    coalesce(percentile_disc(0.5) within group (order by r.fired_at - r.scheduled_at), 0), \
    coalesce(percentile_disc(0.99) within group (order by r.fired_at - r.scheduled_at), 0), \
    coalesce(percentile_disc(0.99) within group (order by t.queued_at - r.scheduled_at), 0) \
    from taskgate.schedule_run r join taskgate.task t on t.task_id = r.task_id where t.queued_at is not null";

pub async fn measure(bench: &mut Bench) {
    bench.table.heading("Schedules");
    let http = bench.http();
    let at = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + AHEAD).expect("a time near to now");
    let create = async |n: usize| {
        let schedule = json!({"name": format!("bench-{n}"), "task": "demo.add", "args": [1, 2], "queue": "bench", "at": at.to_string()});
        http.post("/v1/schedules", &schedule).await.expect(201);
    };
    for chunk in (0..SCHEDULES).collect::<Vec<_>>().chunks(CREATING) {
        join_all(chunk.iter().map(|n| create(*n))).await;
    }
    let told = wait::within(Duration::from_secs(60), "all are in Redis", async || {
        let told = postgres::query(&bench.database, QUESTION);
        told.starts_with(&format!("{SCHEDULES}|")).then_some(told)
    })
    .await;
    let millis: Vec<f64> =
        told.split('|').skip(1).map(|text| text.parse::<f64>().expect("a number") / 1_000.0).collect();
    bench.table.note(format!(
        "{SCHEDULES} due in one second: fired p50 {:.1} ms, p99 {:.1} ms late; in Redis p99 {:.1} ms late",
        millis[0], millis[1], millis[2]
    ));
}
