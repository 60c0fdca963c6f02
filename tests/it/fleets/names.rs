//! A queue may not have the name of a fleet's key, and a key that is not a list does not affect other queues.

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Options};
use crate::harness::{Shared, eventually, gateway};

const KEYS: [&str; 9] = [
    "unacked",
    "unacked_index",
    "unacked_mutex",
    "app:unacked",
    "_kombu.binding.celery",
    "celery-task-meta-0192f0c1",
    "x.reply.celery.pidbox",
    "celeryev.x",
    "taskgate.published",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_fleet_is_no_queue_wherever_it_is_named() {
    let env = Harness::shared();
    for key in KEYS {
        let step = json!({"task": "demo.add", "args": [1, 2], "queue": key});
        let link = json!({"task": "demo.add", "args": [1, 2], "link_error": [step]});
        let chord = json!({"header": [{"task": "demo.add", "args": [1, 2]}], "body": step});
        refused(&env, "/v1/tasks", &step, "/queue").await;
        refused(&env, "/v1/tasks", &link, "/link_error/0/queue").await;
        refused(&env, "/chain", &json!({"tasks": [step]}), "/tasks/0/queue").await;
        refused(&env, "/chord", &chord, "/body/queue").await;
        let schedule = json!({"name": "s", "task": "demo.add", "queue": key, "every": 60});
        refused(&env, "/v1/schedules", &schedule, "/queue").await;
        let path = format!("/v1/queues/{key}/pause");
        let paused = env.http.post(&path, &json!({})).await;
        assert!((400..500).contains(&paused.status), "{path}: {} {}", paused.status, paused.text());
    }
}

async fn refused(env: &Shared, path: &str, body: &Value, pointer: &str) {
    let answer = env.http.post(path, body).await;
    assert_eq!(answer.status, 422, "{path} {body}: {}", answer.text());
    let errors = answer.json()["errors"].clone();
    let named = errors.as_array().is_some_and(|errors| errors.iter().any(|error| error["pointer"] == pointer));
    assert!(named, "{body} should name {pointer}: {errors}");
}

#[test]
fn a_configuration_that_names_a_key_as_a_queue_does_not_start() {
    for (config, place) in [
        ("broker.default_queue = 'unacked'", "broker.default_queue"),
        ("[routes]\n'a.*' = 'unacked_index'", "routes"),
        ("[[tasks]]\nname = 'a.b'\nqueue = '_kombu.binding.celery'", "tasks[0]"),
        ("[[schedules]]\nname = 's'\ntask = 'a.b'\nevery = 60\nqueue = 'celeryev.1'", "schedules"),
        ("broker.sep = ':'\n[[tasks]]\nname = 'a.b'\nqueue = 'a:3'", "a:3"),
    ] {
        let folder = crate::harness::process::folder("config");
        let file = folder.join("taskgate.toml");
        std::fs::write(&file, format!("auth = 'none'\ndatabase.url = 'sqlite://{}/l.db'\n{config}", folder.display()))
            .expect("the folder is writable");
        let done = gateway::run(&["serve", "--config", &file.display().to_string()], &[]);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success() && said.contains(place), "{config}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_whose_key_is_no_list_hides_no_other() {
    let env = Harness::start(&Options::default());
    env.redis.command::<i64>(0, &["SADD", "broken", "member"]);
    let stopped = env.submit_signature(json!({"task": "demo.add", "args": [1, 2], "queue": "broken"})).await;
    let held = env.in_phase(&stopped, "held").await;
    assert!(held["reason"].as_str().is_some_and(|why| why.contains("\"broken\"")), "{held}");
    assert_eq!(env.run("demo.add", json!([1, 2])).await["result"], 3, "other queues go on");

    let queues = env.http.get("/v1/queues").await.expect(200);
    let broken = queues["queues"].as_array().expect("a list").iter().find(|queue| queue["name"] == "broken");
    assert!(broken.is_some_and(|queue| queue["trouble"].is_string() && queue["waiting"] == 0), "{queues}");
    eventually("an incident says so", async || {
        let incidents = env.http.get("/v1/incidents").await.expect(200);
        let all = incidents["incidents"].as_array().expect("a list").clone();
        all.into_iter().find(|one| one["kind"] == "wrong_key" && one["subject"] == "broken")
    })
    .await;

    // Messages that Redis lost in other queues are still found missing and queued again.
    let mut env = env;
    env.celery.as_mut().expect("a worker").kill();
    let lost = env.submit_signature(json!({"task": "demo.add", "args": [2, 2]})).await;
    env.in_phase(&lost, "queued").await;
    env.redis.command::<i64>(0, &["DEL", "celery"]);
    eventually("the message is there again", async || {
        (env.redis.command::<i64>(0, &["LLEN", "celery"]) == 1).then_some(())
    })
    .await;

    env.redis.command::<i64>(0, &["DEL", "broken"]);
    env.in_phase(&stopped, "queued").await;
}
