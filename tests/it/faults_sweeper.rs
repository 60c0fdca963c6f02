//! Redis loses data or comes back with older data, and workers die while they have tasks (P4, P5, P9).

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::wait::within;
use crate::harness::{Celery, CeleryOptions, Latch, eventually};

/// Surveys more often than in production, so that a test takes seconds.
const QUICK: &str = "[sweeper]\nperiod = '1s'\ngrace = '500ms'\nworker_lost_after = '5s'\n";
/// A worker counts as dead after `worker_lost_after` without heartbeats; two surveys follow.
const SETTLED: Duration = Duration::from_secs(120);

fn quick() -> Options {
    Options { config: QUICK.into(), ..Options::default() }
}

/// Waits until the gateway knows the workers' pools: while a pool is unknown, silence proves nothing for an hour.
async fn worker_is_known(env: &Lent<Box<Harness>>) {
    eventually("the worker has said what its pool is", async || {
        let workers = env.http.get("/v1/workers").await.expect(200);
        (workers["workers"][0]["pool"] == "prefork").then_some(())
    })
    .await;
}

async fn ends(env: &Lent<Box<Harness>>, id: &str) -> Value {
    within(SETTLED, &format!("{id} ends"), async || {
        let answer = env.http.get(&format!("/result/{id}")).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await
}

fn times_received(log: &str, id: &str) -> usize {
    log.matches(&format!("[{id}] received")).count()
}

#[tokio::test]
async fn an_emptied_redis_gets_back_what_was_queued() {
    let env = Harness::start(&Options { without_worker: true, ..quick() });
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(env.submit("demo.identity", json!([n])).await);
    }
    for id in &ids {
        env.in_phase(id, "queued").await;
    }
    env.redis.command::<String>(0, &["FLUSHALL"]);
    // Schedules may put others beside them.
    eventually("all five are in their list again", async || {
        let listed: Vec<String> = env.redis.command(0, &["LRANGE", "celery", "0", "-1"]);
        ids.iter().all(|id| listed.iter().any(|message| message.contains(id))).then_some(())
    })
    .await;
    for id in &ids {
        let task = eventually("the second delivery is written down", async || {
            let task = env.http.get(&format!("/v1/tasks/{id}")).await.expect(200);
            (task["phase"] == "queued").then_some(task)
        })
        .await;
        assert!(task["seq"].as_i64() >= Some(4), "{task}");
    }
}

#[tokio::test]
async fn a_message_of_an_ended_task_that_comes_back_is_removed() {
    let env = Harness::start(&Options { without_worker: true, ..quick() });
    let ended = env.submit("demo.identity", json!([1])).await;
    let alive = env.submit("demo.identity", json!([2])).await;
    env.in_phase(&ended, "queued").await;
    env.in_phase(&alive, "queued").await;
    let before: Vec<String> = env.redis.command(0, &["LRANGE", "celery", "0", "-1"]);
    let revoked = env.http.post(&format!("/v1/tasks/{ended}/revoke"), &json!({})).await.expect(200);
    assert_eq!(revoked["verdict"], "prevented", "{revoked}");
    let old = before.iter().find(|message| message.contains(&ended)).expect("its message");
    env.redis.command::<i64>(0, &["RPUSH", "celery", old]);
    env.redis.command::<String>(0, &["SET", "taskgate.epoch", "an hour ago"]);
    eventually("only the other one is left", async || {
        let now: Vec<String> = env.redis.command(0, &["LRANGE", "celery", "0", "-1"]);
        (now.len() == 1 && now[0].contains(&alive)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_task_that_died_with_its_worker_is_reported() {
    let mut env = Harness::start(&quick());
    let id = env.submit("demo.sleep", json!([120])).await;
    env.in_phase(&id, "running").await;
    worker_is_known(&env).await;
    env.celery.as_mut().expect("a worker").kill();
    let result = ends(&env, &id).await;
    assert_eq!((&result["status"], &result["error"]["type"]), (&json!("FAILURE"), &json!("TaskLost")), "{result}");
    assert_eq!(env.http.get(&format!("/v1/tasks/{id}")).await.expect(200)["phase"], "lost");
}

#[tokio::test]
async fn a_task_that_acknowledges_late_is_delivered_again_after_its_worker_died() {
    let mut env = Harness::start(&quick());
    worker_is_known(&env).await;
    let latch = Latch::closed();
    let id = env.submit("demo.until_late", latch.args("done")).await;
    env.in_phase(&id, "running").await;
    env.celery.as_mut().expect("a worker").kill();
    latch.open();
    let second = CeleryOptions { hostname: "w2@test".into(), ..CeleryOptions::default() };
    let second = Celery::start(&env.redis, second);
    let result = ends(&env, &id).await;
    assert_eq!((&result["status"], &result["result"]), (&json!("SUCCESS"), &json!("done")), "{result}");
    assert_eq!(times_received(&second.log(), &id), 1);
    // The second worker's event may arrive before the sweeper has recorded its repair; then the event reports the redelivery.
    let history = env.history(&id).await;
    let phases: Vec<&str> = history.iter().filter_map(|event| event["phase"].as_str()).collect();
    let again = |event: &Value| {
        let told = event["reason"].as_str().unwrap_or_default();
        told.contains("went back to the queue") || told.contains("the broker delivered it again")
    };
    let first_run = phases.iter().position(|phase| *phase == "running");
    let (back, end) = (history.iter().position(again), phases.iter().position(|phase| *phase == "succeeded"));
    assert!(first_run < back && back < end, "the redelivery is in the history: {history:?}");
}

#[tokio::test]
async fn a_worker_that_was_restarted_under_its_name_gets_back_what_it_had() {
    let mut env = Harness::start(&quick());
    let latch = Latch::closed();
    let id = env.submit("demo.until_late", latch.args("done")).await;
    env.in_phase(&id, "running").await;
    let worker = env.celery.as_mut().expect("a worker");
    worker.kill();
    latch.open();
    worker.restart();
    let result = ends(&env, &id).await;
    assert_eq!((&result["status"], &result["result"]), (&json!("SUCCESS"), &json!("done")), "{result}");
}

#[tokio::test]
async fn a_task_longer_than_the_visibility_timeout_runs_once() {
    let settings = json!({"broker_transport_options": {"visibility_timeout": 6}});
    let celery = CeleryOptions { settings: settings.clone(), ..CeleryOptions::default() };
    let config = format!("{QUICK}[broker]\nvisibility_timeout = '6s'\n");
    let env = Harness::start(&Options { celery, config, ..Options::default() });
    let latch = Latch::closed();
    // Only the workers' answers show which worker has this task.
    env.http.post("/v1/control/disable_events", &json!({})).await.expect(200);
    let unheard = env.submit("demo.until_late", latch.args("unheard")).await;
    let worker = env.celery.as_ref().expect("a worker");
    eventually("it is taken", async || (times_received(&worker.log(), &unheard) == 1).then_some(())).await;
    env.in_phase(&unheard, "running").await;
    env.http.post("/v1/control/enable_events", &json!({})).await.expect(200);
    let id = env.submit("demo.until_late", latch.args("once")).await;
    env.in_phase(&id, "running").await;
    // Of the one that was renewed last.
    let score = || {
        let index: Vec<String> = env.redis.command(0, &["ZRANGE", "unacked_index", "0", "-1", "WITHSCORES"]);
        assert_eq!(index.len(), 4, "{index:?}");
        index[1].parse::<f64>().expect("a time")
    };
    let reserved_at = score();
    eventually("they run four times as long as the timeout", async || (score() > reserved_at + 24.0).then_some(()))
        .await;
    // A worker restores whatever is overdue when it connects.
    let second = CeleryOptions { hostname: "w2@test".into(), settings, ..CeleryOptions::default() };
    let second = Celery::start(&env.redis, second);
    latch.open();
    for (id, what) in [(&id, "once"), (&unheard, "unheard")] {
        let result = ends(&env, id).await;
        assert_eq!(result["result"], what, "{result}");
        assert_eq!(times_received(&worker.log(), id) + times_received(&second.log(), id), 1);
    }
}
