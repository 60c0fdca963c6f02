//! Results, events and replies in other serializers than JSON.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Options, Shared};
use crate::harness::{Celery, CeleryOptions};

/// One gateway and a worker for each serializer, which serves the queue of its name.
fn fleet() -> (&'static Shared, &'static [Celery]) {
    static FLEET: OnceLock<(Shared, Vec<Celery>)> = OnceLock::new();
    static ENVIRONMENT: OnceLock<Harness> = OnceLock::new();
    let (env, workers) = FLEET.get_or_init(|| {
        let env = Shared::over(&ENVIRONMENT, &Options { without_worker: true, ..Options::default() });
        let mut workers: Vec<Celery> = ["yaml", "pickle"].map(|name| worker(&env, name)).into();
        workers.iter_mut().for_each(Celery::wait_until_ready);
        workers.iter_mut().for_each(Celery::wait_for_events);
        (env, workers)
    });
    (env, workers)
}

fn worker(env: &Harness, serializer: &str) -> Celery {
    let accept = ["json", serializer];
    let settings = json!({"result_serializer": serializer, "task_serializer": serializer, "event_serializer": serializer,
        "accept_content": accept, "result_accept_content": accept});
    let options = CeleryOptions {
        hostname: format!("{serializer}@test"),
        queues: serializer.to_owned(),
        settings,
        ..CeleryOptions::default()
    };
    Celery::launch(&env.redis.url(0), &env.redis.url(1), options)
}

async fn run(env: &Shared, queue: &str, task: &str, args: Value) -> Value {
    let id = env.submit_signature(json!({"task": task, "args": args, "queue": queue})).await;
    env.finished(&id).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_in_yaml_is_read() {
    let (env, _workers) = fleet();
    let value = json!({"a": [1, 2.5, null, true, "yes", "한국어", "2026-11-30"], "b": {"c": ""}});
    let result = run(env, "yaml", "demo.identity", json!([value])).await;
    assert_eq!((&result["status"], &result["result"]), (&json!("SUCCESS"), &value), "{result}");
    assert_eq!(result.get("result_readable"), None);
    let failed = run(env, "yaml", "demo.fail", json!(["KeyError", "k"])).await;
    assert_eq!(failed["error"], json!({"type": "KeyError", "message": "'k'"}), "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pickled_result_counts_and_stands_as_bytes() {
    let (env, _workers) = fleet();
    let result = run(env, "pickle", "demo.add", json!([1, 2])).await;
    assert_eq!((&result["status"], &result["result_readable"]), (&json!("SUCCESS"), &json!(false)), "{result}");
    assert_eq!(result["result"]["encoding"], "application/x-python-serialize", "{result}");
    assert!(result["result"]["bytes"].as_str().is_some_and(|bytes| bytes.starts_with("gA")), "{result}");
    let failed = run(env, "pickle", "demo.fail", json!(["RuntimeError", "boom"])).await;
    assert_eq!(failed["error"], json!({"type": "RuntimeError", "message": "boom"}), "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_replies_in_yaml_are_read() {
    let (env, _workers) = fleet();
    let id = env.submit_signature(json!({"task": "demo.ignore", "args": [1], "queue": "yaml"})).await;
    let task = env.in_phase(&id, "succeeded").await;
    assert_eq!(task["worker"], "yaml@test", "only an event says so: {task}");
    let stats = env.http.get("/v1/inspect/ping?destination=yaml@test").await.expect(200);
    assert_eq!(stats["replies"]["yaml@test"]["ok"], "pong", "{stats}");
}
