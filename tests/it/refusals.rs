//! Bad input gets its own clear answer: a problem that names the place, nothing queued, nothing broken (promise P10, row S10).

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::environment::{Harness, Options};
use crate::harness::{Answer, Latch, Shared};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

async fn post(env: &Shared, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    env.http.send(Method::POST, path, headers, Some(body.to_vec())).await
}

#[track_caller]
fn assert_problem(answer: &Answer, what: &str) -> Value {
    assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("application/problem+json"), "{what}: {kind}");
    let problem = answer.json();
    assert_eq!(problem["status"], answer.status, "{what}: {problem}");
    assert!(problem["title"].as_str().is_some_and(|text| !text.is_empty()), "{what}: no title in {problem}");
    assert!(problem["type"].as_str().is_some_and(|kind| kind.starts_with("/problems/")), "{what}: {problem}");
    problem
}

#[tokio::test]
async fn fields_that_do_not_fit_are_named() {
    let env = Harness::shared();
    let cases = [
        ("/task", json!({"args": []})),
        ("/task", json!({"task": 5})),
        ("/task", json!({"task": ""})),
        ("/args", json!({"task": "demo.add", "args": {"x": 1}})),
        ("/kwargs", json!({"task": "demo.add", "kwargs": [1]})),
        ("/priority", json!({"task": "demo.add", "priority": 10})),
        ("/priority", json!({"task": "demo.add", "priority": "high"})),
        ("/countdown", json!({"task": "demo.add", "countdown": -1})),
        ("/eta", json!({"task": "demo.add", "eta": "tomorrow"})),
        ("/task_id", json!({"task": "demo.add", "task_id": "not a uuid"})),
        ("/queue", json!({"task": "demo.add", "queue": ""})),
        ("/no_such_field", json!({"task": "demo.add", "no_such_field": 1})),
        ("/link/0/task", json!({"task": "demo.add", "link": [{"args": []}]})),
        ("/time_limit", json!({"task": "demo.add", "time_limit": 0})),
    ];
    for (pointer, body) in cases {
        let answer = env.http.post("/v1/tasks", &body).await;
        let problem = assert_problem(&answer, &body.to_string());
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        assert!(errors.iter().any(|error| error["pointer"] == pointer), "{body} should name {pointer}: {problem}");
    }
}

#[tokio::test]
async fn bodies_that_are_no_json_are_refused() {
    let env = Harness::shared();
    let deep = format!("{{\"task\": \"demo.add\", \"args\": {}{}}}", "[".repeat(200), "]".repeat(200));
    let cases: [(&str, &[u8]); 7] = [
        ("empty", b""),
        ("cut off", b"{\"task\": \"demo.add\""),
        ("two values", b"{\"task\": \"demo.add\"} {}"),
        ("not UTF-8", b"{\"task\": \"demo.\xff\"}"),
        ("NaN", b"{\"task\": \"demo.add\", \"args\": [NaN]}"),
        ("half a surrogate pair", br#"{"task": "demo.add", "args": ["\ud800"]}"#),
        ("too deep", deep.as_bytes()),
    ];
    for (what, body) in cases {
        assert_problem(&post(&env, "/v1/tasks", JSON, body).await, what);
    }
    let pickled = post(&env, "/v1/tasks", &[("content-type", "application/x-python-serialize")], b"\x80\x04.").await;
    assert_problem(&pickled, "pickle");
}

#[tokio::test]
async fn a_task_that_is_not_allowed_is_refused_by_name() {
    let env = Harness::shared();
    let answer = env.http.post("/v1/tasks", &json!({"task": "os.system", "args": ["true"]})).await;
    let problem = assert_problem(&answer, "os.system");
    assert!(problem.to_string().contains("os.system"), "{problem}");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_answered_and_drained() {
    let env = Harness::shared();
    let body = json!({"task": "demo.add", "args": ["x".repeat(9 << 20)]}).to_string().into_bytes();
    let answer = post(&env, "/v1/tasks", JSON, &body).await;
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert_problem(&answer, "9 MiB");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let env = Harness::shared();
    assert_eq!(assert_problem(&env.http.get("/no/such/path").await, "path")["status"], 404);
    let answer = env.http.send(Method::DELETE, "/v1/tasks", &[], None).await;
    assert_eq!(assert_problem(&answer, "method")["status"], 405);
}

#[tokio::test]
async fn nothing_refused_is_queued_and_the_problem_pages_exist() {
    let env = Harness::start(&Options { without_worker: true, ..Options::default() });
    for body in [json!({"task": "os.system"}), json!({"task": "demo.add", "priority": 99}), json!([])] {
        let problem = assert_problem(&env.http.post("/v1/tasks", &body).await, &body.to_string());
        let page = env.http.get(problem["type"].as_str().expect("a path")).await;
        assert_eq!(page.status, 200, "{}", page.what);
    }
    assert_eq!(env.http.get("/v1/tasks").await.expect(200)["tasks"], json!([]));
    assert_eq!(env.redis.command::<u32>(0, &["LLEN", "celery"]), 0);
}

/// Any client may publish on the result channel; messages that are not Celery records must be ignored without harm.
#[tokio::test]
async fn nonsense_on_the_result_channel_changes_nothing() {
    let env = Harness::shared();
    let latch = Latch::closed();
    let id = env.submit("demo.until", latch.args("right")).await;
    env.in_phase(&id, "running").await;
    let channel = format!("celery-task-meta-{id}");
    let large = format!("{{\"status\": \"PROGRESS\", \"result\": \"{}\", \"task_id\": \"{id}\"", "x".repeat(1 << 20));
    for nonsense in ["", "2", "[]", "not json", "{\"status\": 5}", "{}", "{\"status\": \"SUCCESS\"", &large] {
        env.redis.command::<u32>(1, &["PUBLISH", &channel, nonsense]);
    }
    for channel in ["celery-task-meta-", "celery-task-meta-\u{1f680}", &format!("celery-task-meta-{}", "x".repeat(400))]
    {
        env.redis.command::<u32>(1, &["PUBLISH", channel, "{\"status\": \"SUCCESS\", \"result\": 1}"]);
    }
    latch.open();
    let done = env.finished(&id).await;
    assert_eq!((&done["status"], &done["result"]), (&json!("SUCCESS"), &json!("right")), "{done}");
    assert_eq!(env.http.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn the_same_task_id_twice_is_refused_or_answered_but_runs_once() {
    let env = Harness::shared();
    let id = runtime::clock::new_id().to_string();
    let body = json!({"task": "demo.identity", "args": [1], "task_id": id});
    assert_eq!(env.submit_signature(body.clone()).await, id);
    let again = env.http.post("/v1/tasks", &json!({"task": "demo.identity", "args": [2], "task_id": id})).await;
    assert_eq!(assert_problem(&again, "the id again")["status"], 409);
    assert_eq!(env.finished(&id).await["result"], 1);
}
