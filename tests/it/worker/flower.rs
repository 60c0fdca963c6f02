//! Flower, unmodified, shows a Rust worker as it shows a Python one (issue item 5).

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::process::Rust;
use crate::harness::celery::root;
use crate::harness::process::Process;
use crate::harness::wait::within;
use crate::harness::{Celery, CeleryOptions, Http, RedisOptions, ports};

/// On a busy machine Flower takes its time: it asks every worker eight questions.
const PATIENCE: Duration = Duration::from_secs(120);

fn start(rust: &Rust) -> (Process, Http) {
    let port = ports::free();
    let mut command = Command::new(root().join(".venv/flower/bin/celery"));
    command.args(["-b", &rust.redis.url(0), "--result-backend", &rust.redis.url(1), "flower"]);
    command.args(["--address=127.0.0.1", &format!("--port={port}"), "--persistent=False"]);
    command.env("FLOWER_UNAUTHENTICATED_API", "true");
    (Process::start("flower", command), Http::new(format!("http://127.0.0.1:{port}")))
}

/// The keys of an object, with those of the objects in it.
fn keys(value: &Value) -> Value {
    let keys = |value: &Value| value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>());
    let members = value.as_object().expect("an object").iter();
    members.map(|(name, member)| (name.clone(), serde_json::json!(keys(member)))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn flower_shows_a_rust_worker_beside_a_python_one() {
    let rust = Rust::with(RedisOptions::default(), &[("CONCURRENCY", "2")]);
    let celery = Celery::start(&rust.redis, CeleryOptions { events: true, ..CeleryOptions::default() });
    let (_flower, http) = start(&rust);
    // Up, listening to events, and both workers seen by their heartbeats.
    let names = ["rust@test", "w1@test"];
    within(PATIENCE, "flower sees both workers", async || {
        let answer = http.try_send(reqwest::Method::GET, "/workers?json=1", &[], None).await.ok()?;
        let seen = answer.text();
        names.iter().all(|name| seen.contains(name)).then_some(())
    })
    .await;
    let ids = rust.ask(
        r#"
done = [send("add", 2, 3), py("add", 2, 3).apply_async()]
[r.get(timeout=90) for r in done]
bad = [send("fail", "ValueError", "boom"), py("fail").apply_async()]
[failure(r) for r in bad]
tell([r.id for r in done + bad])"#,
    );
    let workers = within(PATIENCE, "flower has asked both workers", async || {
        let workers = http.get("/api/workers?refresh=1").await.json();
        names
            .iter()
            .all(|name| workers[name]["stats"].is_object() && workers[name]["conf"].is_object())
            .then_some(workers)
    })
    .await;
    let shown = |name: &str| {
        let mut worker = workers[name].clone();
        for own in ["conf", "timestamp"] {
            worker.as_object_mut().expect("a worker").remove(own);
        }
        keys(&worker)
    };
    assert_eq!(shown("rust@test"), shown("w1@test"), "{workers}");
    assert_eq!(workers["rust@test"]["active_queues"][0]["name"], "rust", "{workers}");
    let listed = http.get("/workers?json=1").await.json();
    for worker in listed["data"].as_array().expect("workers") {
        assert_eq!((&worker["status"], worker["active"].is_number()), (&Value::Bool(true), true), "{listed}");
        assert!(worker["processed"].is_number() && worker["loadavg"].is_array(), "{listed}");
    }
    let tasks = within(PATIENCE, "flower shows the four tasks", async || {
        let tasks = http.get("/api/tasks").await.json();
        let ended = |id: &Value| tasks[id.as_str()?]["state"].as_str().filter(|state| *state != "STARTED");
        let ids = ids.as_array().expect("ids");
        ids.iter().all(|id| matches!(ended(id), Some("SUCCESS" | "FAILURE"))).then_some(tasks)
    })
    .await;
    let task = |place: usize| &tasks[ids[place].as_str().expect("an id")];
    for (ours, theirs) in [(task(0), task(1)), (task(2), task(3))] {
        assert_eq!(keys(ours), keys(theirs), "{ours} {theirs}");
        for key in ["state", "args", "kwargs", "result", "exception", "retries"] {
            let same = key == "args" && ours["exception"].is_string() || ours[key] == theirs[key];
            assert!(same, "{key}: {ours} {theirs}");
        }
        assert_eq!(
            (&ours["worker"], ours["runtime"].is_number()),
            (&Value::from("rust@test"), theirs["runtime"].is_number())
        );
    }
    for page in ["/worker/rust@test", &format!("/task/{}", ids[0].as_str().expect("an id")), "/tasks", "/broker"] {
        assert_eq!(http.get(page).await.status, 200, "{page}");
    }
    let page = http.get("/worker/rust@test").await.text();
    assert!(page.contains("Taskgate.worker:TaskPool") && page.contains("rs.add"), "its own page shows pool and tasks");
    drop(celery);
}
