//! Incidents are reported, and end when the condition is over.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::wait::within;
use crate::harness::{CeleryOptions, Latch, eventually};

const SHORT: &str = "[incidents]\nsilent_after = '3s'\nunserved_after = '1s'\nundrained_after = '1s'\n\
     [[tasks]]\nname = 'demo.until'\nbudget = '1s'\n";
const PATIENCE: Duration = Duration::from_secs(120);

type Env = Lent<Box<Harness>>;

async fn incident(env: &Env, kind: &str, subject: &str) -> Option<Value> {
    let all = env.http.get("/v1/incidents").await.expect(200);
    let all = all["incidents"].as_array().expect("a list").clone();
    all.into_iter().find(|one| one["kind"] == kind && one["subject"] == subject)
}

async fn is_said(env: &Env, kind: &str, subject: &str) {
    let said =
        within(PATIENCE, &format!("{kind} of {subject} is said"), async || incident(env, kind, subject).await).await;
    assert!(said["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{said}");
    let metrics = env.http.get("/metrics").await.text();
    assert!(metrics.contains(&format!("taskgate_incidents{{kind=\"{kind}\"}} 1")), "{metrics}");
    assert!(!logged(env, "WARN", kind, subject).is_empty(), "it is in the log: {said}\n{}", env.gateway.log());
}

/// Lines of the log about one incident. Its duration may change between two checks, so the words are not compared.
fn logged(env: &Env, level: &str, kind: &str, subject: &str) -> Vec<String> {
    let (kind, subject) = (format!("kind=\"{kind}\""), format!("subject=\"{subject}\""));
    let log = env.gateway.log();
    let about = |line: &&str| line.contains(level) && line.contains(&kind) && line.contains(&subject);
    log.lines().filter(about).map(str::to_owned).collect()
}

/// One line for the beginning and one for the end: an incident that lasts is not logged again.
fn is_logged_once(env: &Env, kind: &str, subject: &str) {
    for level in ["WARN", "INFO"] {
        let lines = logged(env, level, kind, subject);
        assert_eq!(lines.len(), 1, "{level}: {lines:?}");
    }
}

async fn is_over(env: &Env, kind: &str, subject: &str) {
    within(PATIENCE, &format!("{kind} of {subject} is over"), async || {
        incident(env, kind, subject).await.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_takes_nothing_is_said_to_be_silent_until_it_does() {
    let celery = CeleryOptions { concurrency: 1, ..CeleryOptions::default() };
    let env = Harness::start(&Options { celery, config: SHORT.into(), ..Options::default() });
    eventually("its queues are known", async || {
        let workers = env.http.get("/v1/workers").await.expect(200);
        workers["workers"][0]["queues"].as_array().is_some_and(|queues| !queues.is_empty()).then_some(())
    })
    .await;
    // Everything that it may prefetch waits for a rate limit: it sends heartbeats, runs nothing, and has a backlog. Now and then it takes
    // a task.
    let limit = json!({"arguments": {"task_name": "demo.limited", "rate_limit": "5/m"}, "timeout": 2});
    env.http.post("/v1/control/rate_limit", &limit).await.expect(200);
    for n in 0..12 {
        env.submit("demo.limited", json!([n])).await;
    }
    is_said(&env, "silent_worker", "w1@test").await;
    is_over(&env, "silent_worker", "w1@test").await;
}

#[tokio::test]
async fn queues_tasks_and_the_outbox_are_watched() {
    let mut env = Harness::start(&Options { config: SHORT.into(), ..Options::default() });
    let nobody = env.submit_signature(json!({"task": "demo.identity", "args": [1], "queue": "nobodys"})).await;
    let latch = Latch::closed();
    let long = env.submit("demo.until", latch.args(())).await;
    is_said(&env, "no_consumer", "nobodys").await;
    is_said(&env, "over_budget", &long).await;
    env.http.post(&format!("/v1/tasks/{nobody}/revoke"), &json!({})).await.expect(200);
    is_over(&env, "no_consumer", "nobodys").await;
    latch.open();
    env.finished(&long).await;
    is_over(&env, "over_budget", &long).await;
    is_logged_once(&env, "no_consumer", "nobodys");
    is_logged_once(&env, "over_budget", &long);

    env.redis.kill();
    let waits = env.submit("demo.identity", json!([2])).await;
    is_said(&env, "outbox_stuck", "outbox").await;
    env.redis.restart();
    env.finished(&waits).await;
    is_over(&env, "outbox_stuck", "outbox").await;
}
