//! A retry policy by class of exception, for tasks that run in Python workers.

use serde_json::{Value, json};

use super::shared;
use crate::harness::{Shared, eventually};

/// The ids of a task and of its retries, when no more will follow.
async fn attempts(env: &Shared, kind: &str) -> Vec<Value> {
    let accepted = env.http.post("/flaky", &json!({"kind": kind})).await.expect(202);
    let mut ids = vec![accepted["task_id"].as_str().expect("an id").to_owned()];
    let mut tasks = Vec::new();
    loop {
        let id = ids.last().expect("one").clone();
        env.finished(&id).await;
        let is_last = !["ValueError", "RuntimeError"].contains(&kind) || ids.len() == 3;
        let task = if is_last {
            env.http.get(&format!("/v1/tasks/{id}")).await.expect(200)
        } else {
            eventually(&format!("{id} is retried"), async || {
                let task = env.http.get(&format!("/v1/tasks/{id}")).await.expect(200);
                task["retried_as"].is_string().then_some(task)
            })
            .await
        };
        match task["retried_as"].as_str().map(str::to_owned) {
            Some(next) => ids.push(next),
            None => {
                tasks.push(task);
                return tasks;
            }
        }
        tasks.push(task);
    }
}

#[tokio::test]
async fn a_class_that_the_policy_names_is_retried_and_another_fails_at_once() {
    let env = shared();
    let tasks = attempts(&env, "ValueError").await;
    assert_eq!(tasks.len(), 3, "two retries: {tasks:?}");
    for kind in ["KeyError", "Flaky"] {
        let tasks = attempts(&env, kind).await;
        assert_eq!(tasks.len(), 1, "{kind}: {tasks:?}");
        let id = tasks[0]["task_id"].as_str().expect("an id").to_owned();
        // When a later failure has been retried, the retrier has handled this one too.
        attempts(&env, "RuntimeError").await;
        let task = env.http.get(&format!("/v1/tasks/{id}")).await.expect(200);
        assert_eq!((&task["retried_as"], &task["error"]["type"]), (&json!(null), &json!(kind)), "{task}");
        let dead = env.http.get(&format!("/v1/dead-letters?q={id}")).await.expect(200);
        assert_eq!(dead["tasks"].as_array().map(Vec::len), Some(1), "it is a dead letter at once: {dead}");
    }
}

#[tokio::test]
async fn a_policy_says_classes_without_modules() {
    let env = shared();
    for (retry, pointer) in [
        (json!({"on": ["app.errors.Timeout"]}), "/retry/on/0"),
        (json!({"on": ["A"], "never": ["A"]}), "/retry/never"),
        (json!({"never": "A"}), "/retry/never"),
    ] {
        let call = json!({"task": "demo.fail", "args": ["ValueError"], "retry": retry});
        let problem = env.http.post("/v1/tasks", &call).await.problem(422, "invalid-request");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
}

#[tokio::test]
async fn inside_a_canvas_of_python_tasks_a_policy_is_refused_with_the_reason() {
    let env = shared();
    let step = json!({"task": "demo.identity", "args": [1], "retry": {"max": 2, "on": ["ValueError"]}});
    let chain = json!({"tasks": [step, {"task": "demo.identity"}]});
    let problem = eventually("the gateway knows the Python worker", async || {
        let answer = env.http.post("/chain", &chain).await;
        (answer.status == 422).then(|| answer.problem(422, "invalid-request"))
    })
    .await;
    let detail = problem["errors"][0]["detail"].as_str().expect("a reason");
    assert!(detail.contains("Python worker") && detail.contains("canvas"), "{detail}");
}
