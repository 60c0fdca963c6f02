//! A task that may be published never waits for a poll: a due time, a rate, a free place under a limit and a resumed queue each wake the
//! relay.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::postgres::cluster;
use crate::harness::wait::within;
use crate::harness::{Celery, CeleryOptions, Gateway, Http, Redis, RedisOptions};

const PATIENCE: Duration = Duration::from_secs(60);
const RATED: &str = "[[tasks]]\nname = 'demo.mul'\nrate_limit = '600/m'\n";

async fn in_phase(http: &Http, id: &str, phase: &str) {
    within(PATIENCE, &format!("it is {phase}"), async || {
        let task = http.get(&format!("/v1/tasks/{id}")).await.expect(200);
        (task["phase"] == phase).then_some(())
    })
    .await;
}

async fn submit(http: &Http, body: Value) -> String {
    http.post("/v1/tasks", &body).await.expect(202)["task_id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn what_waits_for_a_time_a_rate_a_limit_or_a_queue_is_woken_and_not_found_by_a_poll() {
    let redis = Redis::start(RedisOptions::default());
    let _celery = Celery::start(&redis, CeleryOptions::default());
    let gateway = Gateway::serve(&cluster().migrated_database(), &redis.url(0), &redis.url(1), RATED);
    let http = gateway.http();
    let mut ids = Vec::new();
    for countdown in [0.7, 1.3, 1.301, 2.1, 2.104] {
        ids.push(submit(&http, json!({"task": "demo.add", "args": [1, 2], "countdown": countdown})).await);
    }
    for _ in 0..6 {
        ids.push(submit(&http, json!({"task": "demo.mul", "args": [1, 2]})).await);
    }
    for _ in 0..4 {
        let limits = json!([{"key": "one", "max": 1}]);
        ids.push(submit(&http, json!({"task": "demo.add", "args": [1, 2], "limits": limits})).await);
    }
    // No worker reads this queue: its resumed tasks stay in Redis, and no worker is told to stop.
    http.post("/v1/queues/aside/pause", &json!({})).await.expect(200);
    let aside = submit(&http, json!({"task": "demo.add", "args": [1, 2], "queue": "aside"})).await;
    http.post("/v1/queues/aside/resume", &json!({})).await.expect(200);
    in_phase(&http, &aside, "queued").await;
    let at = (jiff::Timestamp::now() + Duration::from_secs(2)).to_string();
    let schedule = json!({"name": "wake", "task": "demo.mul", "args": [1, 2], "at": at});
    http.post("/v1/schedules", &schedule).await.expect(201);
    for id in &ids {
        in_phase(&http, id, "succeeded").await;
    }
    let run = within(PATIENCE, "the schedule fired", async || {
        let runs = http.get("/v1/schedules/wake/runs").await.expect(200);
        runs["runs"][0]["task_id"].as_str().map(str::to_owned)
    })
    .await;
    in_phase(&http, &run, "succeeded").await;
    let metrics = http.get("/metrics").await.text();
    assert!(metrics.contains("taskgate_fallback_polls_total{service=\"relay\"} 0"), "{metrics}");
}
