//! Inspect and control commands by Celery's own names, and the registry of workers.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Options};
use crate::harness::{Celery, CeleryOptions, Http, Stopwatch, Version, eventually};

async fn worker(http: &Http, name: &str) -> Value {
    let list = http.get("/v1/workers").await.expect(200);
    let workers = list["workers"].as_array().expect("a list");
    workers.iter().find(|worker| worker["hostname"] == name).cloned().unwrap_or(Value::Null)
}

fn older(hostname: &str) -> CeleryOptions {
    CeleryOptions { version: Version::Older, hostname: hostname.into(), pool: "threads", ..CeleryOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_is_answered_by_workers_of_both_versions_and_nothing_stays_in_redis() {
    let env = Harness::start(&Options::default());
    let _second = Celery::start(&env.redis, older("w2@test"));
    for method in [
        "ping",
        "active",
        "reserved",
        "scheduled",
        "revoked",
        "registered",
        "active_queues",
        "stats",
        "conf",
        "report",
        "clock",
    ] {
        let replies = env.http.get(&format!("/v1/inspect/{method}?timeout=5")).await.expect(200);
        let names: Vec<&String> = replies["replies"].as_object().expect("an object").keys().collect();
        assert_eq!(names, ["w1@test", "w2@test"], "{method}: {replies}");
    }
    let one = env.http.get("/v1/inspect/ping?destination=w2@test").await.expect(200);
    assert_eq!(one["replies"], json!({"w2@test": {"ok": "pong"}}));
    let asked = Stopwatch::start();
    let none = env.http.get("/v1/inspect/ping?destination=nobody@test&timeout=0.3").await.expect(200);
    assert_eq!(none["replies"], json!({}));
    assert!(asked.elapsed() < Duration::from_secs(3));
    let state = env.http.get("/v1/inspect/query_task?ids=a,b&timeout=5").await.expect(200);
    assert_eq!(state["replies"]["w1@test"], json!({}), "{state}");
    eventually("no reply queue is left", async || {
        let lists: Vec<String> = env.redis.command(0, &["KEYS", "*reply*"]);
        lists.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_reply_leaves_nothing_behind() {
    let env = Harness::start(&Options::default());
    eventually("the worker is known", async || (worker(&env.http, "w1@test").await["pool"] == "prefork").then_some(()))
        .await;
    let celery = env.celery.as_ref().expect("a worker");
    celery.pause();
    let none = env.http.get("/v1/inspect/ping?timeout=0.2").await.expect(200);
    celery.resume();
    assert_eq!(none["replies"], json!({}));
    // The answer to this request arrives after the late one.
    let pong = env.http.get("/v1/inspect/ping?timeout=10").await.expect(200);
    assert_eq!(pong["replies"]["w1@test"]["ok"], "pong", "{pong}");
    eventually("no reply queue is left", async || {
        let lists: Vec<String> = env.redis.command(0, &["KEYS", "*reply*"]);
        lists.is_empty().then_some(())
    })
    .await;
}

async fn control(http: &Http, command: &str, arguments: Value) -> Value {
    let body = json!({"arguments": arguments, "destination": ["w1@test"], "timeout": 5});
    http.post(&format!("/v1/control/{command}"), &body).await.expect(200)["replies"]["w1@test"].clone()
}

async fn workers_obey(version: Version) {
    let env = Harness::start(&Options {
        celery: CeleryOptions { version, ..CeleryOptions::default() },
        ..Options::default()
    });
    let http = &env.http;
    let set = control(http, "rate_limit", json!({"task_name": "demo.add", "rate_limit": "100/m"})).await;
    assert_eq!(set["ok"], "new rate limit set successfully", "{set}");
    let set = control(http, "time_limit", json!({"task_name": "demo.add", "hard": 60, "soft": 30})).await;
    assert_eq!(set["ok"], "time limits set successfully");
    assert!(control(http, "pool_grow", json!({"n": 1})).await["ok"].is_string());
    eventually("the pool has grown", async || {
        let stats = http.get("/v1/inspect/stats").await.expect(200);
        (stats["replies"]["w1@test"]["pool"]["processes"].as_array()?.len() == 3).then_some(())
    })
    .await;
    assert!(control(http, "pool_shrink", json!({"n": 1})).await["ok"].is_string());
    assert_eq!(control(http, "add_consumer", json!({"queue": "extra"})).await["ok"], "add consumer extra");
    let id = env.submit_signature(json!({"task": "demo.add", "args": [2, 2], "queue": "extra"})).await;
    assert_eq!(env.finished(&id).await["result"], 4);
    assert_eq!(
        control(http, "cancel_consumer", json!({"queue": "extra"})).await["ok"],
        "no longer consuming from extra"
    );
    assert!(control(http, "enable_events", json!({})).await["ok"].is_string());
    let told = http.post("/v1/control/shutdown", &json!({"destination": ["w1@test"]})).await.expect(200);
    assert_eq!(told["replies"], json!({}));
    eventually("the worker is offline", async || (worker(http, "w1@test").await["status"] == "offline").then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_the_newest_celery_obeys() {
    workers_obey(Version::Latest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_the_older_celery_obeys() {
    workers_obey(Version::Older).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_command_or_has_wrong_arguments_is_refused_and_not_sent() {
    let env = Harness::start(&Options { without_worker: true, ..Options::default() });
    let http = &env.http;
    http.get("/v1/inspect/actve").await.problem(404, "unknown-command");
    http.get("/v1/inspect/shutdown").await.problem(404, "unknown-command");
    http.post("/v1/control/election", &json!({})).await.problem(404, "unknown-command");
    let wrong = json!({"arguments": {"task_name": 7, "rate_limit": "often", "x": 1}, "destination": [], "timeout": 99});
    let problem = http.post("/v1/control/rate_limit", &wrong).await.problem(422, "invalid-request");
    let pointers: Vec<&str> =
        problem["errors"].as_array().expect("a list").iter().filter_map(|one| one["pointer"].as_str()).collect();
    assert_eq!(pointers, ["/destination", "/timeout"]);
    let wrong = json!({"arguments": {"task_name": 7, "rate_limit": "often", "x": 1}});
    let problem = http.post("/v1/control/rate_limit", &wrong).await.problem(422, "invalid-request");
    let pointers: Vec<&str> =
        problem["errors"].as_array().expect("a list").iter().filter_map(|one| one["pointer"].as_str()).collect();
    assert_eq!(pointers, ["/arguments/rate_limit", "/arguments/task_name", "/arguments/x"]);
    http.get("/v1/inspect/ping?timeout=soon").await.problem(400, "invalid-query");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_knows_its_workers_across_a_restart_of_the_gateway() {
    let mut env = Harness::start(&Options::default());
    let mut second = Celery::start(&env.redis, older("w2@test"));
    for name in ["w1@test", "w2@test"] {
        eventually(&format!("{name} is known"), async || {
            let worker = worker(&env.http, name).await;
            (worker["status"] == "online" && worker["pool"].is_string() && worker["queues"].as_array()?.len() == 4)
                .then_some(())
        })
        .await;
    }
    let one = worker(&env.http, "w1@test").await;
    assert_eq!((&one["pool"], &one["concurrency"]), (&json!("prefork"), &json!(2)), "{one}");
    assert!(one["software"].as_str().is_some_and(|text| text.starts_with("py-celery 5.")), "{one}");
    assert!(one["heartbeat_age"].as_f64().is_some_and(|age| age < 10.0), "{one}");
    assert_eq!(worker(&env.http, "w2@test").await["pool"], "threads");
    env.run("demo.add", json!([1, 1])).await;
    eventually("the work is counted", async || {
        let sum: i64 = {
            let mut sum = 0;
            for name in ["w1@test", "w2@test"] {
                sum += worker(&env.http, name).await["processed"].as_i64().unwrap_or(0);
            }
            sum
        };
        (sum >= 1).then_some(())
    })
    .await;
    second.stop();
    eventually("w2 is offline", async || (worker(&env.http, "w2@test").await["status"] == "offline").then_some(()))
        .await;
    env.gateway.restart();
    let remembered = worker(&env.gateway.http(), "w2@test").await;
    assert_eq!((&remembered["status"], &remembered["pool"]), (&json!("offline"), &json!("threads")), "{remembered}");
    env.celery.as_mut().expect("a worker").kill();
    let http = env.gateway.http();
    eventually("a killed worker is offline when its heartbeats stop", async || {
        (worker(&http, "w1@test").await["status"] == "offline").then_some(())
    })
    .await;
}
