//! A task obeys the same rules however it is submitted: what the endpoint of a catalog entry refuses, every other way refuses too.

use reqwest::Method;
use serde_json::{Value, json};

use crate::doors_commands::Commands;
use crate::hooks::github;

const MORE: &str = r#"
[[tasks]]
name = "say.secret"
command = ["printf", '"/etc/pass*"']

[[tasks]]
name = "words.open"
open = true
command = ["./count-words.sh"]
args = ["{files}"]
process.directory = "."
[tasks.body]
type = "object"
properties.files = { type = "string", pattern = "^[a-z]+$" }

[[tasks]]
name = "mail.send"
endpoint = "POST /mail"
command = ["true"]
args = ["{to}"]
queue = "mail"
time_limit = "30s"
limits = [{ key = "to:{to}", max = 1 }]
[tasks.body]
type = "object"
required = ["to"]
properties.to = { type = "string", pattern = "^[a-z]+$" }

[[hooks]]
path = "/hooks/words"
verify = "github"
secret = "geheim"
task = "words.count"
args = ["{files}"]
"#;

fn bad() -> Value {
    json!({"task": "words.count", "args": ["/etc/pass*"]})
}

fn good() -> Value {
    json!({"task": "words.count", "args": ["*.toml"]})
}

#[tokio::test]
async fn the_shipped_example_refuses_by_name_what_its_endpoint_refuses() {
    let dev = Commands::start(MORE);
    dev.http.post("/count", &json!({"files": "/etc/pass*"})).await.problem(422, "invalid-request");
    let cases = [
        ("/v1/tasks", bad(), "/args/0"),
        ("/v1/tasks", json!({"task": "words.count", "args": ["a", "/etc/passwd"]}), "/args/1"),
        ("/v1/tasks", json!({"task": "words.count", "kwargs": {"files": "/etc/passwd"}}), "/kwargs/files"),
        ("/v1/tasks", json!({"task": "mail.send", "args": ["bob"], "queue": "celery"}), "/queue"),
        ("/v1/tasks", json!({"task": "mail.send", "args": ["bob"], "time_limit": 3600}), "/time_limit"),
        ("/v1/tasks", json!({"chain": [good(), {"group": [good(), bad()]}]}), "/chain/1/group/1/args/0"),
        ("/v1/tasks", json!({"task": "say.secret", "link": [bad()]}), "/link/0/args/0"),
        ("/v1/tasks", json!({"task": "say.secret", "link_error": [bad()]}), "/link_error/0/args/0"),
        (
            "/chain",
            json!({"tasks": [good(), {"chain": [good(), {"task": "words.count", "args": ["/etc/pass*"], "immutable": true}]}]}),
            "/tasks/1/chain/1/args/0",
        ),
        ("/group", json!({"tasks": [good(), bad()]}), "/tasks/1/args/0"),
        ("/chord", json!({"header": [bad()], "body": {"task": "say.secret", "immutable": true}}), "/header/0/args/0"),
        ("/v1/tasks/batch?atomic=true", json!([good(), bad()]), "/1/args/0"),
        ("/v1/tasks", json!({"task": "celery.starmap", "kwargs": {"task": bad(), "it": [[1]]}}), "/task"),
        ("/v1/tasks", json!({"task": "celery.map", "args": [good(), [1]]}), "/task"),
        (
            "/v1/tasks",
            json!({"chain": [{"task": "celery.group", "args": [[{"task": "x", "options": {"link": [bad()]}}]]}]}),
            "/chain/0/task",
        ),
        ("/v1/schedules", json!({"name": "x", "every": 60, "task": "words.count", "args": ["/etc/pass*"]}), "/args/0"),
        ("/v1/schedules", json!({"name": "x", "every": 60, "chain": [good(), bad()]}), "/chain/1/args/0"),
    ];
    for (path, body, pointer) in cases {
        let answer = dev.http.post(path, &body).await;
        assert_eq!(answer.status, 422, "{path} {body}: {}", answer.text());
        let problem = answer.json();
        let errors = problem["errors"].as_array().expect("places");
        assert!(errors.iter().any(|error| error["pointer"] == pointer), "{path} {body} names {pointer}: {problem}");
    }
    let batch = dev.http.post("/v1/tasks/batch", &json!([bad(), good()])).await.expect(202);
    assert_eq!((&batch["accepted"], &batch["rejected"]), (&json!(1), &json!(1)), "{batch}");
}

#[tokio::test]
async fn a_signed_event_and_a_tool_keep_the_rules_of_the_entry() {
    let dev = Commands::start(MORE);
    let send = async |files: &str| {
        let body = json!({"files": files}).to_string();
        let signed = github(files, &body);
        let mut headers: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        headers.push(("content-type", "application/json"));
        dev.http.send(Method::POST, "/hooks/words", &headers, Some(body.into_bytes())).await
    };
    send("/etc/pass*").await.problem(422, "invalid-request");
    send("*.toml").await.expect(202);
    let tool = async |files: &str| {
        let params = json!({"name": "words.count", "arguments": {"files": files}});
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        dev.http.post("/mcp", &message).await.expect(200)["result"].clone()
    };
    let refused = tool("/etc/pass*").await;
    assert_eq!(refused["isError"], true, "{refused}");
    assert!(refused["content"][0]["text"].as_str().is_some_and(|text| text.starts_with("/files")), "{refused}");
    let done = tool("*.toml").await;
    assert_eq!(done["isError"], false, "{done}");
}

#[tokio::test]
async fn what_the_endpoint_takes_is_taken_by_name_with_the_entrys_limits() {
    let dev = Commands::start(MORE);
    let done = dev.run(&good()).await;
    assert_eq!(done["status"], "SUCCESS", "{done}");
    let held = dev.http.post("/v1/tasks", &json!({"task": "mail.send", "args": ["bob"]})).await.expect(202);
    assert_eq!((&held["queue"], &held["phase"]), (&json!("mail"), &json!("held")), "it passes the limit of its key");
}

#[tokio::test]
async fn a_command_is_judged_again_by_its_worker() {
    let dev = Commands::start(MORE);
    let step = json!({"task": "words.count"});
    let done = dev.run(&json!({"chain": [{"task": "say.secret"}, step]})).await;
    assert_eq!(done["error"]["type"], "ArgumentsRefused", "{done}");
    let message = done["error"]["message"].as_str().expect("a text");
    assert!(message.contains("/args/0") && !message.contains("passwd"), "{message}");
}

#[tokio::test]
async fn an_open_entry_takes_any_arguments() {
    let dev = Commands::start(MORE);
    let done = dev.run(&json!({"task": "words.open", "args": ["taskgate.toml"]})).await;
    assert_eq!(done["status"], "SUCCESS", "{done}");
}
