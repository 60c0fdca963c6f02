//! Fleets with transport options of their own: what Celery's documents recommend for priorities, prefixes, other separators.

use serde_json::{Value, json};

use crate::harness::celery::client_with;
use crate::harness::environment::{Harness, Options};
use crate::harness::{CeleryOptions, Version, eventually};

/// As Celery's documents recommend it for priorities.
fn priorities() -> Value {
    let steps: Vec<u8> = (0..10).collect();
    json!({"broker_transport_options": {"priority_steps": steps, "sep": ":", "queue_order_strategy": "priority"}})
}

const OURS: &str =
    "[broker]\npriority_steps = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\nsep = ':'\nqueue_order_strategy = 'priority'\n";

fn fleet(version: Version, settings: Value, config: &str) -> Options {
    let celery = CeleryOptions { version, settings, ..CeleryOptions::default() };
    Options { celery, config: config.to_owned(), ..Options::default() }
}

/// How many workers answered each of so many `inspect ping`s of the fleet's own.
async fn pings(env: &Harness, version: Version, settings: &Value, count: usize) -> Vec<usize> {
    let (broker, backend, settings) = (env.redis.url(0), env.redis.url(1), settings.clone());
    let program = format!("for _ in range({count}): print(len(app.control.inspect(timeout=2, limit=1).ping() or []))");
    let printed = tokio::task::spawn_blocking(move || client_with(version, &broker, &backend, &settings, &program));
    printed.await.expect("it ran").lines().map(|line| line.parse().expect("a number")).collect()
}

async fn every_priority_runs(version: Version) {
    let env = Harness::start(&fleet(version, priorities(), OURS));
    let mut ids = Vec::new();
    for priority in [0, 3, 5, 9] {
        let signature = json!({"task": "demo.add", "args": [priority, 1], "priority": priority});
        ids.push((priority, env.submit_signature(signature).await));
    }
    for (priority, id) in ids {
        assert_eq!(env.finished(&id).await["result"], priority + 1);
    }
    let inspected = env.http.get("/v1/inspect/ping").await.expect(200);
    assert_eq!(inspected["replies"]["w1@test"]["ok"], "pong", "{inspected}");
    assert_eq!(pings(&env, version, &priorities(), 10).await, [1; 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_priority_of_a_fleet_with_ten_steps_runs_with_the_newest_celery() {
    every_priority_runs(Version::Latest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_priority_of_a_fleet_with_ten_steps_runs_with_the_older_celery() {
    every_priority_runs(Version::Older).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_other_options_does_the_fleet_no_harm_and_holds_what_would_be_lost() {
    let env = Harness::start(&fleet(Version::Latest, priorities(), ""));
    eventually("the gateway has noticed", async || {
        let incidents = env.http.get("/v1/incidents").await.expect(200);
        let all = incidents["incidents"].as_array().expect("a list").clone();
        all.into_iter().find(|one| one["kind"] == "other_options")
    })
    .await;
    let lost = env.submit_signature(json!({"task": "demo.add", "args": [1, 1], "priority": 5})).await;
    let held = env.in_phase(&lost, "held").await;
    assert!(held["reason"].as_str().is_some_and(|why| why.contains("priority_steps")), "{held}");
    // Without a priority both agree on the list.
    assert_eq!(env.run("demo.add", json!([1, 2])).await["result"], 3);
    assert_eq!(pings(&env, Version::Latest, &priorities(), 10).await, [1; 10]);
    assert_eq!(env.redis.command::<i64>(0, &["EXISTS", "celery\u{6}\u{16}3"]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_with_prefixes_and_other_names_of_reserved_messages_is_served() {
    let settings = json!({
        "broker_transport_options": {"global_keyprefix": "app:", "unacked_key": "taken", "unacked_index_key": "taken_index",
            "unacked_mutex_key": "taken_mutex", "fanout_prefix": "/fleet.", "fanout_patterns": false},
        "result_backend_transport_options": {"global_keyprefix": "res"},
    });
    let config = "[broker]\nglobal_keyprefix = 'app:'\nunacked_key = 'taken'\nunacked_index_key = 'taken_index'\n\
        unacked_mutex_key = 'taken_mutex'\nfanout_prefix = '/fleet.'\nfanout_patterns = false\n\
        [backend]\nglobal_keyprefix = 'res'\n";
    let env = Harness::start(&fleet(Version::Latest, settings.clone(), config));
    let id = env.submit_signature(json!({"task": "demo.add", "args": [1, 1], "priority": 9})).await;
    assert_eq!(env.finished(&id).await["result"], 2);
    let task = env.in_phase(&id, "succeeded").await;
    assert_eq!(task["worker"], "w1@test", "its events were heard: {task}");
    assert_eq!(pings(&env, Version::Latest, &settings, 5).await, [1; 5]);
    let keys: Vec<String> = env.redis.command(0, &["KEYS", "*"]);
    assert!(keys.iter().all(|key| key.starts_with("app:")), "{keys:?}");
}
