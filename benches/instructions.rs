//! Counts the instructions of the hot paths with valgrind's callgrind. The count is the same on a busy machine as on a quiet one, so a change
//! of some percent comes from the code. `cargo bench --bench instructions`; needs `valgrind`.
//!
//! Each path runs a number of times in one process, and twice as often in another; the difference gives the cost of a run. Submit, result
//! and stream go through the whole gateway, from the HTTP router to the ledger (SQLite, in this process).

use std::process::Command;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use celery::event::{self, Event, Kind, TaskNews};
use celery::result::ResultMeta;
use celery::task::TaskId;
use http_body_util::BodyExt;
use jiff::Timestamp;
use ledger::sqlite::{SqliteLedger, Synchronous};
use runtime::lifecycle::Tasks;
use taskgate::app::App;
use taskgate::config::{Config, Role};
use taskgate::edge::{Edge, router};
use tower::ServiceExt;

/// The paths, and how often each runs.
const PATHS: [(&str, u32); 5] =
    [("submit", 400), ("result", 2_000), ("stream", 1_000), ("event decode", 2_000), ("record decode", 5_000)];
const CONFIG: &str = "auth = \"none\"\n[submit]\nallow = [\"demo.*\"]\n[http]\naccess_log = false\n\
    [broker]\nurl = \"redis://127.0.0.1:1/0\"\n[backend]\nurl = \"redis://127.0.0.1:1/1\"\n";
const RECORD: &str = r#"{"status": "SUCCESS", "result": {"total_items": 42, "saved_items": 7, "duration": 1.25}, "traceback": null, "children": [], "date_done": "2026-01-01T00:00:00.000000+00:00", "task_id": "019ab000-0000-7000-8000-000000000000"}"#;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [path, count] = arguments.as_slice() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        return runtime.block_on(run(path, count.parse().expect("a count")));
    }
    println!("instructions a run, whole process:");
    for (path, count) in PATHS {
        let (once, twice) = (instructions(path, count), instructions(path, count * 2));
        println!("  {path:<14} {:>9}", twice.saturating_sub(once) / u64::from(count));
    }
}

/// The instructions that callgrind counts while this program runs `path`.
fn instructions(path: &str, count: u32) -> u64 {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(std::env::current_exe().expect("this program has a path")).args([path, &count.to_string()]);
    let done = command.output().expect("valgrind is installed");
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{told}");
    let collected = told.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.unwrap_or_else(|| panic!("valgrind said {told}"))
}

async fn run(path: &str, count: u32) {
    match path {
        "event decode" => decode_events(count),
        "record decode" => (0..count).for_each(|_| drop(ResultMeta::decode(RECORD.as_bytes()).expect("a record"))),
        _ => through_the_gateway(path, count).await,
    }
}

/// Decodes a message with the three events of one task.
fn decode_events(count: u32) {
    let id = TaskId::parse("019ab000-0000-7000-8000-000000000000").expect("an id");
    let succeeded = TaskNews::Succeeded { result: Some("42".into()), runtime: Some(0.25) };
    let events: Vec<Event> = [TaskNews::Received(Box::default()), TaskNews::Started, succeeded]
        .into_iter()
        .map(|news| Event {
            hostname: "celery@worker".into(),
            pid: Some(7),
            clock: 1,
            utcoffset: 0.0,
            timestamp: Timestamp::UNIX_EPOCH,
            kind: Kind::Task { uuid: id.clone(), news },
        })
        .collect();
    let payload = event::encode_tasks(&events, "celeryev", "tag");
    for _ in 0..count {
        assert_eq!(Event::decode(&payload).expect("events").len(), 3);
    }
}

async fn through_the_gateway(path: &str, count: u32) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = Config::parse(Role::Dev, CONFIG).expect("a configuration");
    let tasks = Tasks::default();
    let ledger = SqliteLedger::open(folder.path().join("ledger.db"), Synchronous::Normal);
    let app = App::build(&config, Arc::new(ledger), tasks.clone()).expect("an application");
    let router = router(Edge::new(&config, app.behind.clone(), tasks, None));
    while send(&router, "GET", "/readyz", "").await.0 != StatusCode::OK {
        tokio::task::yield_now().await;
    }
    let id = submit(&router).await;
    match path {
        "submit" => {
            for _ in 0..count {
                submit(&router).await;
            }
        }
        "result" => {
            for _ in 0..count {
                assert_eq!(send(&router, "GET", &format!("/result/{id}"), "").await.0, StatusCode::ACCEPTED);
            }
        }
        "stream" => {
            let revoked = send(&router, "POST", &format!("/v1/tasks/{id}/revoke"), "{}").await;
            assert_eq!(revoked.0, StatusCode::OK, "{}", revoked.1);
            for _ in 0..count {
                let (status, text) = send(&router, "GET", &format!("/v1/tasks/{id}/events"), "").await;
                assert!(status == StatusCode::OK && text.contains("event: end"), "{text}");
            }
        }
        other => panic!("{other} is not one of {PATHS:?}"),
    }
}

async fn submit(router: &Router) -> String {
    let (status, text) =
        send(router, "POST", "/v1/tasks", r#"{"task": "demo.add", "args": [2, 3], "countdown": 3600}"#).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{text}");
    let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    answer["task_id"].as_str().expect("an id").to_owned()
}

async fn send(router: &Router, method: &str, path: &str, body: &'static str) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:8000");
    let request = request.header("content-type", "application/json").body(Body::from(body)).expect("a request");
    let response = router.clone().oneshot(request).await.expect("it cannot fail");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}
