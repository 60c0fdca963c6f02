//! `/mcp` with the official clients: a call keeps its promises even if the client or the gateway dies.

use std::process::Stdio;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::edge::create;
use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::postgres::cluster;
use crate::harness::{Gateway, Http, Redis, RedisOptions, eventually};

const CONFIG: &str = r#"
[[tasks]]
name = "demo.progress_until"
summary = "Crawl until somebody says that it is enough"
endpoint = "POST /crawl"
args = ["{path}", "{value}"]
[tasks.body]
type = "object"
required = ["path"]
additionalProperties = false
properties.path = { type = "string" }
properties.value = { type = "integer", default = 7 }

[[tasks]]
name = "demo.add"
endpoint = "POST /sum"
args = ["{x}", "{y}"]
[tasks.body]
type = "object"
required = ["x", "y"]
additionalProperties = false
properties.x = { type = "integer" }
properties.y = { type = "integer" }

[[tasks]]
name = "demo.identity"
endpoint = "POST /nobody"
args = ["{x}"]
queue = "nobody"
[tasks.body]
type = "object"
required = ["x"]
properties.x = { type = "integer" }

[[tasks]]
name = "demo.fail"
endpoint = "POST /failure"

[[tasks]]
name = "ask"
endpoint = "POST /ask"
canvas = { dag = { nodes = { sum = { task = "demo.add", args = ["{x}", 1] }, ok = { task = "taskgate.wait", kwargs = { name = "{name}" }, queue = "taskgate.waits", after = ["sum"] }, end = { task = "demo.add", args = ["{{sum}}", "{{ok}}"], after = ["sum", "ok"] } } } }
[tasks.body]
type = "object"
required = ["x", "name"]
properties.x = { type = "integer" }
properties.name = { type = "string" }
"#;

/// An official client.
#[derive(Clone, Copy, Debug)]
enum Official {
    Python,
    Python1,
    Node,
}

impl Official {
    /// Runs one command over a connection of its own.
    async fn ask(self, http: &Http, token: &str, command: &str, given: Value) -> Value {
        let root = env!("CARGO_MANIFEST_DIR");
        let (program, script) = match self {
            Self::Python => (format!("{root}/.venv/mcp/bin/python"), "drive.py"),
            Self::Python1 => (format!("{root}/.venv/mcp-1/bin/python"), "drive.py"),
            Self::Node => {
                let own = format!("{root}/.venv/node/bin/node");
                (if std::path::Path::new(&own).exists() { own } else { "node".to_owned() }, "drive.mjs")
            }
        };
        let output = Command::new(program)
            .arg(format!("{root}/tests/mcp/{script}"))
            .args([&format!("{}/mcp", http.base), token, command, &given.to_string()])
            .env("MCP_NODE", format!("{root}/.venv/mcp-node"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let done = tokio::time::timeout(Duration::from_secs(300), output)
            .await
            .unwrap_or_else(|_| panic!("{self:?} {command} did not end"))
            .expect("tests/setup.sh installed the client");
        let text = String::from_utf8_lossy(&done.stdout);
        serde_json::from_str(text.trim())
            .unwrap_or_else(|_| panic!("{self:?} {command}: {text}{}", String::from_utf8_lossy(&done.stderr)))
    }
}

fn environment() -> Lent<Box<Harness>> {
    Harness::start(&Options { config: CONFIG.into(), ..Options::default() })
}

fn flag() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("taskgate-mcp-{}", uuid::Uuid::now_v7()))
}

fn id_of(started: &Value) -> String {
    started["task"]["taskId"].as_str().unwrap_or_else(|| panic!("a task in {started}")).to_owned()
}

