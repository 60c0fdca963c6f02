//! Operations on many tasks: which tasks they change, progress, pause, cancellation, and a restart.

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Options};
use crate::harness::{Http, eventually};

/// Submits `count` tasks under a label of their own and waits for their ends.
async fn ended(env: &crate::harness::environment::Shared, task: &str, args: &Value, label: &str, count: usize) {
    let mut ids = Vec::new();
    for _ in 0..count {
        let signature = json!({"task": task, "args": args, "labels": {"batch": label}});
        ids.push(env.submit_signature(signature).await);
    }
    for id in ids {
        env.finished(&id).await;
    }
}

async fn is_done(http: &Http, id: &str) -> Value {
    eventually("the operation is done", async || {
        let bulk = http.get(&format!("/v1/bulk/{id}")).await.expect(200);
        (bulk["state"] == "done").then_some(bulk)
    })
    .await
}

fn label() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_retry_takes_what_failed_and_leaves_what_succeeded() {
    let env = Harness::shared();
    let label = label();
    ended(&env, "demo.fail", &json!([]), &label, 3).await;
    ended(&env, "demo.add", &json!([1, 2]), &label, 2).await;
    let filter = json!({"label": format!("batch:{label}")});
    let asked = json!({"filter": filter, "action": "retry", "dry_run": true});
    let preview = env.http.post("/v1/bulk", &asked).await.expect(200);
    assert_eq!((&preview["matched"], &preview["dry_run"]), (&json!(3), &json!(true)), "{preview}");
    assert_eq!(preview["by_phase"], json!({"failed": 3, "succeeded": 2}), "{preview}");

    let accepted = env.http.post("/v1/bulk", &json!({"filter": filter, "action": "retry"})).await;
    let location = accepted.header("location").map(str::to_owned);
    let accepted = accepted.expect(202);
    let id = accepted["id"].as_str().expect("an id");
    assert_eq!(location, Some(format!("/v1/bulk/{id}")));
    let done = is_done(&env.http, id).await;
    assert_eq!((&done["total"], &done["done"], &done["failed"]), (&json!(3), &json!(3), &json!(0)), "{done}");
    assert_eq!(done["outcomes"], json!({"retried": 3}));

    // The new ones fail too; a task that was sent again is not sent a second time.
    eventually("the new ones failed", async || {
        let again = env.http.post("/v1/bulk", &asked).await.expect(200);
        (again["by_phase"]["failed"] == 6).then_some(again)
    })
    .await;
    let second = env.http.post("/v1/bulk", &json!({"filter": filter, "action": "retry"})).await.expect(202);
    let second = is_done(&env.http, second["id"].as_str().expect("an id")).await;
    assert_eq!((&second["done"], &second["skipped"]), (&json!(3), &json!(3)), "{second}");
    let succeeded = env.http.get(&format!("/v1/tasks?label=batch:{label}&task=demo.add")).await.expect(200);
    assert_eq!(succeeded["tasks"].as_array().expect("a list").len(), 2);

    // Only with names that it may use.
    let ticked = json!({"filter": {"label": format!("batch:{label}"), "task": "demo.add"}, "action": "retry", "include_succeeded": true});
    let third = env.http.post("/v1/bulk", &ticked).await.expect(202);
    assert_eq!(is_done(&env.http, third["id"].as_str().expect("an id")).await["outcomes"], json!({"retried": 2}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_is_paused_survives_the_gateway_and_counts_each_task_once() {
    let mut env = Harness::start(&Options { without_worker: true, ..Options::default() });
    let signature = json!({"task": "demo.add", "args": [1, 2]});
    let batch: Vec<&Value> = std::iter::repeat_n(&signature, 60).collect();
    env.http.post("/v1/tasks/batch", &json!(batch)).await.expect(202);
    let replica = env.replica("");
    let asked = json!({"filter": {"task": "demo.add"}, "action": "revoke", "rate": 4, "reason": "a mistake"});
    let bulk = env.http.post("/v1/bulk", &asked).await.expect(202);
    let path = format!("/v1/bulk/{}", bulk["id"].as_str().expect("an id"));
    let seen = async |http: &Http| http.get(&path).await.expect(200);
    eventually("it has begun", async || (seen(&env.http).await["done"] != 0).then_some(())).await;
    let paused = replica.http().post(&format!("{path}/pause"), &json!({})).await.expect(200);
    assert_eq!(paused["state"], "paused");
    assert!(paused["done"].as_i64().is_some_and(|done| done < 60), "{paused}");
    // The interrupted step is counted or repeated; after that nothing changes any more.
    env.gateway.kill();
    env.gateway.restart();
    let after = seen(&env.http).await;
    assert_eq!((&after["state"], &after["done"]), (&paused["state"], &paused["done"]));
    env.http.post(&format!("{path}/resume"), &json!({})).await.expect(200);
    let done = eventually("it is done", async || {
        let bulk = seen(&env.http).await;
        (bulk["state"] == "done").then_some(bulk)
    })
    .await;
    let (acted, skipped) = (done["done"].as_i64().expect("a number"), done["skipped"].as_i64().expect("a number"));
    assert_eq!((acted + skipped, &done["failed"]), (60, &json!(0)), "{done}");
    // Only a step that was done but not counted finds ended tasks.
    assert!(skipped <= 20, "{done}");
    let left = env.http.get("/v1/tasks?phase=queued,held,accepted").await.expect(200);
    assert_eq!(left["tasks"], json!([]));
    env.http.post(&format!("{path}/cancel"), &json!({})).await.problem(409, "bulk-ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_bulk_leaves_the_rest_alone() {
    let env = Harness::start(&Options { without_worker: true, ..Options::default() });
    let signature = json!({"task": "demo.add", "args": [1, 2]});
    let batch: Vec<&Value> = std::iter::repeat_n(&signature, 30).collect();
    env.http.post("/v1/tasks/batch", &json!(batch)).await.expect(202);
    let asked = json!({"filter": {}, "action": "revoke", "rate": "6/m"});
    let bulk = env.http.post("/v1/bulk", &asked).await.expect(202);
    let path = format!("/v1/bulk/{}", bulk["id"].as_str().expect("an id"));
    let cancelled = env.http.post(&format!("{path}/cancel"), &json!({})).await.expect(200);
    assert_eq!(cancelled["state"], "cancelled");
    assert!(cancelled["finished_at"].is_string());
    let left = env.http.get("/v1/tasks?phase=queued,accepted&limit=500").await.expect(200);
    assert!(left["tasks"].as_array().is_some_and(|tasks| tasks.len() > 20), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bulk_cannot_mean_is_refused() {
    let env = Harness::shared();
    let refused = async |body: Value, pointer: &str| {
        let problem = env.http.post("/v1/bulk", &body).await.problem(422, "invalid-request");
        let places = problem["errors"].as_array().expect("places");
        assert!(places.iter().any(|place| place["pointer"] == pointer), "{problem}");
    };
    refused(json!({"action": "retry"}), "/filter").await;
    refused(json!({"filter": {}, "action": "delete"}), "/action").await;
    refused(json!({"filter": {"fase": "failed"}, "action": "retry"}), "/filter/fase").await;
    refused(json!({"filter": {"phase": "succeeded"}, "action": "retry"}), "/include_succeeded").await;
    refused(json!({"filter": {"status": "SUCCESS"}, "action": "retry"}), "/include_succeeded").await;
    refused(json!({"filter": {"phase": "failed"}, "action": "revoke"}), "/filter/phase").await;
    refused(json!({"filter": {}, "action": "revoke", "include_succeeded": true}), "/include_succeeded").await;
    refused(json!({"filter": {}, "action": "retry", "rate": 0}), "/rate").await;
    refused(json!({"filter": {}, "action": "retry", "rate": "fast"}), "/rate").await;
    env.http.get("/v1/bulk/0199e9f0-0000-7000-8000-000000000000").await.problem(404, "bulk-not-found");
    env.http.get("/v1/bulk/nothing").await.problem(400, "invalid-path");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_bulk_is_the_first_one() {
    let env = Harness::shared();
    let key = label();
    let headers = [("idempotency-key", key.as_str())];
    let asked = json!({"filter": {"label": format!("batch:{key}")}, "action": "retry"});
    let first = env.http.post_with("/v1/bulk", &headers, &asked).await.expect(202);
    let again = env.http.post_with("/v1/bulk", &headers, &asked).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.expect(202)["id"], first["id"]);
    let other = json!({"filter": {"label": format!("batch:{key}")}, "action": "revoke"});
    env.http.post_with("/v1/bulk", &headers, &other).await.problem(422, "idempotency-key-reused");
    assert_eq!(is_done(&env.http, first["id"].as_str().expect("an id")).await["total"], 0);
}
