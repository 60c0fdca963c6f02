//! Log lines of tasks, from a worker to a reader: commands of the Rust worker here, Python's in `clients/python/tests/test_worker.py`.

use std::time::Duration;

use serde_json::{Value, json};
use toml::Table;

use crate::harness::environment::{Harness, Options};
use crate::harness::wait::within;
use crate::harness::{Gateway, Http, eventually, ports};

const COMMANDS: &str = r#"
submit.allow = ["*"]
[logs]
max_bytes = "64KiB"

[[tasks]]
name = "shell.any"
command = ["sh", "-c"]
args = ["{program}"]
process.output = "2GiB"
[tasks.body]
type = "object"
required = ["program"]
properties.program = { type = "string" }
"#;

fn dev() -> Gateway {
    let config: Table = COMMANDS.parse().expect("TOML");
    let port = ports::free();
    let listen = format!("127.0.0.1:{port}");
    let mut gateway = Gateway::start(&["dev"], port, Some(&config), &[("TASKGATE_HTTP__LISTEN", &listen)]);
    gateway.wait_until_ready();
    gateway
}

async fn started(gateway: &Gateway, program: &str) -> String {
    let call = json!({"task": "shell.any", "args": [program]});
    let accepted = gateway.http().post_once("/v1/tasks", &call).await.expect(202);
    accepted["task_id"].as_str().expect("an id").to_owned()
}

fn texts(page: &Value) -> Vec<&str> {
    let lines = page["lines"].as_array().expect("lines");
    lines.iter().map(|line| line["text"].as_str().expect("a text")).collect()
}

#[tokio::test]
async fn a_command_s_errors_are_its_log_while_it_runs() {
    let gateway = dev();
    let http = gateway.http();
    let id = started(&gateway, "echo first >&2; while [ ! -e $HOME/go ]; do sleep 0.05; done; echo last >&2").await;
    let path = format!("/v1/tasks/{id}/logs");
    let mut stream = http.events(&path, &[("accept", "text/event-stream")]).await;
    let first = stream.next().await.expect("a line");
    assert_eq!((first.event.as_str(), first.seq(), &first.json()["text"]), ("line", 1, &json!("first")));
    assert_eq!(first.json()["level"], "ERROR");
    let task = http.get(&format!("/v1/tasks/{id}")).await.expect(200);
    assert_eq!(task["ready"], false, "it still runs: {task}");
    http.post(&format!("/v1/tasks/{id}/revoke"), &json!({"terminate": true})).await.expect(200);
    let end = stream.rest().await.pop().expect("an end");
    assert_eq!((end.event.as_str(), &end.json()["lines"]), ("end", &json!(1)), "{end:?}");
    let over = http.get_with(&path, &[("accept", "text/event-stream"), ("last-event-id", "1")]).await;
    assert_eq!(over.status, 204);
    assert_eq!(http.get(&format!("{path}?limit=0")).await.status, 400);
    assert_eq!(http.get("/v1/tasks/00000000-0000-7000-8000-000000000000/logs").await.status, 404);
}

#[tokio::test]
async fn output_without_end_stops_at_the_bound_with_a_line_that_says_so() {
    let gateway = dev();
    let http = gateway.http();
    let id = started(
        &gateway,
        "i=0; while [ $i -lt 30 ]; do i=$((i+1)); head -c 4000 /dev/zero | tr '\\0' x >&2; echo >&2; sleep 0.02; done",
    )
    .await;
    let path = format!("/v1/tasks/{id}/logs");
    let page = eventually("the log is closed", async || {
        let page = http.get(&path).await.expect(200);
        texts(&page).last().is_some_and(|text| text.contains("logs.max_bytes")).then_some(page)
    })
    .await;
    let bytes: usize = texts(&page).iter().map(|text| text.len()).sum();
    assert!((60_000..66_000).contains(&bytes), "{bytes}");
    assert_eq!(page["lines"].as_array().and_then(|lines| lines.last()).expect("a note")["level"], "NOTE");
    let text = http.get_with(&path, &[("accept", "text/plain")]).await;
    assert_eq!(text.status, 200);
    assert!(text.text().trim_end().ends_with("what follows is not kept"), "{}", text.text().len());
    let two = http.get(&format!("{path}?limit=2")).await.expect(200);
    assert_eq!((texts(&two).len(), &two["next"]), (2, &json!(2)));
}

