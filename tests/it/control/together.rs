//! Revoke, retry and explain for a group or a whole canvas: a verdict for each member, and a sum.

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Shared};
use crate::harness::eventually;

fn id(of: &Value, field: &str) -> String {
    of[field].as_str().unwrap_or_else(|| panic!("no {field} in {of}")).to_owned()
}

async fn phases(env: &Shared, group: &str) -> Vec<String> {
    let found = env.http.get(&format!("/result/{group}")).await.json();
    let children = found["children"].as_array().unwrap_or_else(|| panic!("{found}")).clone();
    children.iter().map(|child| id(child, "phase")).collect()
}

#[tokio::test]
async fn a_group_is_revoked_as_a_whole_with_a_verdict_for_each_task() {
    let env = Harness::shared();
    let late = json!({"task": "demo.add", "args": [1, 2], "countdown": 3600});
    let chain = json!({"chain": [late, {"task": "demo.add", "args": [3]}]});
    let accepted = env.http.post("/group", &json!({"tasks": [late, chain, late]})).await.expect(202);
    let group = id(&accepted, "group_id");
    let explained = env.http.get(&format!("/v1/tasks/{group}/explain")).await.expect(200);
    assert!(id(&explained, "sentence").starts_with("0 of its 3 members have ended: 2 held, 1 waiting"), "{explained}");
    assert_eq!(explained["evidence"]["members"].as_array().map(Vec::len), Some(3), "{explained}");
    let graph = env.http.get(&format!("/v1/tasks/{group}/graph")).await.expect(200);
    assert_eq!(graph["nodes"].as_array().map(Vec::len), Some(4), "{graph}");
    let revoked = env.http.post(&format!("/v1/tasks/{group}/revoke"), &json!({})).await.expect(200);
    assert_eq!((&revoked["verdict"], &revoked["confirmed"]), (&json!("prevented"), &json!(true)), "{revoked}");
    assert_eq!((&revoked["prevented"], &revoked["signalled"], &revoked["too_late"]), (&json!(4), &json!(0), &json!(0)));
    assert!(revoked["members"].as_array().is_some_and(|all| all.iter().all(|one| one["verdict"] == "prevented")));
    assert_eq!(phases(&env, &group).await, ["revoked"; 3]);
    let again = env.http.post(&format!("/v1/tasks/{group}/revoke"), &json!({})).await.expect(200);
    assert_eq!((&again["verdict"], &again["too_late"]), (&json!("too_late"), &json!(4)), "{again}");
}

#[tokio::test]
async fn a_chain_is_revoked_alone_or_with_its_canvas_as_the_caller_says() {
    let env = Harness::shared();
    let late = json!({"task": "demo.add", "args": [1, 2], "countdown": 3600});
    let tasks = json!({"tasks": [late, {"task": "demo.add", "args": [3]}, {"task": "demo.add", "args": [4]}]});
    let accepted = env.http.post("/chain", &tasks).await.expect(202);
    let last = id(&accepted, "task_id");
    let alone = env.http.post(&format!("/v1/tasks/{last}/revoke"), &json!({})).await.expect(200);
    assert_eq!((&alone["verdict"], &alone["members"]), (&json!("prevented"), &Value::Null), "{alone}");
    let whole = env.http.post(&format!("/v1/tasks/{last}/revoke"), &json!({"canvas": true})).await.expect(200);
    assert_eq!(whole["members"].as_array().map(Vec::len), Some(3), "{whole}");
    let graph = env.http.get(&format!("/v1/tasks/{last}/graph")).await.expect(200);
    assert!(graph["nodes"].as_array().is_some_and(|all| all.iter().all(|one| one["phase"] == "revoked")), "{graph}");
}

#[tokio::test]
async fn what_failed_of_a_group_is_sent_again_once() {
    let env = Harness::shared();
    let fail = json!({"task": "demo.fail", "args": ["ValueError", "boom"]});
    let well = json!({"task": "demo.add", "args": [1, 2]});
    let accepted = env.http.post("/group", &json!({"tasks": [fail, well]})).await.expect(202);
    let group = id(&accepted, "group_id");
    eventually("both have ended", async || {
        let phases = phases(&env, &group).await;
        (phases.contains(&"failed".to_owned()) && phases.contains(&"succeeded".to_owned())).then_some(())
    })
    .await;
    let retried = env.http.post(&format!("/v1/tasks/{group}/retry"), &json!({})).await.expect(202);
    assert_eq!((&retried["retried"], &retried["left"]), (&json!(1), &json!(1)), "{retried}");
    let members = retried["members"].as_array().expect("members");
    let next = members.iter().find_map(|one| one["retried_as"].as_str()).expect("one was sent again").to_owned();
    let task = env.http.get(&format!("/v1/tasks/{next}")).await.expect(200);
    assert!(task["retry_of"].is_string(), "{task}");
    let again = env.http.post(&format!("/v1/tasks/{group}/retry"), &json!({})).await.expect(202);
    assert_eq!(again["retried"], 0, "{again}");
}

#[tokio::test]
async fn one_id_is_one_task_however_it_is_written() {
    let env = Harness::shared();
    let usual = uuid::Uuid::now_v7().to_string();
    let upper = usual.to_uppercase();
    let body = json!({"task": "demo.add", "args": [1, 2], "countdown": 3600, "task_id": upper});
    assert_eq!(id(&env.http.post("/v1/tasks", &body).await.expect(202), "task_id"), usual);
    assert_eq!(env.http.post("/v1/tasks", &body).await.status, 409);
    for spelling in [upper, format!("%7B{usual}%7D"), usual.replace('-', "")] {
        let task = env.http.get(&format!("/v1/tasks/{spelling}")).await.expect(200);
        assert_eq!(id(&task, "task_id"), usual, "{spelling}");
    }
    let revoked = env.http.post(&format!("/v1/tasks/%7B{usual}%7D/revoke"), &json!({})).await.expect(200);
    assert_eq!(revoked["verdict"], "prevented", "{revoked}");
}
