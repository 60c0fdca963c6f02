//! The sample catalog over HTTP, run by the Python example (rows S1, S2, S4, S10, O4).

use reqwest::Method;
use serde_json::json;

use crate::harness::environment::Harness;

#[tokio::test]
async fn a_crawl_is_accepted_at_once_and_a_second_one_finds_nothing_new() {
    let env = Harness::shared();
    let mut saved = Vec::new();
    for _ in 0..2 {
        let answer = env.http.post("/run-crawler/volunteer", &json!({})).await;
        let accepted = answer.expect(202);
        assert_eq!(accepted["category"], "volunteer", "{accepted}");
        assert_eq!(accepted["message"], "Crawling volunteer in the background", "{accepted}");
        assert_eq!((&accepted["task"], &accepted["queue"]), (&json!("tasks.college_crawl_task"), &json!("crawl")));
        assert_eq!(accepted["status"], "PENDING", "{accepted}");
        let id = accepted["task_id"].as_str().expect("an id");
        assert!(answer.header("location").is_some_and(|place| place.contains(id)), "{:?}", answer.headers);
        let done = env.finished(id).await;
        assert_eq!(done["status"], "SUCCESS", "{done}");
        assert_eq!(done["result"]["total_items"], 30, "{done}");
        assert!(done["result"]["duration"].is_number(), "{done}");
        saved.push(done["result"]["saved_items"].clone());
        let task = env.http.get(&format!("/v1/tasks/{id}")).await.expect(200);
        assert_eq!(task["args"], json!(["봉사 공지사항 크롤링"]), "{task}");
        assert_eq!(task["priority"], 1, "{task}");
    }
    assert_eq!(saved, [json!(30), json!(0)]);
}

#[tokio::test]
async fn an_unknown_category_is_a_404_that_lists_the_known_ones() {
    let env = Harness::shared();
    let problem = env.http.post("/run-crawler/sports", &json!({})).await.expect(404);
    let text = problem.to_string();
    for category in ["volunteer", "job", "scholarship"] {
        assert!(text.contains(category), "{problem}");
    }
}

#[tokio::test]
async fn a_document_goes_through_five_stages() {
    let env = Harness::shared();
    let accepted = env.http.post("/start/upload-7", &json!({})).await.expect(202);
    assert_eq!(accepted["upload_id"], "upload-7", "{accepted}");
    let id = accepted["task_id"].as_str().expect("an id");
    let events = env.http.events(&format!("/v1/tasks/{id}/events"), &[("last-event-id", "0")]).await.rest().await;
    let stages: Vec<_> = events
        .iter()
        .filter(|event| event.event == "progress")
        .map(|event| event.json()["meta"]["message"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(stages, ["download", "extract text", "chunk", "embed", "store"]);
    assert_eq!(events.last().expect("an end").json()["result"]["upload_id"], "upload-7");
}

#[tokio::test]
async fn add_checks_its_body_and_keeps_numbers() {
    let env = Harness::shared();
    let accepted = env.http.post("/add", &json!({"x": 2, "y": 3.5})).await.expect(202);
    let done = env.finished(accepted["task_id"].as_str().expect("an id")).await;
    assert_eq!(done["result"], 5.5, "{done}");
    for body in [json!({"x": 2}), json!({"x": "2", "y": 3}), json!({"x": 1, "y": 2, "z": 3}), json!([1, 2])] {
        let answer = env.http.post("/add", &body).await;
        let problem = answer.expect(422);
        assert!(problem["errors"].as_array().is_some_and(|errors| !errors.is_empty()), "{body}: {problem}");
    }
}

#[tokio::test]
async fn a_short_task_is_answered_with_its_result_when_waited_for() {
    let env = Harness::shared();
    let done = env.http.post_with("/add", &[("prefer", "wait=60")], &json!({"x": 1, "y": 2})).await.expect(200);
    assert_eq!((&done["result"], &done["status"]), (&json!(3), &json!("SUCCESS")), "{done}");
}

#[tokio::test]
async fn request_info_is_what_the_worker_saw() {
    let env = Harness::shared();
    let accepted = env.http.post("/test-request-info", &json!({})).await.expect(202);
    let id = accepted["task_id"].as_str().expect("an id");
    let seen = env.finished(id).await["result"].clone();
    assert_eq!(seen["id"], id, "{seen}");
    assert_eq!(seen["task"], "tasks.request_info", "{seen}");
    for field in ["retries", "args", "kwargs", "group", "root_id", "parent_id"] {
        assert!(seen.get(field).is_some(), "no {field} in {seen}");
    }
}

#[tokio::test]
async fn a_picture_is_uploaded_and_analyzed() {
    let env = Harness::shared();
    let picture = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x03\0\0\0\x02 and more";
    let head = "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"cat.png\"\r\nContent-Type: image/png\r\n\r\n";
    let form = [head.as_bytes(), picture, b"\r\n--XX--\r\n"].concat();
    let headers = [("content-type", "multipart/form-data; boundary=XX")];
    let accepted = env.http.send(Method::POST, "/analyze", &headers, Some(form)).await.expect(202);
    assert_eq!(accepted["message"], "Analyzing cat.png in the background", "{accepted}");
    assert_eq!(accepted["queue"], "image_analysis", "{accepted}");
    let result = env.finished(accepted["task_id"].as_str().expect("an id")).await["result"].clone();
    assert_eq!((&result["name"], &result["format"]), (&json!("cat.png"), &json!("png")), "{result}");
    assert_eq!((&result["width"], &result["height"]), (&json!(3), &json!(2)), "{result}");
    assert_eq!(result["bytes"], picture.len(), "{result}");
    let not_one = [head.as_bytes(), b"%PDF-1.7", b"\r\n--XX--\r\n"].concat();
    let refused = env.http.send(Method::POST, "/analyze", &headers, Some(not_one)).await;
    refused.problem(415, "unsupported-media-type");
}
