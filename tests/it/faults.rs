//! Redis, the gateway and the worker stop and come back: no accepted task is lost, none runs twice (P1, P2, P3, P5).

use std::time::Duration;

use serde_json::json;

use crate::harness::environment::{Harness, Options};
use crate::harness::{CeleryOptions, Latch, RedisOptions, eventually};

/// How often the worker took each task, read from its own log.
fn times_received(log: &str, id: &str) -> usize {
    log.matches(&format!("[{id}] received")).count()
}

#[tokio::test]
async fn without_redis_tasks_are_accepted_and_published_in_order_later() {
    let options = CeleryOptions { concurrency: 1, ..CeleryOptions::default() };
    let mut env = Harness::start(&Options { celery: options, ..Options::default() });
    env.redis.kill();
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(env.submit("demo.identity", json!([n])).await);
    }
    let first = env.http.get(&format!("/v1/tasks/{}", ids[0])).await.expect(200);
    assert_eq!(first["phase"], "accepted", "{first}");
    eventually("/readyz says that Redis is away", async || {
        let ready = env.http.get("/readyz").await;
        (ready.status == 200 && ready.json()["redis"] != true && ready.json()["redis"] != "ok").then_some(())
    })
    .await;
    env.redis.restart();
    let log = || env.celery.as_ref().expect("a worker").log();
    for id in &ids {
        assert_eq!(env.finished(id).await["status"], "SUCCESS");
    }
    let log = log();
    let places: Vec<_> = ids.iter().map(|id| log.find(&format!("[{id}] received")).expect("received")).collect();
    assert!(places.is_sorted(), "published in another order: {places:?}");
    assert!(ids.iter().all(|id| times_received(&log, id) == 1));
}

#[tokio::test]
async fn results_are_answered_without_redis() {
    let mut env = Harness::start(&Options::default());
    let id = env.submit("demo.add", json!([1, 2])).await;
    env.finished(&id).await;
    env.redis.kill();
    assert_eq!(env.http.get(&format!("/result/{id}")).await.expect(200)["result"], 3);
    assert_eq!(env.http.get(&format!("/v1/tasks/{id}")).await.expect(200)["phase"], "succeeded");
    assert_eq!(env.http.get("/v1/tasks").await.expect(200)["tasks"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_gateway_killed_after_its_answers_publishes_each_task_once() {
    let mut env = Harness::start(&Options::default());
    let http = env.http.clone();
    let submissions = (0..60).map(|n| {
        let (http, body) = (http.clone(), json!({"task": "demo.identity", "args": [n]}));
        async move { http.post("/v1/tasks", &body).await.expect(202)["task_id"].as_str().expect("an id").to_owned() }
    });
    let ids: Vec<String> = futures_util::future::join_all(submissions).await;
    env.gateway.kill();
    env.gateway.restart();
    for id in &ids {
        assert_eq!(env.finished(id).await["status"], "SUCCESS");
    }
    let log = env.celery.as_ref().expect("a worker").log();
    let wrong: Vec<_> = ids.iter().filter(|id| times_received(&log, id) != 1).collect();
    assert!(wrong.is_empty(), "received twice or never: {wrong:?}");
}

#[tokio::test]
async fn what_ended_while_no_gateway_ran_is_learnt_later() {
    let mut env = Harness::start(&Options::default());
    let latch = Latch::closed();
    let id = env.submit("demo.until", latch.args("done meanwhile")).await;
    env.in_phase(&id, "running").await;
    env.gateway.kill();
    latch.open();
    let key = format!("celery-task-meta-{id}");
    eventually("the worker stores its result", async || {
        (env.redis.command::<u32>(1, &["EXISTS", &key]) == 1).then_some(())
    })
    .await;
    env.gateway.restart();
    let done = env.finished(&id).await;
    assert_eq!((&done["status"], &done["result"]), (&json!("SUCCESS"), &json!("done meanwhile")), "{done}");
}

#[tokio::test]
async fn a_stop_is_orderly_and_ends_streams() {
    let mut env = Harness::start(&Options { without_worker: true, ..Options::default() });
    let id = env.submit("demo.add", json!([1, 1])).await;
    let mut stream = env.http.events(&format!("/v1/tasks/{id}/events"), &[]).await;
    assert_eq!(stream.next().await.expect("a snapshot").event, "snapshot");
    let code = env.gateway.stop(Duration::from_secs(10));
    assert_eq!(code, Some(0), "{}", env.gateway.log());
    // The snapshot may be from before the publication; no other outcome is allowed.
    assert!(
        stream.rest().await.iter().all(|event| event.event == "state"),
        "the stream ends without an end of the task"
    );
    env.gateway.restart();
    assert_eq!(env.http.get(&format!("/v1/tasks/{id}")).await.expect(200)["phase"], "queued");
}

#[tokio::test]
async fn a_redis_that_needs_a_password_and_restarts_with_its_data_is_fine() {
    let redis = RedisOptions { appendonly: true, password: Some("s3cret".into()), ..RedisOptions::default() };
    let mut env = Harness::start(&Options { redis, ..Options::default() });
    assert_eq!(env.run("demo.add", json!([1, 2])).await["result"], 3);
    env.redis.restart();
    assert_eq!(env.run("demo.add", json!([3, 4])).await["result"], 7);
    assert!(!env.gateway.log().contains("s3cret"), "the password is in the log");
}
