//! Executables as tasks, from the catalog over HTTP to the result: `examples/commands`, and what may go wrong.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use toml::Table;

use crate::harness::celery::root;
use crate::harness::{Gateway, Http, eventually, ports, wait};

const MORE: &str = r#"
[[tasks]]
name = "shell.any"
endpoint = "POST /any"
command = ["sh", "-c"]
args = ["{program}"]
time_limit = 20
process.directory = "."

[tasks.body]
type = "object"
required = ["program"]
properties.program = { type = "string" }

[[tasks]]
name = "tasks.add"
child = true
"#;

/// `taskgate dev` with the example's configuration, and [`MORE`].
fn start() -> Gateway {
    let example = root().join("examples/commands");
    let text = std::fs::read_to_string(example.join("taskgate.toml")).expect("the example is there");
    let config: Table = (text + MORE).parse().expect("TOML");
    let port = ports::free();
    let listen = format!("127.0.0.1:{port}");
    let mut gateway = Gateway::start(&["dev"], port, Some(&config), &[("TASKGATE_HTTP__LISTEN", &listen)]);
    let script = gateway.directory().join("count-words.sh");
    std::fs::copy(example.join("count-words.sh"), &script).expect("the folder is ours");
    let mode = std::fs::metadata(&script).expect("it was copied").permissions().mode();
    assert_eq!(mode & 0o111, 0o111, "the example can be executed");
    gateway.wait_until_ready();
    gateway
}

async fn run(http: &Http, program: &str) -> serde_json::Value {
    http.post_with("/any", &[("prefer", "wait=60")], &json!({"program": program})).await.expect(200)
}

#[tokio::test]
async fn a_command_of_the_catalog_runs_from_post_to_result() {
    let gateway = start();
    let http = gateway.http();
    let accepted = http.post("/count", &json!({"files": "*.*"})).await.expect(202);
    let id = accepted["task_id"].as_str().expect("an id");
    let events = http.events(&format!("/v1/tasks/{id}/events"), &[("last-event-id", "0")]).await.rest().await;
    let progress: Vec<_> =
        events.iter().filter(|event| event.event == "progress").map(|event| event.json()["meta"].clone()).collect();
    assert_eq!(progress[0]["progress"], 1, "{progress:?}");
    assert_eq!(progress.len(), 2, "taskgate.toml and count-words.sh: {progress:?}");
    let done = events.last().expect("an end").json();
    assert_eq!((&done["status"], &done["result"]["files"]), (&json!("SUCCESS"), &json!(2)), "{done}");
    assert!(done["result"]["words"].as_u64().is_some_and(|words| words > 100), "{done}");

    let echoed = run(&http, "cat; echo 'no JSON'").await;
    assert_eq!(echoed["result"]["args"], json!(["cat; echo 'no JSON'"]), "the call is on its input: {echoed}");
    assert_eq!((&echoed["result"]["task"], &echoed["result"]["id"]), (&json!("shell.any"), &echoed["task_id"]));
    assert!(run(&http, "true").await["result"].is_null());
    let failed = run(&http, "for n in $(seq 9999); do echo line $n >&2; done; echo '{\"ignored\": 1}'; exit 7").await;
    assert_eq!((&failed["status"], &failed["error"]["type"]), (&json!("FAILURE"), &json!("CommandFailed")), "{failed}");
    let message = failed["error"]["message"].as_str().expect("a text");
    assert!(message.contains("exit status: 7") && message.ends_with("line 9999"), "{message}");
    assert!(message.len() < 5_000, "only the tail: {}", message.len());
    let missing = run(&http, "exec ./nobody").await;
    assert_eq!(missing["error"]["type"], "CommandFailed", "{missing}");
    let sum = json!({"task": "tasks.add", "args": [2, 3]});
    let sum = http.post_with("/v1/tasks", &[("prefer", "wait=60")], &sum).await.expect(200);
    assert_eq!(sum["result"], 5, "{sum}");
    let replies = http.get("/v1/inspect/stats").await.expect(200);
    let stats = replies["replies"].as_object().and_then(|all| all.values().next()).expect("one worker").clone();
    let processes = stats["pool"]["processes"].as_array().expect("pids");
    assert!(!processes.is_empty() && !processes.contains(&stats["pid"]), "tasks.add runs in a child: {stats}");
    let unknown = json!({"task": "nobody.has.this"});
    let unknown = http.post_with("/v1/tasks", &[("prefer", "wait=60")], &unknown).await.expect(200);
    assert_eq!(unknown["error"]["type"], "NotRegistered", "the ledger says so: {unknown}");
    let died = run(&http, "kill -SEGV $$").await;
    assert_eq!(died["error"]["type"], "WorkerLostError", "{died}");
    assert!(died["error"]["message"].as_str().is_some_and(|text| text.contains("signal 11 (SIGSEGV)")), "{died}");
}

#[tokio::test]
async fn limits_and_revokes_end_all_that_a_command_started() {
    let gateway = start();
    let http = gateway.http();
    // The grandchild does not survive: it is in the command's process group, and ignores SIGTERM.
    let program = |file: &str| format!("trap '' TERM; (trap '' TERM; sleep 300) & echo $! > {file}; sleep 300");
    let limited = json!({"task": "shell.any", "args": [program("limited")], "time_limit": 1});
    let limited = http.post_with("/v1/tasks", &[("prefer", "wait=60")], &limited).await.expect(200);
    assert_eq!(limited["error"]["type"], "TimeLimitExceeded", "{limited}");
    gone(&gateway, "limited");
    let soft = json!({"task": "shell.any", "args": ["sleep 300"], "soft_time_limit": 1, "time_limit": 3});
    let soft = http.post_with("/v1/tasks", &[("prefer", "wait=60")], &soft).await.expect(200);
    assert_eq!(soft["error"]["type"], "SoftTimeLimitExceeded", "{soft}");
    let revoked = http.post("/any", &json!({"program": program("revoked")})).await.expect(202);
    let id = revoked["task_id"].as_str().expect("an id");
    let file = gateway.directory().join("revoked");
    eventually("the command runs", async || file.exists().then_some(())).await;
    let body = json!({"terminate": true, "signal": "SIGKILL"});
    http.post(&format!("/v1/tasks/{id}/revoke"), &body).await.expect(200);
    eventually("it is revoked", async || {
        let answer = http.get(&format!("/result/{id}")).await;
        (answer.status == 200).then(|| assert_eq!(answer.json()["status"], "REVOKED"))
    })
    .await;
    gone(&gateway, "revoked");
}

fn gone(gateway: &Gateway, file: &str) {
    let pid = wait::blocking(wait::DEADLINE, "the grandchild has said who it is", || {
        let text = std::fs::read_to_string(gateway.directory().join(file)).ok()?;
        text.trim().parse::<u32>().ok()
    });
    wait::blocking(wait::DEADLINE, "the grandchild is gone", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        (status.is_empty() || status.contains("State:\tZ")).then_some(())
    });
}
