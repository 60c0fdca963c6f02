use serde_json::json;

use super::Bench;

#[tokio::test]
async fn an_answer_has_the_contract_s_fields_in_their_order() {
    let bench = Bench::start("").await;
    let answer = bench.post("/start/upload-7", "").await;
    let accepted = answer.json(202);
    let id = accepted["task_id"].as_str().unwrap();
    let text = String::from_utf8(answer.body.clone()).unwrap();
    let expected = format!(
        r#"{{"task_id":"{id}","status":"PENDING","phase":"accepted","task":"tasks.process_document","queue":"document_processing","message":"Processing document upload-7 in the background","links":{{"self":"/v1/tasks/{id}","result":"/result/{id}","events":"/v1/tasks/{id}/events"}},"upload_id":"upload-7"}}"#
    );
    assert_eq!(text, expected);
    assert_eq!(answer.header("location"), Some(format!("/v1/tasks/{id}").as_str()));
    assert_eq!(answer.header("retry-after"), Some("1"));
    let result = bench.get(&format!("/result/{id}")).await;
    let body = String::from_utf8(result.body.clone()).unwrap();
    let expected = format!(
        r#"{{"task_id":"{id}","task":"tasks.process_document","status":"PENDING","ready":false,"successful":false,"failed":false,"result":null,"error":null,"traceback":null,"progress":null,"children":[],"retries":0,"date_done":null,"parent_id":null,"root_id":"{id}","group_id":null}}"#
    );
    assert_eq!((result.status.as_u16(), body), (202, expected));
}

#[tokio::test]
async fn arguments_keep_every_digit() {
    let bench = Bench::start("").await;
    let body = r#"{"x": 123456789012345678901234567890, "y": 1.50}"#;
    let id = bench.post("/add", body).await.json(202)["task_id"].as_str().unwrap().to_owned();
    let task = bench.get(&format!("/v1/tasks/{id}")).await;
    let text = String::from_utf8(task.body).unwrap();
    assert!(text.contains(r#""args":[123456789012345678901234567890, 1.50]"#), "{text}");
}

#[tokio::test]
async fn a_repetition_gets_the_first_answer_and_another_request_a_problem() {
    let bench = Bench::start("").await;
    let key = [("idempotency-key", "order 66")];
    let first = bench.post_with("/start/a", &key, "").await;
    let again = bench.post_with("/start/a", &key, "").await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), (None, Some("true")));
    assert_eq!(again.header("location"), first.header("location"));
    bench.post_with("/start/b", &key, "").await.problem("idempotency-key-reused");
    assert_eq!(bench.get("/v1/tasks").await.json(200)["tasks"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn canvases_show_their_tasks_and_a_group_has_no_task_id() {
    let bench = Bench::start("").await;
    let body =
        json!({"tasks": [{"task": "tasks.add", "args": [1, 2]}, {"task": "tasks.multiply", "args": [3]}]}).to_string();
    let chain = bench.post("/chain", body.clone()).await.json(202);
    assert_eq!(
        (&chain["task"], chain["children"].as_array().map(Vec::len)),
        (&json!("tasks.multiply"), Some(2)),
        "{chain}"
    );
    let group = bench.post("/group", body).await.json(202);
    let id = group["group_id"].as_str().unwrap();
    assert!(group.get("task_id").is_none(), "{group}");
    assert_eq!(group["links"]["result"], format!("/result/{id}"));
    let result = bench.get(&format!("/result/{id}")).await.json(202);
    assert_eq!(
        (&result["completed"], &result["total"], &result["status"]),
        (&json!(0), &json!(2), &json!("PENDING")),
        "{result}"
    );
}

#[tokio::test]
async fn what_is_redacted_is_masked_wherever_it_is_shown() {
    let entry = "[[tasks]]\nname = \"tasks.login\"\nendpoint = \"POST /login\"\nkwargs = { password = \"{password}\", user = \"{user}\" }\nredact = [\"password\"]\nbody = { properties = { user = {}, password = {} } }\n";
    let bench = Bench::start(entry).await;
    let id = bench.post("/login", r#"{"user": "me", "password": "geheim"}"#).await.json(202)["task_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let task = bench.get(&format!("/v1/tasks/{id}")).await.json(200);
    assert_eq!(task["kwargs"], json!({"password": "***", "user": "me"}), "{task}");
}

#[tokio::test]
async fn lists_walk_from_the_newest_to_the_oldest() {
    let bench = Bench::start("").await;
    for upload in ["a", "b", "c"] {
        bench.post(&format!("/start/{upload}"), "").await.json(202);
    }
    let first = bench.get("/v1/tasks?limit=2&task=tasks.process_document").await;
    let page = first.json(200);
    let next = page["next"].as_str().unwrap();
    let link = format!("</v1/tasks?limit=2&task=tasks.process_document&cursor={next}>; rel=\"next\"");
    assert_eq!(first.header("link"), Some(link.as_str()));
    let last = bench.get(&format!("/v1/tasks?limit=2&cursor={next}")).await;
    assert_eq!((last.json(200)["tasks"].as_array().map(Vec::len), last.header("link")), (Some(1), None));
}

#[tokio::test]
async fn an_etag_spares_the_body() {
    let bench = Bench::start("").await;
    let id = bench.post("/start/a", "").await.json(202)["task_id"].as_str().unwrap().to_owned();
    for path in [format!("/result/{id}"), format!("/v1/tasks/{id}")] {
        let etag = bench.get(&path).await.header("etag").unwrap().to_owned();
        let weak = format!("W/{etag}, \"x\"");
        let again = bench.get_with(&path, &[("if-none-match", &weak)]).await;
        assert_eq!((again.status.as_u16(), again.body.len()), (304, 0), "{path}");
    }
}

#[tokio::test]
async fn the_history_comes_as_one_document_too() {
    let bench = Bench::start("").await;
    let id = bench.post("/start/a", "").await.json(202)["task_id"].as_str().unwrap().to_owned();
    let answer = bench.get_with(&format!("/v1/tasks/{id}/events"), &[("accept", "application/json")]).await.json(200);
    assert_eq!((&answer["events"][0]["event"], &answer["events"][0]["seq"]), (&json!("state"), &json!(1)), "{answer}");
}