/// Every byte is written: lines up to the bound and beyond it, then one line without an end. The bound holds by what is kept, and
/// neither the worker nor the gateway gathers the rest.
#[tokio::test]
async fn a_gigabyte_of_output_keeps_the_bound_and_a_small_memory() {
    let gateway = dev();
    let http = gateway.http();
    let line = "x".repeat(4_000);
    let program = format!("yes {line} | head -n 40 >&2; head -c 1073741824 /dev/zero | tr '\\0' x >&2");
    let id = started(&gateway, &program).await;
    let path = format!("/v1/tasks/{id}");
    succeeded(&http, &path).await;
    let page = eventually("the log is closed", async || {
        let page = http.get(&format!("{path}/logs")).await.expect(200);
        texts(&page).last().is_some_and(|text| text.contains("logs.max_bytes")).then_some(page)
    })
    .await;
    let bytes: usize = texts(&page).iter().map(|text| text.len()).sum();
    assert!((60_000..66_000).contains(&bytes), "{bytes}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).expect("it runs");
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    assert!(peak.is_some_and(|kib| kib < 400 << 10), "gateway and worker had {peak:?} KiB");
}

/// Waits until the task has written its gigabyte.
async fn succeeded(http: &Http, path: &str) {
    let task = within(Duration::from_secs(120), "all of it is written", async || {
        let task = http.get(path).await.expect(200);
        (task["ready"] == true).then_some(task)
    })
    .await;
    assert_eq!(task["phase"], "succeeded", "{task}");
}

/// Half a thousand million lines, which the worker neither sends nor gathers: the log ends, and the task does not wait for it.
#[tokio::test]
async fn a_gigabyte_of_short_lines_ends_with_a_line_that_says_so() {
    let gateway = dev();
    let http = gateway.http();
    let id = started(&gateway, "yes | head -c 1073741824 >&2").await;
    let path = format!("/v1/tasks/{id}");
    succeeded(&http, &path).await;
    let text = eventually("the log is closed", async || {
        let text = http.get_with(&format!("{path}/logs"), &[("accept", "text/plain")]).await.text();
        text.trim_end().ends_with("what follows is not kept").then_some(text)
    })
    .await;
    assert!(text.len() < 400_000, "{} bytes are shown", text.len());
    assert!(text.contains("the log ends here"), "{text}");
    assert!(!text.contains("lost on the way"), "the worker says what it dropped");
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).expect("it runs");
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    assert!(peak.is_some_and(|kib| kib < 400 << 10), "gateway and worker had {peak:?} KiB");
}

/// PostgreSQL: another replica's reader is told as well.
#[tokio::test]
async fn a_reader_of_any_replica_sees_lines_as_they_come() {
    let env = Harness::start(&Options { without_worker: true, ..Options::default() });
    let replica = env.replica("");
    let id = env.submit("demo.add", json!([1, 2])).await;
    let path = format!("/v1/tasks/{id}/logs");
    let mut here = env.http.events(&path, &[("accept", "text/event-stream")]).await;
    let mut there = replica.http().events(&path, &[("accept", "text/event-stream")]).await;
    for (seq, text) in [(0, "one"), (1, "two")] {
        say(&env, &id, seq, text).await;
        for stream in [&mut here, &mut there] {
            assert_eq!(stream.next().await.expect("a line").json()["text"], text);
        }
    }
    let page = env.http.get(&format!("{path}?after=1")).await.expect(200);
    assert_eq!(texts(&page), ["two"]);
}

/// As the Python package sends it; again until both replicas have it, because one that has just started may not listen yet.
async fn say(env: &Harness, id: &str, seq: i64, text: &str) {
    let event = json!({
        "type": "task-log", "hostname": "w@h", "timestamp": 1_763_662_650.5, "utcoffset": 0, "pid": 1, "clock": 1, "uuid": id,
        "retries": 0, "seq": seq, "dropped": 0, "lines": [{"at": 1_763_662_650.25, "level": "INFO", "text": text}],
    });
    let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, event.to_string());
    let message = json!({
        "body": body, "content-encoding": "utf-8", "content-type": "application/json", "headers": {"hostname": "w@h"},
        "properties": {"delivery_mode": 1, "delivery_info": {"exchange": "celeryev", "routing_key": "task.log"}, "priority": 0,
            "body_encoding": "base64", "delivery_tag": "x"},
    });
    let text = message.to_string();
    eventually("both replicas hear it", async || {
        let heard: i64 = env.redis.command(0, &["PUBLISH", "/0.celeryev/task.log", &text]);
        (heard >= 2).then_some(())
    })
    .await;
}