async fn calls_and_reads(client: Official) {
    let env = environment();
    let listed = client.ask(&env.http, "-", "list", json!({})).await;
    let tools = listed["tools"].to_string();
    for name in [
        "demo.progress_until",
        "demo.add",
        "ask",
        "taskgate_explain_task",
        "taskgate_revoke_task",
        "taskgate_resume_dag",
    ] {
        assert!(tools.contains(&format!("\"{name}\"")), "{name} in {listed}");
    }
    let called = client.ask(&env.http, "-", "call", json!({"tool": "demo.add", "arguments": {"x": 40, "y": 2}})).await;
    assert_eq!(called["result"]["content"][0]["text"], "42", "{called}");
    let wrong =
        client.ask(&env.http, "-", "call", json!({"tool": "demo.add", "arguments": {"x": "many", "y": 2}})).await;
    assert!(wrong["result"]["isError"] == true && wrong.to_string().contains("/x"), "{wrong}");
    let id = called["result"]["structuredContent"]["task_id"].as_str().expect("an id").to_owned();
    let read = client.ask(&env.http, "-", "read", json!({"uri": format!("taskgate://tasks/{id}/log")})).await;
    let log: Value = serde_json::from_str(read["text"].as_str().expect("a text")).expect("JSON");
    assert!(log["events"].is_array() && log["lines"].is_array(), "{log}");
    let explained = client
        .ask(&env.http, "-", "call", json!({"tool": "taskgate_explain_task", "arguments": {"task_id": id}}))
        .await;
    assert!(explained["result"]["structuredContent"]["sentence"].is_string(), "{explained}");
    let path = flag();
    let call = client.ask(&env.http, "-", "call", json!({"tool": "demo.progress_until", "arguments": {"path": path}}));
    let enough = async {
        eventually("it tells its progress", async || {
            let listed = env.http.get("/v1/tasks?task=demo.progress_until&status=PROGRESS").await.expect(200);
            (!listed["tasks"].as_array().expect("tasks").is_empty()).then_some(())
        })
        .await;
        std::fs::write(&path, "").expect("a file");
    };
    let (called, ()) = tokio::join!(call, enough);
    assert_eq!(called["result"]["content"][0]["text"], "7", "{called}");
    let told = called["progress"].as_array().unwrap_or_else(|| panic!("no progress in {called}"));
    assert!(told.iter().any(|one| one[1] == 6_000 || one[1] == 6_000.0), "{called}");
    let grows = told.windows(2).all(|pair| pair[0][0].as_f64() < pair[1][0].as_f64());
    assert!(grows, "{called}");
    std::fs::remove_file(&path).expect("it was there");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_python_client_calls_reads_and_hears_of_progress() {
    calls_and_reads(Official::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_python_client_calls_reads_and_hears_of_progress() {
    calls_and_reads(Official::Python1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_client_calls_reads_and_hears_of_progress() {
    calls_and_reads(Official::Node).await;
}

async fn another_replica_completes(client: Official) {
    let mut env = environment();
    let other = env.replica(CONFIG);
    let path = flag();
    let started = client
        .ask(&env.http, "-", "start", json!({"tool": "demo.progress_until", "arguments": {"path": path, "value": 42}}))
        .await;
    let id = id_of(&started);
    env.in_phase(&id, "running").await;
    env.gateway.kill();
    let going = client.ask(&other.http(), "-", "get", json!({"task": id})).await;
    assert_eq!(going["status"], "working", "{going}");
    std::fs::write(&path, "").expect("a file");
    let ended = client.ask(&other.http(), "-", "end", json!({"task": id})).await;
    assert_eq!(ended["task"]["status"], "completed", "{ended}");
    assert_eq!(ended["result"]["content"][0]["text"], "42", "{ended}");
    std::fs::remove_file(&path).expect("it was there");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_completes_a_task_of_the_newest_python_client() {
    another_replica_completes(Official::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_completes_a_task_of_the_older_python_client() {
    another_replica_completes(Official::Python1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_completes_a_task_of_the_node_client() {
    another_replica_completes(Official::Node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_task_that_was_queued_never_runs() {
    let mut env = environment();
    let mut cancelled = Vec::new();
    for client in [Official::Python, Official::Python1, Official::Node] {
        let started =
            client.ask(&env.http, "-", "start", json!({"tool": "demo.identity", "arguments": {"x": 1}})).await;
        let id = id_of(&started);
        env.in_phase(&id, "queued").await;
        let answer = client.ask(&env.http, "-", "cancel", json!({"task": id})).await;
        assert_eq!(answer["status"], "cancelled", "{answer}");
        assert!(answer["statusMessage"].as_str().expect("a message").starts_with("prevented"), "{answer}");
        cancelled.push(id);
    }
    let queues =
        crate::harness::CeleryOptions { queues: "nobody".into(), hostname: "w2@test".into(), ..Default::default() };
    env.start_worker(queues);
    let after = env.http.post("/nobody", &json!({"x": 2})).await.expect(202);
    env.finished(after["task_id"].as_str().expect("an id")).await;
    let log = env.celery.as_ref().expect("a worker").log();
    for id in &cancelled {
        assert!(!log.contains(id.as_str()), "{id} ran: {log}");
        env.in_phase(id, "revoked").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_names_and_the_rate_of_a_token_hold() {
    let redis = Redis::start(RedisOptions::default());
    let database = cluster().migrated_database();
    let config = format!("auth = 'token'\nsubmit.allow = ['*']\n{CONFIG}");
    let token = |options: &[&str]| create(&database, options);
    let reader = token(&["--name", "reader", "--scope", "read"]);
    let adder = token(&["--name", "adder", "--scope", "submit,read", "--tasks", "demo.add"]);
    let slow = token(&["--name", "slow", "--scope", "submit,read", "--rate-limit", "2/h"]);
    let gateway = Gateway::serve(&database, &redis.url(0), &redis.url(1), &config);
    let http = gateway.http();
    for client in [Official::Python, Official::Python1, Official::Node] {
        let listed = client.ask(&http, &reader, "list", json!({})).await["tools"].to_string();
        assert!(
            listed.contains("taskgate_queues") && !listed.contains("demo.add") && !listed.contains("revoke"),
            "{listed}"
        );
        let listed = client.ask(&http, &adder, "list", json!({})).await["tools"].to_string();
        assert!(
            listed.contains("demo.add") && !listed.contains("demo.identity") && !listed.contains("pause"),
            "{listed}"
        );
        let refused = client
            .ask(&http, &reader, "call", json!({"tool": "taskgate_pause_queue", "arguments": {"queue": "q"}}))
            .await;
        assert!(refused.to_string().contains("may not use it"), "{refused}");
        let refused = client.ask(&http, &adder, "start", json!({"tool": "demo.identity", "arguments": {"x": 1}})).await;
        assert!(!refused.to_string().contains("\"working\""), "{refused}");
        let none = client.ask(&http, "tg_nobody", "list", json!({})).await;
        assert!(none["tools"].is_null() && none["error"].is_string(), "{none}");
    }
    let listed = http.get_with("/v1/tasks?task=demo.identity", &[("authorization", &format!("Bearer {reader}"))]).await;
    assert_eq!(listed.expect(200)["tasks"], json!([]), "nothing of it was queued");
    let start = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "demo.add", "arguments": {"x": 1, "y": 1}, "task": {}}});
    let mut refused = Value::Null;
    for _ in 0..4 {
        let bearer = format!("Bearer {slow}");
        refused = http.post_with("/mcp", &[("authorization", bearer.as_str())], &start).await.expect(200);
    }
    assert!(refused.to_string().contains("rate"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_loses_nothing() {
    let env = environment();
    let path = flag();
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "demo.progress_until",
        "arguments": {"path": path, "value": 5}, "_meta": {"progressToken": "p"}}});
    let mut response = crate::harness::http::client()
        .build()
        .expect("a client")
        .post(format!("{}/mcp", env.http.base))
        .header("accept", "application/json, text/event-stream")
        .json(&call)
        .send()
        .await
        .expect("an answer");
    let first = response.chunk().await.expect("a chunk").expect("some bytes");
    assert!(String::from_utf8_lossy(&first).contains("notifications/progress"), "{first:?}");
    drop(response);
    let listed = env.http.get("/v1/tasks?task=demo.progress_until").await.expect(200);
    let id = listed["tasks"][0]["task_id"].as_str().expect("an id").to_owned();
    std::fs::write(&path, "").expect("a file");
    let result = env.finished(&id).await;
    assert_eq!(result["result"], 5, "{result}");
    std::fs::remove_file(&path).expect("it was there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canvas_that_waits_for_an_answer_requires_input() {
    let env = environment();
    for client in [Official::Python, Official::Python1, Official::Node] {
        let name = format!("mcp-{client:?}");
        let started =
            client.ask(&env.http, "-", "start", json!({"tool": "ask", "arguments": {"x": 1, "name": name}})).await;
        let id = id_of(&started);
        let wait = eventually("it waits", async || {
            let listed = env.http.get("/v1/waits").await.expect(200);
            listed["waits"].as_array().expect("waits").iter().find(|wait| wait["name"] == name.as_str()).cloned()
        })
        .await;
        let task = client.ask(&env.http, "-", "get", json!({"task": id})).await;
        assert_eq!(task["status"], "input_required", "{task}");
        let answer = json!({"tool": "taskgate_complete_wait", "arguments": {"task_id": wait["task_id"], "value": 40}});
        client.ask(&env.http, "-", "call", answer).await;
        let ended = client.ask(&env.http, "-", "end", json!({"task": id})).await;
        assert_eq!(ended["result"]["content"][0]["text"], "42", "{ended}");
    }
}

/// A message of 2026-07-28 from a client that declares these capabilities.
async fn asked(http: &Http, method: &str, name: &str, mut params: Value, capabilities: Value) -> Value {
    params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": capabilities});
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", method), ("mcp-name", name)];
    http.post_with("/mcp", &headers, &json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}))
        .await
        .json()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tasks_extension_of_2026_07_28_starts_asks_and_ends() {
    let env = environment();
    let client = Official::Python;
    let listed = client.ask(&env.http, "-", "list", json!({})).await;
    assert_eq!(listed["version"], "2026-07-28", "{listed}");
    let started =
        client.ask(&env.http, "-", "start", json!({"tool": "ask", "arguments": {"x": 1, "name": "extension"}})).await;
    let (id, task) = (id_of(&started), &started["task"]);
    assert_eq!((&task["resultType"], &task["status"]), (&json!("task"), &json!("working")), "{started}");
    assert!(task["ttlMs"].is_null() && task["pollIntervalMs"].is_u64() && task["createdAt"].is_string(), "{started}");
    let asks = eventually("it asks", async || {
        let task = client.ask(&env.http, "-", "get", json!({"task": id})).await;
        (task["status"] == "input_required").then_some(task)
    })
    .await;
    let requests = asks["inputRequests"].as_object().unwrap_or_else(|| panic!("no requests in {asks}"));
    let (step, request) = requests.iter().next().expect("a request");
    assert_eq!(request["method"], "elicitation/create", "{asks}");
    assert!(request["params"]["message"].as_str().expect("a message").starts_with("extension waits"), "{asks}");
    let responses = json!({step: {"action": "accept", "content": {"value": "40"}}, "unknown": {"action": "cancel"}});
    let update = json!({"task": id, "responses": responses});
    for _ in 0..2 {
        let acknowledged = client.ask(&env.http, "-", "update", update.clone()).await;
        assert_eq!(acknowledged["resultType"], "complete", "also the second time: {acknowledged}");
    }
    let ended = client.ask(&env.http, "-", "end", json!({"task": id})).await;
    assert_eq!((&ended["task"]["resultType"], &ended["task"]["status"]), (&json!("complete"), &json!("completed")));
    assert_eq!(ended["result"]["content"][0]["text"], "42", "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tasks_extension_tells_failures_of_tasks_from_errors_of_the_protocol() {
    let env = environment();
    let started = Official::Python.ask(&env.http, "-", "start", json!({"tool": "demo.fail", "arguments": {}})).await;
    let id = id_of(&started);
    let ended = Official::Python.ask(&env.http, "-", "end", json!({"task": id})).await;
    assert_eq!((&ended["task"]["status"], &ended["result"]["isError"]), (&json!("completed"), &json!(true)), "{ended}");
    let params = json!({"taskId": id});
    let declared = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    for method in ["tasks/get", "tasks/cancel"] {
        let refused = asked(&env.http, method, &id, params.clone(), json!({})).await;
        assert_eq!(refused["error"]["code"], -32_021, "it did not declare the extension: {refused}");
    }
    let unknown = json!({"taskId": "0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c42"});
    let refused =
        asked(&env.http, "tasks/get", unknown["taskId"].as_str().expect("an id"), unknown.clone(), declared).await;
    assert_eq!(refused["error"]["code"], -32_602, "{refused}");
    let call = json!({"name": "demo.identity", "arguments": {"x": 1}});
    let headers = [("prefer", "wait=0")];
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call});
    let plain = env.http.post_with("/mcp", &headers, &call).await.expect(200);
    assert!(plain["result"]["structuredContent"]["task_id"].is_string(), "a pointer, and no task: {plain}");
    assert!(plain["result"]["resultType"].is_null(), "{plain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_of_the_protocol_is_refused_in_its_own_form() {
    let env = Harness::shared();
    let post = async |body: &str, headers: &[(&str, &str)]| {
        let headers: Vec<_> = headers.iter().copied().chain([("content-type", "application/json")]).collect();
        env.http.send(Method::POST, "/mcp", &headers, Some(body.as_bytes().to_vec())).await
    };
    for (body, code) in [
        ("[]", -32_600),
        ("{\"id\": 1}", -32_600),
        (r#"{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": 1}}"#, -32_602),
        (r#"{"jsonrpc": "2.0", "id": 1, "method": "what/ever", "params": {}}"#, -32_601),
    ] {
        let refused = post(body, &[]).await.json();
        assert_eq!(refused["error"]["code"], code, "{body}: {refused}");
    }
    let list = r#"{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}"#;
    let refused = post(list, &[("mcp-protocol-version", "2031-01-01")]).await.json();
    assert_eq!((&refused["error"]["code"], &refused["id"]), (&json!(-32_022), &json!(1)), "{refused}");
    assert!(refused["error"]["data"]["supported"].to_string().contains("2026-07-28"), "{refused}");
    let listed = post(list, &[("accept", "application/json"), ("mcp-protocol-version", "2025-11-25")]).await.json();
    assert!(listed["result"]["tools"][0]["execution"]["taskSupport"].is_string(), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_out_tokens_is_said_where_people_log_in() {
    let redis = Redis::start(RedisOptions::default());
    let database = cluster().migrated_database();
    let config = "auth = 'oidc'\n[oidc]\nissuer = 'https://id.example.com'\nclient_id = 'taskgate'\n\
        redirect_url = 'https://tasks.example.com/gate/v1/session/callback'\nroles = {'*' = ['read']}\n";
    let gateway = Gateway::serve(&database, &redis.url(0), &redis.url(1), config);
    let refused =
        gateway.http().send(Method::POST, "/mcp", &[("content-type", "application/json")], Some(b"{}".to_vec())).await;
    assert_eq!(refused.status, 401);
    let challenge = refused.header("www-authenticate").expect("a challenge");
    let place = "resource_metadata=\"https://tasks.example.com/gate/.well-known/oauth-protected-resource/mcp\"";
    assert!(challenge.contains(place), "{challenge}");
    for path in ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"] {
        let metadata = gateway.http().get(path).await.expect(200);
        assert_eq!(metadata["resource"], "https://tasks.example.com/gate/mcp", "{metadata}");
        assert_eq!(metadata["authorization_servers"], json!(["https://id.example.com"]));
    }
    let plain = Harness::shared();
    plain.http.get("/.well-known/oauth-protected-resource").await.problem(404, "route-not-found");
}
