//! Only one task of a key at a time: a further submission joins it, is refused, or replaces it.

use serde_json::json;

use super::shared;

#[tokio::test]
async fn a_document_that_is_sent_again_takes_the_place_of_the_one_that_runs() {
    let env = shared();
    let slow = json!({"steps": 600, "delay": 0.1});
    let first = env.http.post("/documents/again", &slow).await.expect(202);
    let first = first["task_id"].as_str().expect("an id").to_owned();
    env.in_phase(&first, "running").await;
    let second = env.http.post("/documents/again", &json!({"steps": 1})).await.expect(202);
    let replaced = &second["replaced"];
    assert_eq!((&replaced["task_id"], &replaced["verdict"]), (&json!(first), &json!("signalled")), "{second}");
    let done = env.finished(second["task_id"].as_str().expect("an id")).await;
    assert_eq!(done["result"], json!({"steps": 1}), "{done}");
    let old = env.finished(&first).await;
    assert_eq!(old["status"], "REVOKED", "{old}");
    let third = env.http.post("/documents/again", &json!({"steps": 1})).await.expect(202);
    assert!(third.get("replaced").is_none(), "nobody holds the key: {third}");
}

#[tokio::test]
async fn what_has_not_begun_is_replaced_for_certain_however_it_is_named() {
    let env = shared();
    let unique = json!({"key": "waits", "on_conflict": "replace"});
    let held = json!({"task": "demo.identity", "args": [1], "countdown": 600, "unique": unique});
    let first = env.submit_signature(held.clone()).await;
    let chain = json!({"chain": [held_step(600), held_step(0)], "unique": unique});
    let second = env.http.post("/v1/tasks", &chain).await.expect(202);
    assert_eq!(second["replaced"]["verdict"], "prevented", "{second}");
    assert_eq!(env.finished(&first).await["status"], "REVOKED");
    let third = json!({"task": "demo.identity", "args": [3], "unique": unique});
    let third = env.http.post("/v1/tasks", &third).await.expect(202);
    assert_eq!(
        (&third["replaced"]["task_id"], &third["replaced"]["verdict"]),
        (&second["task_id"], &json!("prevented"))
    );
    for step in second["children"].as_array().expect("steps") {
        let step = env.finished(step["task_id"].as_str().expect("an id")).await;
        assert_eq!(step["status"], "REVOKED", "the whole canvas is revoked: {step}");
    }
    assert_eq!(env.finished(third["task_id"].as_str().expect("an id")).await["result"], 3);
}

fn held_step(countdown: u32) -> serde_json::Value {
    json!({"task": "demo.identity", "args": [2], "countdown": countdown, "immutable": true})
}

#[tokio::test]
async fn a_key_that_is_held_is_refused_with_its_holder() {
    let env = shared();
    let first = env.http.post("/only-one/mine", &json!({"seconds": 600})).await.expect(202);
    let first = first["task_id"].as_str().expect("an id").to_owned();
    let problem = env.http.post("/only-one/mine", &json!({})).await.problem(409, "unique-key-held");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(&first)), "{problem}");
    let by_name = json!({"task": "demo.sleep", "args": [0, "mine"]});
    env.http.post("/v1/tasks", &by_name).await.problem(409, "unique-key-held");
    env.http.post("/chain", &json!({"tasks": [by_name, by_name]})).await.problem(422, "invalid-request");
    env.http.post("/v1/tasks/batch?atomic=true", &json!([by_name])).await.problem(422, "invalid-request");
    env.http.post("/only-one/yours", &json!({})).await.expect(202);
    env.http.post(&format!("/v1/tasks/{first}/revoke"), &json!({"terminate": true})).await.expect(200);
    env.finished(&first).await;
    env.http.post("/only-one/mine", &json!({})).await.expect(202);
}

#[tokio::test]
async fn many_that_replace_each_other_leave_one() {
    let env = shared();
    let submit = async |n: u32| {
        let unique = json!({"key": "crowd", "on_conflict": "replace"});
        let held = json!({"task": "demo.identity", "args": [n], "countdown": 600, "unique": unique});
        env.http.post("/v1/tasks", &held).await
    };
    let answers = futures_util::future::join_all((0..8).map(submit)).await;
    let taken = answers.iter().filter(|answer| answer.status == 202).count();
    assert!(taken >= 1, "somebody has the key");
    for answer in &answers {
        assert!([202, 409].contains(&answer.status), "{}", answer.text());
    }
    let mut open = Vec::new();
    for answer in answers.iter().filter(|answer| answer.status == 202) {
        let id = answer.json()["task_id"].as_str().expect("an id").to_owned();
        let task = env.http.get(&format!("/v1/tasks/{id}")).await.expect(200);
        if task["phase"] == "held" {
            open.push(id);
        }
    }
    assert_eq!(open.len(), 1, "{open:?}");
}
