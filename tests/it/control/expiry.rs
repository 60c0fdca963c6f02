//! ETA and expiry: a task is held until it is due, and not published after it has expired.

use serde_json::{Value, json};

use crate::harness::celery::client;
use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::{Celery, CeleryOptions, Version, eventually};

async fn phases(env: &Lent<Box<Harness>>, id: &str) -> Vec<String> {
    let headers = [("Accept", "application/json"), ("Last-Event-ID", "0")];
    let history = env.http.get_with(&format!("/v1/tasks/{id}/events"), &headers).await.json();
    let phase = |event: &Value| event["phase"].as_str().expect("a phase").to_owned();
    history["events"].as_array().expect("a list").iter().map(phase).collect()
}

async fn nobody_gets_what_is_not_due_or_over(version: Version) {
    let env = Harness::start(&Options { without_worker: true, ..Options::default() });
    let length = |queue: &str| env.redis.command::<i64>(0, &["LLEN", queue]);
    let due = env.submit_signature(json!({"task": "demo.echo", "args": [1], "countdown": 8})).await;
    let task = env.http.get(&format!("/v1/tasks/{due}")).await.expect(200);
    assert_eq!((&task["phase"], &task["status"]), (&json!("held"), &json!("PENDING")), "{task}");
    assert_eq!(length("celery"), 0, "a worker would hold it in memory");
    let over = env.submit_signature(json!({"task": "demo.echo", "countdown": 3600, "expires": 1})).await;
    let queued = env.submit_signature(json!({"task": "demo.echo", "expires": 8, "queue": "celery"})).await;
    let kept = env.submit_signature(json!({"task": "demo.echo", "args": ["kept"], "expires": 600})).await;
    env.in_phase(&queued, "queued").await;

    env.in_phase(&over, "expired").await;
    let task = env.in_phase(&queued, "expired").await;
    assert_eq!(task["status"], "REVOKED", "{task}");
    env.in_phase(&due, "queued").await;
    assert_eq!(length("celery"), 2, "what is due and what has not expired");
    let options = CeleryOptions { version, ..CeleryOptions::default() };
    let worker = Celery::start(&env.redis, options);
    for id in [&due, &kept] {
        assert_eq!(env.finished(id).await["status"], "SUCCESS");
    }
    for id in [&over, &queued] {
        assert!(!worker.log().contains(id.as_str()), "a worker got {id}");
        let phases = phases(&env, id).await;
        assert!(!phases.iter().any(|phase| phase == "received"), "{phases:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_what_is_not_due_or_over_with_the_newest_celery() {
    nobody_gets_what_is_not_due_or_over(Version::Latest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_what_is_not_due_or_over_with_the_older_celery() {
    nobody_gets_what_is_not_due_or_over(Version::Older).await;
}

/// Tasks of other clients and of tasks are known, with parent and root.
async fn others_tasks_are_adopted(version: Version) {
    let celery = CeleryOptions { version, ..CeleryOptions::default() };
    let env = Harness::start(&Options { celery, ..Options::default() });
    let parent = env.submit("demo.children", json!([2])).await;
    let children = env.finished(&parent).await["result"].clone();
    for child in children.as_array().expect("ids") {
        let child = child.as_str().expect("an id");
        let task = eventually("the child is adopted and done", async || {
            let answer = env.http.get(&format!("/v1/tasks/{child}")).await;
            (answer.status == 200).then(|| answer.json()).filter(|task| task["phase"] == "succeeded")
        })
        .await;
        assert_eq!((&task["task"], &task["root_id"]), (&json!("demo.add"), &json!(parent)), "{task}");
        assert_eq!(task["parent_id"], json!(parent), "{task}");
    }
    let (broker, backend) = (env.redis.url(0), env.redis.url(1));
    let program = "print(app.send_task('demo.add', (20, 22), task_id='no uuid at all').id)";
    tokio::task::spawn_blocking(move || client(version, &broker, &backend, program)).await.expect("it ran");
    let task = eventually("what another client sent is adopted and done", async || {
        let answer = env.http.get("/v1/tasks/no%20uuid%20at%20all").await;
        // The event reports the end and the worker, the record the end and the value; either may come first.
        let is_told =
            |task: &Value| task["phase"] == "succeeded" && !task["result"].is_null() && !task["worker"].is_null();
        (answer.status == 200).then(|| answer.json()).filter(is_told)
    })
    .await;
    assert_eq!((&task["result"], &task["worker"]), (&json!(42), &json!("w1@test")), "{task}");
}

#[tokio::test(flavor = "multi_thread")]
async fn others_tasks_are_adopted_with_the_newest_celery() {
    others_tasks_are_adopted(Version::Latest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_tasks_are_adopted_with_the_older_celery() {
    others_tasks_are_adopted(Version::Older).await;
}
