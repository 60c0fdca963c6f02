//! A thousand schedules that are due in the same second: how late their tasks are committed and in Redis.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::Bench;
use super::harness::{postgres, wait};

const SCHEDULES: usize = 1_000;
/// Seconds between the creation of the first schedule and the first tick.
const AHEAD: i64 = 30;
const APART: i64 = 5;
const TICKS: i64 = 3;
/// Simultaneous requests that create schedules.
const CREATING: usize = 32;
const QUESTION: &str = "select count(*), \
    coalesce(percentile_disc(0.5) within group (order by t.queued_at - r.scheduled_at), 0), \
    coalesce(percentile_disc(0.99) within group (order by t.queued_at - r.scheduled_at), 0) \
    from taskgate.schedule_run r join taskgate.tasks t on t.task_id = r.task_id where t.queued_at is not null and r.scheduled_at = ";

pub async fn measure(bench: &mut Bench) {
    bench.table.heading(&format!("{SCHEDULES} schedules that are due in the same second"));
    let http = bench.http();
    let first = jiff::Timestamp::now().as_second() + AHEAD;
    let create = async |tick: i64, n: usize| {
        let at = jiff::Timestamp::from_second(first + tick * APART).expect("a time near to now").to_string();
        let name = format!("bench-{tick}-{n}");
        let schedule = json!({"name": name, "task": "demo.add", "args": [1, 2], "queue": "bench", "at": at});
        http.post("/v1/schedules", &schedule).await.expect(201);
    };
    for tick in 0..TICKS {
        for chunk in (0..SCHEDULES).collect::<Vec<_>>().chunks(CREATING) {
            join_all(chunk.iter().map(|n| create(tick, *n))).await;
        }
    }
    for tick in 0..TICKS {
        let question = format!("{QUESTION}{}", (first + tick * APART) * 1_000_000);
        let told = wait::within(Duration::from_secs(90), "all are in Redis", async || {
            let told = postgres::query(&bench.database, &question);
            told.starts_with(&format!("{SCHEDULES}|")).then_some(told)
        })
        .await;
        let millis: Vec<f64> =
            told.split('|').skip(1).map(|text| text.parse::<f64>().expect("a number") / 1_000.0).collect();
        bench.table.note(format!(
            "tick {}: committed and in Redis p50 {:.1} ms, p99 {:.1} ms late",
            tick + 1,
            millis[0],
            millis[1]
        ));
    }
}
