//! Pools of greenlets as people run them, hundreds in one process, and the newest Python that is there.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Options};
use crate::harness::wait::within;
use crate::harness::{CeleryOptions, Http, Version, eventually};

/// Time for a process to begin or end this many tasks.
const PATIENCE: Duration = Duration::from_secs(240);
/// Greenlets of the worker, and tasks at once.
const GREENLETS: usize = 500;

fn worker(pool: &'static str) -> CeleryOptions {
    CeleryOptions { pool, concurrency: GREENLETS as u32, ..CeleryOptions::default() }.with_packages()
}

/// How many tasks of the label are in this phase.
async fn count(http: &Http, phase: &str) -> usize {
    let page = http.get(&format!("/v1/tasks?label=pool:all&phase={phase}&limit=500")).await.expect(200);
    page["tasks"].as_array().map_or(0, Vec::len)
}

/// All tasks run at the same time, which no smaller pool can do, and all end well.
async fn runs_hundreds_at_once(pool: &'static str) {
    let env = Harness::start(&Options { celery: worker(pool), ..Options::default() });
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("go");
    let task = |index| json!({"task": "demo.until", "args": [file, index, 5], "labels": {"pool": "all"}});
    let tasks: Vec<Value> = (0..GREENLETS).map(task).collect();
    let sent = env.http.post("/v1/tasks/batch", &json!(tasks)).await.expect(202);
    assert_eq!(sent["accepted"], GREENLETS, "{}", sent["rejected"]);
    within(PATIENCE, "all run at once", async || (count(&env.http, "running").await == GREENLETS).then_some(())).await;
    std::fs::write(&file, "").expect("the folder is ours");
    within(PATIENCE, "all succeed", async || (count(&env.http, "succeeded").await == GREENLETS).then_some(())).await;
    let last = sent["items"][GREENLETS - 1]["task_id"].as_str().expect("an id");
    assert_eq!(env.finished(last).await["result"], GREENLETS - 1);
}

#[tokio::test]
async fn five_hundred_greenlets_of_gevent_run_five_hundred_tasks_at_once() {
    runs_hundreds_at_once("gevent").await;
}

#[tokio::test]
async fn five_hundred_greenlets_of_eventlet_run_five_hundred_tasks_at_once() {
    runs_hundreds_at_once("eventlet").await;
}

#[tokio::test]
async fn celery_on_the_newest_python_runs_tasks_canvases_and_retries() {
    let version = Version::NewestPython;
    let celery = CeleryOptions { version, ..CeleryOptions::default() };
    let env = Harness::start(&Options { celery, ..Options::default() });
    let add = env.submit("demo.add", json!([2, 3])).await;
    assert_eq!(env.finished(&add).await["result"], 5);
    let header = json!([{"task": "demo.add", "args": [1, 2]}, {"task": "demo.add", "args": [3, 4]}]);
    let chord = json!({"header": header, "body": {"task": "demo.identity"}});
    let done = env.http.post_with("/chord", &[("prefer", "wait=60")], &chord).await.expect(200);
    assert_eq!(done["result"], json!([3, 7]), "{done}");
    let steps = env.submit("demo.progress", json!([2, 0.05])).await;
    assert_eq!(env.finished(&steps).await["result"], json!({"steps": 2}));
    let failed = env.submit("demo.fail", json!(["ValueError"])).await;
    assert_eq!(env.finished(&failed).await["error"]["type"], "ValueError");
    eventually("its worker says which Celery it is", async || {
        let workers = env.http.get("/v1/workers").await.expect(200);
        workers["workers"][0]["software"].as_str().is_some_and(|text| text.contains("celery")).then_some(())
    })
    .await;
}
