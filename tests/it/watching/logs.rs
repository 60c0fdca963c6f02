//! Logs: one line for each request, as JSON or text, never a payload.

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Options};
use crate::harness::eventually;

const SECRET: &str = "geheim-0815";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_is_one_line_of_json_without_payloads() {
    let config = "log.format = 'json'\nlog.filter = 'debug'".to_owned();
    let env = Harness::start(&Options { config, ..Options::default() });
    let headers =
        [("x-request-id", "call-1"), ("idempotency-key", "geheim-0815-key"), ("authorization", "Bearer geheim-0815")];
    let body = json!({"task": "demo.echo", "args": [SECRET], "kwargs": {"word": SECRET}, "labels": {"tenant": "kim"}});
    let id = env.http.post_with("/v1/tasks", &headers, &body).await.expect(202)["task_id"].as_str().map(str::to_owned);
    let id = id.expect("an id");
    assert_eq!(env.finished(&id).await["result"]["args"][0], SECRET, "it really was in the message");
    let failing = json!({"task": "demo.fail", "args": ["ValueError", SECRET]});
    let failed = env.submit_signature(failing).await;
    env.finished(&failed).await;
    let refused = json!({"task": "demo.echo", "args": [SECRET], "priority": SECRET});
    env.http.post_with("/v1/tasks", &[("x-request-id", "call-2")], &refused).await.problem(422, "invalid-request");
    env.http.get_with(&format!("/v1/tasks?q={SECRET}"), &[("x-request-id", "call-3")]).await.expect(200);

    let lines = |log: &str, id: &str| -> Vec<Value> {
        let lines = log.lines().filter(|line| line.starts_with('{'));
        let parsed = lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
        parsed.filter(|line: &Value| line["request.id"] == id).collect()
    };
    let log = eventually("the last request is logged", async || {
        let log = env.gateway.log();
        (!lines(&log, "call-3").is_empty()).then_some(log)
    })
    .await;
    for (request, status, message) in [
        ("call-1", 202, "POST /v1/tasks was answered 202"),
        ("call-2", 422, "POST /v1/tasks was answered 422"),
        ("call-3", 200, "GET /v1/tasks was answered 200"),
    ] {
        let found = lines(&log, request);
        assert_eq!(found.len(), 1, "{request}: {found:#?}");
        assert_eq!((&found[0]["http.status"], &found[0]["message"]), (&json!(status), &json!(message)));
        assert!(found[0]["duration_ms"].is_number() && found[0]["timestamp"].is_string(), "{}", found[0]);
    }
    let leaks: Vec<&str> = log.lines().filter(|line| line.contains(SECRET)).collect();
    assert!(leaks.is_empty(), "payloads in the log: {leaks:#?}");
}
