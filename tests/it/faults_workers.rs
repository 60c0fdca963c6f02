//! Workers die, hold messages invisibly, and finish tasks while no recorder runs (P4, P5, P9, recovery policies).

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::celery::client;
use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::wait::within;
use crate::harness::{Celery, CeleryOptions, Latch, Version, eventually};

const QUICK: &str =
    "[sweeper]\nperiod = '1s'\ngrace = '500ms'\nworker_lost_after = '5s'\n[recovery]\nsettle_after = '4s'\n";
/// A worker counts as dead after `worker_lost_after` without heartbeats; two surveys follow.
const SETTLED: Duration = Duration::from_secs(120);

type Env = Lent<Box<Harness>>;

fn quick(config: &str) -> Options {
    Options { config: format!("{QUICK}{config}"), ..Options::default() }
}

async fn worker_is_known(env: &Env) {
    eventually("the worker has said what its pool is", async || {
        let workers = env.http.get("/v1/workers").await.expect(200);
        (workers["workers"][0]["pool"] == "prefork").then_some(())
    })
    .await;
}

async fn ends(env: &Env, id: &str) -> Value {
    within(SETTLED, &format!("{id} ends"), async || {
        let answer = env.http.get(&format!("/result/{id}")).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await
}

fn times_received(log: &str, id: &str) -> usize {
    log.matches(&format!("[{id}] received")).count()
}

fn second_worker(env: &Env, settings: Value) -> Celery {
    Celery::start(&env.redis, CeleryOptions { hostname: "w2@test".into(), settings, ..CeleryOptions::default() })
}

fn reasons(history: &[Value]) -> String {
    history.iter().filter_map(|event| event["reason"].as_str()).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn a_task_whose_policy_is_report_does_not_run_again() {
    let report =
        "[[tasks]]\nname = 'demo.late'\nrecovery = 'report'\n[[tasks]]\nname = 'demo.until'\nrecovery = 'rerun'\n";
    let mut env = Harness::start(&quick(report));
    worker_is_known(&env).await;
    let latch = Latch::closed();
    let reported = env.submit("demo.late", json!([600])).await;
    let again = env.submit("demo.until", latch.args("again")).await;
    env.in_phase(&reported, "running").await;
    env.in_phase(&again, "running").await;
    env.celery.as_mut().expect("a worker").kill();
    assert_eq!(env.redis.command::<usize>(0, &["HLEN", "unacked"]), 1, "one of them acknowledges late");
    latch.open();
    let second = second_worker(&env, json!({}));
    let result = ends(&env, &reported).await;
    assert_eq!(result["error"]["type"], "TaskLost", "{result}");
    let history = env.history(&reported).await;
    assert!(reasons(&history).contains("policy is report, its message was removed"), "{history:?}");
    // The other one is there for a moment, while the second worker takes it.
    eventually("its message is gone", async || {
        let reserved: Vec<String> = env.redis.command(0, &["HVALS", "unacked"]);
        (!reserved.iter().any(|message| message.contains(&reported))).then_some(())
    })
    .await;
    let result = ends(&env, &again).await;
    assert_eq!(result["result"], "again", "{result}");
    assert!(reasons(&env.history(&again).await).contains("policy is rerun"));
    let log = second.log();
    assert_eq!((times_received(&log, &reported), times_received(&log, &again)), (0, 1));
    let metrics = env.http.get("/metrics").await.text();
    assert!(metrics.contains("taskgate_tasks_lost_total 1"), "{metrics}");
}

#[tokio::test]
async fn what_a_worker_keeps_back_unseen_is_left_to_it() {
    // Before 5.7 `query_task` knows no message with an ETA; none knows those that wait for a rate limit.
    let celery = CeleryOptions { version: Version::Older, ..CeleryOptions::default() };
    let env = Harness::start(&Options { celery, ..quick("") });
    worker_is_known(&env).await;
    let limit = json!({"arguments": {"task_name": "demo.limited", "rate_limit": "8/m"}, "timeout": 2});
    env.http.post("/v1/control/rate_limit", &limit).await.expect(200);
    let retried = env.submit("demo.retry", json!([1, 7])).await;
    let limited = [env.submit("demo.limited", json!([1])).await, env.submit("demo.limited", json!([2])).await];
    let log = || env.celery.as_ref().expect("a worker").log();
    assert_eq!(ends(&env, &retried).await["result"], 1);
    for id in &limited {
        assert_eq!(ends(&env, id).await["status"], "SUCCESS");
        assert_eq!(times_received(&log(), id), 1, "{}", env.gateway.log());
    }
    assert_eq!(times_received(&log(), &retried), 2, "each attempt once: {}", env.gateway.log());
}

#[tokio::test]
async fn what_ends_unrecorded_is_said_to_be_so() {
    let mut env = Harness::start(&quick(""));
    worker_is_known(&env).await;
    let latch = Latch::closed();
    let silent = json!({"task": "demo.until", "args": latch.args(()), "ignore_result": true});
    let silent = env.submit_signature(silent).await;
    let stored = env.submit("demo.until", latch.args("kept")).await;
    env.in_phase(&silent, "running").await;
    env.in_phase(&stored, "running").await;
    env.gateway.kill();
    latch.open();
    // No recorder runs while both end: the result of one is found later, the end of the other stays unknown.
    let key = format!("celery-task-meta-{stored}");
    let log = || env.celery.as_ref().expect("a worker").log();
    eventually("both have ended", async || {
        let is_stored = env.redis.command::<u32>(1, &["EXISTS", &key]) == 1;
        (is_stored && log().contains(&format!("[{silent}] succeeded"))).then_some(())
    })
    .await;
    env.gateway.restart();
    assert_eq!(ends(&env, &stored).await["result"], "kept");
    let result = ends(&env, &silent).await;
    assert_eq!((&result["status"], &result["failed"]), (&json!("IGNORED"), &json!(false)), "{result}");
    let reasons = reasons(&env.history(&silent).await);
    assert!(reasons.contains("outcome not recorded"), "{reasons}");
}

#[tokio::test]
async fn a_message_whose_lease_ran_out_is_delivered_again_and_its_history_says_so() {
    let transport = json!({"broker_transport_options":
        {"visibility_timeout": 4, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}});
    let celery = CeleryOptions { settings: transport.clone(), ..CeleryOptions::default() };
    // The sweeper declares no worker dead here: redeliveries are Celery's own.
    let config = "[sweeper]\nperiod = '1s'\nworker_lost_after = '10m'\n[broker]\nvisibility_timeout = '4s'\n";
    let mut env = Harness::start(&Options { celery, config: config.into(), ..Options::default() });
    worker_is_known(&env).await;
    let latch = Latch::closed();
    let id = env.submit("demo.until_late", latch.args("second")).await;
    env.in_phase(&id, "running").await;
    env.celery.as_mut().expect("a worker").kill();
    latch.open();
    // It sends events from its first message on: until it has heard that it should, what it takes is not told.
    let mut settings = transport;
    settings["worker_send_task_events"] = json!(true);
    let second = second_worker(&env, settings);
    let result = ends(&env, &id).await;
    assert_eq!((&result["status"], &result["result"]), (&json!("SUCCESS"), &json!("second")), "{result}");
    assert_eq!(times_received(&second.log(), &id), 1);
    let history = env.history(&id).await;
    assert!(reasons(&history).contains("the broker delivered it again"), "{history:?}");
    let seqs: Vec<i64> = history.iter().filter_map(|event| event["seq"].as_i64()).collect();
    assert_eq!(seqs, (1..=seqs.len() as i64).collect::<Vec<_>>());
}

/// Only Celery itself may deliver the message of another client again, and the gateway must not keep it from doing so.
#[tokio::test]
async fn a_task_of_the_fleet_s_own_code_is_delivered_again_after_its_worker_was_killed_and_started_again() {
    let transport = json!({"broker_transport_options":
        {"visibility_timeout": 4, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}});
    let celery = CeleryOptions { settings: transport, ..CeleryOptions::default() };
    let config = "[sweeper]\nperiod = '1s'\n[broker]\nvisibility_timeout = '4s'\n";
    let mut env = Harness::start(&Options { celery, config: config.into(), ..Options::default() });
    worker_is_known(&env).await;
    let (latch, broker, backend) = (Latch::closed(), env.redis.url(0), env.redis.url(1));
    let program = format!("print(app.send_task('demo.until_late', {}).id)", latch.args("second"));
    let printed = tokio::task::spawn_blocking(move || client(Version::Latest, &broker, &backend, &program))
        .await
        .expect("it ran");
    let id = printed.trim();
    within(SETTLED, "it is adopted and runs", async || {
        let answer = env.http.get(&format!("/v1/tasks/{id}")).await;
        (answer.status == 200 && answer.json()["phase"] == "running").then_some(())
    })
    .await;
    let worker = env.celery.as_mut().expect("a worker");
    worker.kill();
    worker.relaunch();
    latch.open();
    let result = ends(&env, id).await;
    assert_eq!((&result["status"], &result["result"]), (&json!("SUCCESS"), &json!("second")), "{result}");
}

#[tokio::test]
async fn a_chord_goes_on_after_redis_was_emptied() {
    let celery = CeleryOptions { concurrency: 1, ..CeleryOptions::default() };
    let env = Harness::start(&Options { celery, ..quick("") });
    worker_is_known(&env).await;
    let latch = Latch::closed();
    let header = json!([{"task": "demo.identity", "args": [1]}, {"task": "demo.until", "args": latch.args(2)},
        {"task": "demo.identity", "args": [3]}]);
    let chord = json!({"header": header, "body": {"task": "demo.xsum"}});
    let accepted = env.http.post("/chord", &chord).await.expect(202);
    let body = accepted["task_id"].as_str().expect("the body's id").to_owned();
    let children: Vec<String> = accepted["children"]
        .as_array()
        .expect("children")
        .iter()
        .map(|child| child["task_id"].as_str().expect("an id").to_owned())
        .collect();
    // One part has ended, one runs, one waits, the body is not sent yet.
    env.in_phase(&children[0], "succeeded").await;
    env.in_phase(&children[1], "running").await;
    env.redis.command::<String>(0, &["FLUSHALL"]);
    eventually("its bookkeeping is put back", async || {
        env.gateway.log().contains("is rebuilt with 1 of 3 parts").then_some(())
    })
    .await;
    latch.open();
    let result = ends(&env, &body).await;
    assert_eq!(result["result"], 6, "{result}\n{}", env.gateway.log());
    let log = env.celery.as_ref().expect("a worker").log();
    assert_eq!(times_received(&log, &children[0]), 1);
    assert_eq!(times_received(&log, &children[1]), 1);
    assert_eq!(log.matches(&format!("[{body}] succeeded")).count(), 1);
}
