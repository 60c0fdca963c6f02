//! `Idempotency-Key` and `unique`: the same request, sent to two gateways at the same moment, takes effect once.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Options};
use crate::harness::wait::{DEADLINE, within};
use crate::harness::{Answer, Http, Latch, postgres};

/// Sends the same request many times at once, alternating between the gateways.
async fn at_once(gateways: &[Http], count: usize, headers: &[(&str, &str)], body: &Value) -> Vec<Answer> {
    let calls = (0..count).map(|n| gateways[n % gateways.len()].post_with("/v1/tasks", headers, body));
    futures_util::future::join_all(calls).await
}

/// Moves the expiry times in this table back by more than an hour.
fn passes(database: &str, table: &str) {
    postgres::query(database, &format!("update taskgate.{table} set expires_at = expires_at - 4000000000"));
}

fn task_id(answer: &Answer) -> String {
    answer.json()["task_id"].as_str().unwrap_or_else(|| panic!("{}: {}", answer.status, answer.text())).to_owned()
}

/// The document's 200 of a `POST` to this path fits what was answered.
fn documented(document: &Value, path: &str, body: &Value) {
    let place = format!("/paths/{}/post/responses/200/content/application~1json/schema", path.replace('/', "~1"));
    let mut schema = document.pointer(&place).unwrap_or_else(|| panic!("no 200 at {path}")).clone();
    schema["components"] = document["components"].clone();
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    assert!(validator.is_valid(body), "{path}: {body}\n{schema}");
}

#[tokio::test]
async fn a_key_makes_one_task_of_many_requests_and_survives_restarts() {
    let config = "ledger.keep_idempotency = '1h'\n";
    let options = Options { without_worker: true, config: config.into(), ..Options::default() };
    let mut env = Harness::start(&options);
    let second = env.replica(config);
    let gateways = [env.http.clone(), second.http()];
    let key = [("idempotency-key", "order-17")];
    let body = json!({"task": "demo.identity", "args": [17]});
    let answers = at_once(&gateways, 40, &key, &body).await;
    let ids: HashSet<String> = answers.iter().map(task_id).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert!(answers.iter().all(|answer| answer.status == 202));
    let first = |answer: &&Answer| answer.header("idempotency-replayed").is_none();
    assert_eq!(answers.iter().filter(first).count(), 1, "all but one are replayed");
    assert!(answers.iter().all(|answer| answer.json() == answers[0].json()), "all get the same answer");
    let listed = env.http.get("/v1/tasks").await.expect(200);
    assert_eq!(listed["tasks"].as_array().map(Vec::len), Some(1), "{listed}");

    let other = env.http.post_with("/v1/tasks", &key, &json!({"task": "demo.identity", "args": [18]})).await;
    other.problem(422, "idempotency-key-reused");
    env.gateway.kill();
    env.gateway.restart();
    let again = env.http.post_with("/v1/tasks", &key, &body).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (202, Some("true")));
    assert!(ids.contains(&task_id(&again)));
    passes(&env.database, "idempotency");
    within(DEADLINE, "a key is free when its time is over", async || {
        let later = env.http.post_with("/v1/tasks", &key, &body).await;
        (!ids.contains(&task_id(&later))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_unique_task_is_joined_by_everybody_until_it_ends() {
    let env = Harness::start(&Options::default());
    let second = env.replica("");
    let gateways = [env.http.clone(), second.http()];
    let latch = Latch::closed();
    let body = json!({"task": "demo.until", "args": latch.args(()), "unique": {"key": "report-7", "while": "active"}});
    let answers = at_once(&gateways, 40, &[], &body).await;
    let ids: HashSet<String> = answers.iter().map(task_id).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let accepted = answers.iter().filter(|answer| answer.status == 202).count();
    let joined = answers.iter().filter(|answer| answer.status == 200 && answer.json()["deduplicated"] == true).count();
    assert_eq!((accepted, joined), (1, 39));
    latch.open();
    let id = ids.into_iter().next().expect("one");
    env.finished(&id).await;
    let next = env.http.post("/v1/tasks", &body).await;
    assert_eq!(next.status, 202, "{}", next.text());
    assert_ne!(task_id(&next), id);

    // A task that is revoked before it starts frees its key too.
    let held =
        json!({"task": "demo.add", "args": [1, 1], "countdown": 600, "unique": {"key": "held", "while": "active"}});
    let first = task_id(&env.http.post("/v1/tasks", &held).await);
    assert_eq!(env.http.post("/v1/tasks", &held).await.status, 200);
    env.http.post(&format!("/v1/tasks/{first}/revoke"), &json!({})).await.expect(200);
    assert_eq!(env.http.post("/v1/tasks", &held).await.status, 202);

    // A canvas joins the task that holds its key, and the document knows what is answered then.
    let document = env.http.get("/openapi.json").await.expect(200);
    let steps = json!([{"task": "demo.add", "args": [1, 1]}, {"task": "demo.add", "args": [1]}]);
    let unique = &held["unique"];
    for (path, call) in [
        ("/v1/tasks", held.clone()),
        ("/chain", json!({"tasks": steps, "unique": unique})),
        ("/group", json!({"tasks": steps, "unique": unique})),
        ("/chord", json!({"header": steps, "body": {"task": "demo.xsum"}, "unique": unique})),
    ] {
        let joined = env.http.post(path, &call).await.expect(200);
        assert_eq!(joined["deduplicated"], true, "{path}: {joined}");
        documented(&document, path, &joined);
    }

    // The key is held for a fixed time, whether the task has ended or not; both gateways know that.
    let timed = json!({"task": "demo.add", "args": [1, 1], "unique": {"key": "timed", "while": 3600}});
    let first = task_id(&env.http.post("/v1/tasks", &timed).await);
    env.finished(&first).await;
    let joined = second.http().post("/v1/tasks", &timed).await;
    assert_eq!((joined.status, task_id(&joined)), (200, first.clone()));
    passes(&env.database, "unique_key");
    within(DEADLINE, "its time is over", async || {
        let answer = env.http.post("/v1/tasks", &timed).await;
        (answer.status == 202).then_some(())
    })
    .await;
}
