//! Labels of an entry: lists, `newest` and the entry's stream find tasks by them.

use serde_json::json;

use super::shared;

#[tokio::test]
async fn an_entry_labels_its_tasks_and_the_newest_is_found_by_them() {
    let env = shared();
    for steps in [1, 2] {
        let body = json!({"steps": steps, "user": "mina"});
        let accepted = env.http.post("/documents/labelled", &body).await.expect(202);
        env.finished(accepted["task_id"].as_str().expect("an id")).await;
    }
    let listed = env.http.get("/v1/tasks?label=upload_id:labelled&label=kind:document").await.expect(200);
    assert_eq!(listed["tasks"].as_array().map(Vec::len), Some(2), "{listed}");
    let newest = env.http.get("/v1/tasks?label=upload_id:labelled&newest=true").await.expect(200);
    let tasks = newest["tasks"].as_array().expect("tasks");
    assert_eq!(tasks.len(), 1, "{newest}");
    assert_eq!(tasks[0]["result"], json!({"steps": 2}), "with its result: {newest}");
    assert_eq!(tasks[0]["labels"], json!({"upload_id": "labelled", "kind": "document", "user": "mina"}), "{newest}");
    assert_eq!(newest["next"], json!(null), "{newest}");
    let none = env.http.get("/v1/tasks?label=upload_id:nobody&newest=true").await.expect(200);
    assert_eq!(none["tasks"], json!([]));
    for query in ["newest=yes", "newest=true&limit=5"] {
        env.http.get(&format!("/v1/tasks?{query}")).await.problem(400, "invalid-query");
    }
}

#[tokio::test]
async fn a_task_that_is_named_gets_the_labels_that_its_arguments_say() {
    let env = shared();
    let id = env.submit("demo.sleep", json!([0, "by-name"])).await;
    let task = env.http.get(&format!("/v1/tasks/{id}")).await.expect(200);
    assert_eq!(task["labels"], json!({"name": "by-name"}), "{task}");
    let said = json!({"task": "demo.sleep", "args": [0, "own"], "labels": {"name": "another", "more": "x"}});
    let id = env.submit_signature(said).await;
    let task = env.http.get(&format!("/v1/tasks/{id}")).await.expect(200);
    assert_eq!(task["labels"], json!({"name": "own", "more": "x"}), "the entry's word holds: {task}");
}

#[tokio::test]
async fn a_stream_follows_the_newest_task_of_its_labels() {
    let env = shared();
    env.http.get("/documents/followed").await.problem(404, "task-not-found");
    let mut last = String::new();
    for steps in [2, 3] {
        let accepted = env.http.post("/documents/followed", &json!({"steps": steps})).await.expect(202);
        let id = accepted["task_id"].as_str().expect("an id").to_owned();
        // The reader sends the last id of the older task, as a browser does.
        let events = env.http.events("/documents/followed", &[("last-event-id", last.as_str())]).await.rest().await;
        // A reader that connects after a task's end gets only the end.
        let first = events.first().expect("an event");
        assert!(["snapshot", "end"].contains(&first.event.as_str()), "nothing of the newer one is skipped: {events:?}");
        let end = events.last().expect("an end");
        assert_eq!((end.event.as_str(), &end.json()["task_id"]), ("end", &json!(id)));
        assert_eq!(end.json()["result"], json!({"steps": steps}));
        last = end.id.clone().expect("an id");
        assert!(last.starts_with(&format!("{id}:")), "{last}");
    }
    let over = env.http.get_with("/documents/followed", &[("last-event-id", &last)]).await;
    assert_eq!(over.status, 204, "nothing will follow");
    let replayed = env.http.get_with("/documents/followed", &[("accept", "application/json")]).await.expect(200);
    assert!(replayed["events"].as_array().is_some_and(|events| events.len() > 3), "{replayed}");
    env.http.get_with("/documents/followed", &[("last-event-id", "7")]).await.problem(400, "invalid-header");
}

#[tokio::test]
async fn the_contract_shows_the_stream() {
    let env = shared();
    let contract = env.http.get("/openapi.json").await.expect(200);
    let path = &contract["paths"]["/documents/{upload_id}"];
    assert!(path["post"].is_object() && path["get"].is_object(), "{path}");
    assert_eq!(path["get"]["parameters"][0]["name"], "upload_id", "{path}");
    let own = &path["post"]["responses"]["202"]["content"]["application/json"]["schema"]["allOf"][1]["properties"];
    assert_eq!(own["status"], json!({"const": "success"}), "{own}");
}
