//! Advice about sizes: in incidents and in `taskgate check`, each with its figures.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::Latch;
use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::gateway;
use crate::harness::wait::within;

/// Time for a thousand Python tasks on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// The detail of an incident, when there is one.
async fn told(env: &Lent<Box<Harness>>, kind: &str, subject: &str) -> Option<String> {
    let incidents = env.http.get("/v1/incidents").await.expect(200);
    let incidents = incidents["incidents"].as_array().expect("incidents");
    let found = incidents.iter().find(|incident| incident["kind"] == kind && incident["subject"] == subject)?;
    found["detail"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn sizes_that_do_no_good_are_told_with_their_figures() {
    let config = "[incidents]\nno_progress_after = '1s'\n".to_owned();
    let env = Harness::start(&Options { config, ..Options::default() });
    let large = env.submit("demo.identity", json!(["x".repeat(3 << 19)])).await;
    env.finished(&large).await;
    let calls: Vec<Value> = (0..750).map(|index| json!({"task": "demo.add", "args": [index, 1]})).collect();
    // Events may be lost, so the run time of some tasks is unknown.
    for _ in 0..2 {
        let sent = env.http.post("/v1/tasks/batch", &json!(calls)).await.expect(202);
        assert_eq!(sent["accepted"], 750, "{}", sent["rejected"]);
    }
    within(PATIENCE, "short tasks are told", async || {
        let detail = told(&env, "short_tasks", "demo.add").await?;
        detail.contains("demo.add ran 1").then_some(())
    })
    .await;
    within(PATIENCE, "a large result is told", async || {
        let detail = told(&env, "large_results", "demo.identity").await?;
        detail.contains("1 of the 1 newest results of demo.identity").then_some(())
    })
    .await;
    let latch = Latch::closed();
    let silent = env.submit("demo.until", latch.args(())).await;
    let vocal = env.submit("demo.progress_until", latch.args(())).await;
    within(PATIENCE, "a task without progress is told", async || {
        let detail = told(&env, "no_progress", &silent).await?;
        detail.contains("demo.until has run for").then_some(())
    })
    .await;
    within(PATIENCE, "a task that tells how far it is is no incident", async || {
        told(&env, "no_progress", &vocal).await.is_none().then_some(())
    })
    .await;
    latch.open();
    let address = [
        ("DATABASE_URL", env.database.clone()),
        ("CELERY_BROKER_URL", env.redis.url(0)),
        ("CELERY_RESULT_BACKEND", env.redis.url(1)),
        ("TASKGATE_AUTH", "none".to_owned()),
    ];
    let address: Vec<(&str, &str)> = address.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let said = String::from_utf8(gateway::run(&["check"], &address).stdout).expect("text");
    for words in ["demo.add ran 1", "newest results of demo.identity"] {
        assert!(said.lines().any(|line| line.starts_with("warning") && line.contains(words)), "{words}: {said}");
    }
}
