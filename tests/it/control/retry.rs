//! Retry, restart, dead letters.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::celery::client;
use crate::harness::environment::{Harness, Options};
use crate::harness::{CeleryOptions, Version, eventually};

fn one_process() -> Options {
    Options { celery: CeleryOptions { concurrency: 1, ..CeleryOptions::default() }, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_task_is_sent_again_as_it_was() {
    let env = Harness::shared();
    let signature =
        json!({"task": "demo.fail", "args": ["RuntimeError"], "kwargs": {"message": "gone"}, "labels": {"a": "b"}});
    let old = env.submit_signature(signature).await;
    env.finished(&old).await;
    let new = env.http.post(&format!("/v1/tasks/{old}/retry"), &json!({})).await.expect(202);
    let new = new["task_id"].as_str().expect("an id");
    assert_ne!(new, old);
    let done = env.finished(new).await;
    assert_eq!(done["error"], json!({"type": "RuntimeError", "message": "gone"}), "{done}");
    let task = env.http.get(&format!("/v1/tasks/{new}")).await.expect(200);
    assert_eq!((&task["retry_of"], &task["labels"]["a"]), (&json!(old), &json!("b")));
    assert_eq!(task["kwargs"], json!({"message": "gone"}));
    assert_eq!(env.http.get(&format!("/v1/tasks/{old}")).await.expect(200)["retried_as"], new);
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_stops_the_running_task_and_starts_a_new_one() {
    let env = Harness::start(&one_process());
    let old = env.submit("demo.sleep", json!([60])).await;
    env.in_phase(&old, "running").await;
    let new = env.http.post(&format!("/v1/tasks/{old}/retry"), &json!({"restart": true})).await.expect(202);
    env.in_phase(&old, "revoked").await;
    env.in_phase(new["task_id"].as_str().expect("an id"), "running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_retried_with_what_follows() {
    let env = Harness::shared();
    let steps = json!({"chain": [{"task": "demo.add", "args": [1, 2]}, {"task": "demo.mul", "args": [10]}]});
    let accepted = env.http.post("/v1/tasks", &steps).await.expect(202);
    let first = accepted["children"][0]["task_id"].as_str().expect("an id").to_owned();
    env.finished(accepted["task_id"].as_str().expect("an id")).await;
    let again = env.http.post(&format!("/v1/tasks/{first}/retry"), &json!({})).await.expect(202);
    let children = again["children"].as_array().expect("children");
    assert_eq!(children.len(), 2, "{again}");
    let last = children[1]["task_id"].as_str().expect("an id");
    assert_eq!(env.finished(last).await["result"], 30);
    let graph = env.http.get(&format!("/v1/tasks/{last}/graph")).await.expect(200);
    assert_eq!(graph["edges"], json!([[children[0]["task_id"], children[1]["task_id"]]]));
    assert_eq!(graph["nodes"][1]["phase"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_sent_is_not_replayable() {
    let env = Harness::shared();
    let (broker, backend) = (env.redis.url(0), env.redis.url(1));
    let program = "print(app.send_task('demo.fail', kwargs={'message': 'theirs'}).id)";
    let printed =
        tokio::task::spawn_blocking(move || client(Version::Latest, &broker, &backend, program)).await.expect("it ran");
    let id = printed.trim().to_owned();
    eventually("the task is adopted", async || {
        let answer = env.http.get(&format!("/v1/tasks/{id}")).await;
        (answer.status == 200 && answer.json()["ready"] == true).then_some(())
    })
    .await;
    env.http.post(&format!("/v1/tasks/{id}/retry"), &json!({})).await.problem(409, "not-replayable");
    env.http.post("/v1/tasks/unknown/retry", &json!({})).await.problem(404, "task-not-found");
}

async fn letters(env: &Harness, http: &crate::harness::Http, filter: &str) -> Vec<Value> {
    let _ = env;
    let list = http.get(&format!("/v1/dead-letters?{filter}")).await.expect(200);
    list["tasks"].as_array().expect("a list").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_requeued_and_deleted() {
    let env = Harness::start(&one_process());
    let mut ids = Vec::new();
    for n in 0..3 {
        let id = env.submit_signature(json!({"task": "demo.fail", "kwargs": {"message": format!("no {n}")}})).await;
        env.finished(&id).await;
        ids.push(id);
    }
    let good = env.submit("demo.add", json!([1, 1])).await;
    env.finished(&good).await;
    assert_eq!(letters(&env, &env.http, "").await.len(), 3);
    env.http.post(&format!("/v1/dead-letters/{good}/requeue"), &json!({})).await.problem(409, "not-a-dead-letter");

    let new = env.http.post(&format!("/v1/dead-letters/{}/requeue", ids[0]), &json!({})).await.expect(202);
    assert_eq!(env.finished(new["task_id"].as_str().expect("an id")).await["error"]["message"], "no 0");
    let left = letters(&env, &env.http, "").await;
    assert!(!left.iter().any(|task| task["task_id"] == ids[0]), "{left:?}");
    env.http.post(&format!("/v1/dead-letters/{}/requeue", ids[0]), &json!({})).await.problem(409, "not-a-dead-letter");

    let wish = json!({"filter": {"q": "no 1"}, "dry_run": true});
    let would = env.http.post("/v1/dead-letters/requeue", &wish).await.expect(200);
    assert_eq!((&would["matched"], &would["requeued"]), (&json!(1), &json!(0)));
    let wish = json!({"filter": {"task": "demo.fail"}, "max_per_second": 20});
    let done = env.http.post("/v1/dead-letters/requeue", &wish).await.expect(202);
    assert_eq!(done["requeued"], 3, "{done}");
    for task in done["tasks"].as_array().expect("a list") {
        env.finished(task["task_id"].as_str().expect("an id")).await;
    }
    let wrong = json!({"filter": {"phase": "tired"}, "max_per_second": 0});
    env.http.post("/v1/dead-letters/requeue", &wrong).await.problem(422, "invalid-request");

    let one = letters(&env, &env.http, "").await[0]["task_id"].as_str().expect("an id").to_owned();
    let deleted = env.http.send(Method::DELETE, &format!("/v1/dead-letters/{one}"), &[], None).await;
    assert_eq!(deleted.status, 204);
    let rest = env.http.send(Method::DELETE, "/v1/dead-letters?task=demo.fail", &[], None).await.expect(200);
    assert_eq!(rest["deleted"], 2);
    assert!(letters(&env, &env.http, "").await.is_empty());
}
