//! `taskgate dev`: one process without anything installed, and Python workers that join it (issue rows S1, S2, S4, W1).

use std::time::Duration;

use regex::Regex;
use serde_json::json;

use crate::harness::celery::client;
use crate::harness::{Celery, CeleryOptions, Gateway, Http, Version, eventually, ports};

/// A `dev` in an empty folder of its own.
pub struct Dev {
    pub gateway: Gateway,
    pub http: Http,
}

impl Dev {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With settings in its environment.
    pub fn with(environment: &[(&str, &str)]) -> Self {
        let port = ports::free();
        let listen = format!("127.0.0.1:{port}");
        let all: Vec<_> = [("TASKGATE_HTTP__LISTEN", listen.as_str())].iter().chain(environment).copied().collect();
        let mut gateway = Gateway::start(&["dev"], port, None, &all);
        gateway.wait_until_ready();
        let http = gateway.http();
        Self { gateway, http }
    }

    /// Broker and backend, as printed.
    pub fn redis(&self) -> (String, String) {
        printed(&self.gateway.log())
    }

    pub async fn finished(&self, id: &str) -> serde_json::Value {
        eventually(&format!("{id} is finished"), async || {
            let answer = self.http.get(&format!("/result/{id}")).await;
            (answer.status != 202).then(|| answer.expect(200))
        })
        .await
    }

    pub async fn post(&self, path: &str, body: serde_json::Value) -> String {
        let accepted = self.http.post(path, &body).await.expect(202);
        accepted["task_id"].as_str().expect("an id").to_owned()
    }
}

/// Broker and backend, as `dev` printed them, with their password.
pub fn printed(log: &str) -> (String, String) {
    let address = Regex::new(r"redis://(:[^@\s]+@)?127\.0\.0\.1:\d+").expect("a pattern");
    let found = address.find(log).unwrap_or_else(|| panic!("no redis:// address in\n{log}")).as_str();
    (format!("{found}/0"), format!("{found}/1"))
}

#[tokio::test]
async fn what_was_queued_when_dev_was_killed_is_queued_again() {
    let mut dev = Dev::start();
    let body = json!({"task": "demo.add", "args": [1, 2], "queue": "nobody-yet"});
    let id = dev.post("/v1/tasks", body).await;
    dev.gateway.restart();
    let (broker, backend) = dev.redis();
    let options = CeleryOptions { queues: "nobody-yet".into(), ..CeleryOptions::default() };
    let _celery = Celery::start_at(&broker, &backend, options);
    assert_eq!(dev.finished(&id).await["result"], 3);
}

/// On a queue of its own: dev's Rust worker does not know the `demo.*` tasks.
async fn a_python_worker_joins(version: Version) {
    let dev = Dev::start();
    let (broker, backend) = dev.redis();
    let options = CeleryOptions { version, queues: "py".into(), ..CeleryOptions::default() };
    let _celery = Celery::start_at(&broker, &backend, options);
    for (task, args, result) in [
        ("demo.add", json!([1, 2]), json!(3)),
        ("demo.retry", json!([1, 0.1]), json!(1)),
        ("demo.progress", json!([2, 0.01]), json!({"steps": 2})),
        ("tasks.multiply", json!([6, 7]), json!(42)),
    ] {
        let id = dev.post("/v1/tasks", json!({"task": task, "args": args, "queue": "py"})).await;
        let done = dev.finished(&id).await;
        assert_eq!(done["result"], result, "{done}");
    }
    let failed = dev.post("/v1/tasks", json!({"task": "demo.fail", "queue": "py"})).await;
    assert_eq!(dev.finished(&failed).await["error"]["type"], "ValueError");
    // What a Celery client does on its own: canvas, ETA, revoke, inspect.
    let program = r#"
from celery import chain, chord, group
q = {"queue": "py"}
s = lambda task, *args: task.s(*args).set(**q)
assert chain(s(add, 2, 2), s(mul, 10))().get(timeout=90) == 40
assert chord([s(add, 1, 1), s(add, 2, 2)])(s(xsum)).get(timeout=90) == 6
assert group(s(add, 1, 1), s(add, 2, 2))().get(timeout=90) == [2, 4]
assert chain(s(add, 1, 1), group(s(add, 1), s(add, 2)), s(xsum))().get(timeout=90) == 7
assert add.apply_async((1, 1), countdown=0.5, **q).get(timeout=90) == 2
assert app.control.ping(timeout=2), "nobody answered"
assert any("demo.add" in " ".join(names) for names in app.control.inspect(timeout=2).registered().values())
waiting = add.apply_async((1, 1), countdown=60, **q)
app.control.revoke(waiting.id, reply=True, timeout=2)
long = sleep.apply_async((60,), **q)
import time
until = time.time() + 20
while not any(long.id in str(tasks) for tasks in (app.control.inspect(timeout=1).active() or {}).values()):
    assert time.time() < until, "it never became active"
app.control.revoke(long.id, terminate=True)
try:
    long.get(timeout=90)
    raise SystemExit("it was not terminated")
except Exception as error:
    assert type(error).__name__ == "TaskRevokedError", repr(error)
print("all well")
"#;
    let printed = tokio::task::spawn_blocking(move || client(version, &broker, &backend, program));
    assert!(printed.await.expect("no panic").contains("all well"));
}

#[tokio::test]
async fn the_newest_celery_joins_dev() {
    a_python_worker_joins(Version::Latest).await;
}

#[tokio::test]
async fn the_older_celery_joins_dev() {
    a_python_worker_joins(Version::Older).await;
}

#[tokio::test]
async fn dev_ends_within_ten_seconds_of_sigterm() {
    let mut dev = Dev::start();
    dev.post("/add", json!({"x": 1, "y": 1})).await;
    assert_eq!(dev.gateway.stop(Duration::from_secs(10)), Some(0), "{}", dev.gateway.log());
}
