//! The Rust worker on RabbitMQ, as unmodified Celery clients, Celery's own tools, Flower and the gateway see it.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::process::{ask, launch};
use crate::harness::celery::root;
use crate::harness::environment::{Harness, Options};
use crate::harness::process::Process;
use crate::harness::rabbit::{On, Rabbit};
use crate::harness::wait::within;
use crate::harness::{Http, Latch, Redis, RedisOptions, Version, eventually, ports};

/// On a busy machine Flower takes its time: it asks every worker eight questions.
const PATIENCE: Duration = Duration::from_secs(120);

/// A worker on a virtual host of its own.
pub struct Rust {
    pub process: Process,
    pub rabbit: Rabbit,
    /// Where results are, unless they come back over RabbitMQ.
    redis: Option<Redis>,
    environment: Vec<(String, String)>,
    /// Of its clients.
    settings: Value,
}

impl Rust {
    /// With results in Redis.
    pub fn start(environment: &[(&str, &str)]) -> Self {
        let redis = Redis::start(RedisOptions::default());
        Self::on(Rabbit::shared(), Some(redis), environment, Value::Null)
    }

    /// With results over RabbitMQ.
    pub fn over_rpc(environment: &[(&str, &str)]) -> Self {
        Self::on(Rabbit::shared(), None, environment, Value::Null)
    }

    pub fn on(rabbit: Rabbit, redis: Option<Redis>, environment: &[(&str, &str)], settings: Value) -> Self {
        let environment: Vec<_> = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let process = launch(&rabbit.url(), &backend(redis.as_ref()), &environment);
        Self { process, rabbit, redis, environment, settings }
    }

    /// The worker was killed or has stopped: starts it again.
    pub fn restart(&mut self) {
        self.process = launch(&self.rabbit.url(), &backend(self.redis.as_ref()), &self.environment);
    }

    pub fn ask(&self, program: &str) -> Value {
        self.ask_with(Version::Latest, program)
    }

    pub fn ask_with(&self, version: Version, program: &str) -> Value {
        ask(version, &self.rabbit.url(), &backend(self.redis.as_ref()), &self.settings, program)
    }
}

fn backend(redis: Option<&Redis>) -> String {
    redis.map_or_else(|| "rpc://".to_owned(), |redis| redis.url(1))
}

const CALLS: &str = r#"
r = watched("progress", 3)
seen = []
r.get(timeout=90, on_message=lambda m: seen.append(m["status"]))
tell({
    "add": send("add", 2, 3).get(timeout=90),
    "fail": failure(send("fail", "KeyError", "gone")),
    "unknown": failure(send("nope")),
    "retry": send("retry", 2).get(timeout=90),
    "seen": seen,
    "chain": chain(rs("add", 1, 2), rs("mul", 10), rs("add", 1)).apply_async().get(timeout=90),
    "group": group(rs("add", 1, 1), rs("add", 2, 2)).apply_async().get(timeout=90),
    "broken": failure(chain(rs("fail", "ValueError", "first"), rs("add", 1)).apply_async()),
    "children": sorted(c.get(timeout=90) for c in (lambda p: (p.get(timeout=90), p.children)[1])(send("spawn", 2))),
})"#;

fn are_right(said: &Value) {
    assert_eq!((&said["add"], &said["retry"], &said["chain"]), (&json!(5), &json!(2), &json!(31)), "{said}");
    assert_eq!(
        (&said["group"], &said["fail"][0], &said["unknown"][0]),
        (&json!([2, 4]), &json!("KeyError"), &json!("NotRegistered")),
        "{said}"
    );
    assert_eq!(said["seen"], json!(["PROGRESS", "PROGRESS", "PROGRESS", "SUCCESS"]), "{said}");
    assert_eq!(said["broken"][0], "ValueError", "the step that never ran fails with the first one: {said}");
}

#[test]
fn clients_of_both_versions_call_it_and_read_results_in_redis() {
    let rust = Rust::start(&[]);
    for version in [Version::Latest, Version::Older] {
        let said = rust.ask_with(version, CALLS);
        are_right(&said);
        assert_eq!(said["children"], json!([0, 2]));
    }
    let chord =
        rust.ask(r#"tell(chord([rs("add", 1, 1), rs("add", 2, 2)], rs("xsum")).apply_async().get(timeout=90))"#);
    assert_eq!(chord, 6);
}

#[test]
fn clients_of_both_versions_get_results_over_rabbitmq() {
    let rust = Rust::over_rpc(&[]);
    // Children send their results to the queue that their parent's client reads, as its own tasks do.
    let calls = CALLS.replace("(p.get(timeout=90), p.children)[1]", "[]");
    for version in [Version::Latest, Version::Older] {
        are_right(&rust.ask_with(version, &calls));
    }
}

#[test]
fn celery_s_own_tools_ask_and_tell_it() {
    let rust = Rust::start(&[("CONCURRENCY", "1")]);
    let latch = Latch::closed();
    let said = rust.ask(&format!(
        r#"
running = send("until", {})
active = eventually(lambda: nodes("active"))
waiting = send("add", 1, 1)
later = send("add", 1, 1, countdown=600)
eventually(lambda: nodes("reserved") and nodes("scheduled"))
app.control.revoke(waiting.id)
revoked = failure(waiting)
rate = app.control.rate_limit("rs.add", "5/s", reply=True, destination=["rust@test"], timeout=20)
more = app.control.add_consumer("second", reply=True, destination=["rust@test"], timeout=20)
tell({{
    "ping": nodes("ping"), "active": [t["id"] for t in active] == [running.id], "registered": nodes("registered"),
    "queues": [q["name"] for q in nodes("active_queues")], "broker": nodes("stats")["broker"], "revoked": revoked[0],
    "rate": rate, "more": more, "eta": [t["request"]["id"] for t in nodes("scheduled")] == [later.id],
}})"#,
        latch.args(())[0]
    ));
    latch.open();
    assert_eq!(
        (&said["ping"], &said["active"], &said["eta"]),
        (&json!({"ok": "pong"}), &json!(true), &json!(true)),
        "{said}"
    );
    assert!(said["registered"].to_string().contains("rs.add"), "{said}");
    assert_eq!(
        (&said["broker"]["transport"], &said["broker"]["virtual_host"]),
        (&json!("amqp"), &json!(rust.rabbit.vhost))
    );
    assert_eq!((&said["queues"], &said["revoked"]), (&json!(["rust", "second"]), &json!("TaskRevokedError")), "{said}");
    assert!(
        said["rate"].to_string().contains("set successfully")
            && said["more"].to_string().contains("add consumer second")
    );
    let second = r#"tell(app.send_task("rs.add", (2, 2), queue="second").get(timeout=90))"#;
    assert_eq!(rust.ask(second), 4, "a queue that was added is consumed");
}

#[tokio::test(flavor = "multi_thread")]
async fn flower_sees_it_and_its_tasks() {
    let rust = Rust::start(&[]);
    let port = ports::free();
    let mut command = Command::new(root().join(".venv/flower/bin/celery"));
    command.args(["-b", &rust.rabbit.url(), "--result-backend", &backend(rust.redis.as_ref()), "flower"]);
    command.args(["--address=127.0.0.1", &format!("--port={port}"), "--persistent=False"]);
    command.env("FLOWER_UNAUTHENTICATED_API", "true");
    let _flower = Process::start("flower", command);
    let http = Http::new(format!("http://127.0.0.1:{port}"));
    within(PATIENCE, "flower sees the worker", async || {
        let answer = http.try_send(reqwest::Method::GET, "/workers?json=1", &[], None).await.ok()?;
        answer.text().contains("rust@test").then_some(())
    })
    .await;
    let id = rust.ask(r#"r = send("add", 2, 3); r.get(timeout=90); tell(r.id)"#);
    within(PATIENCE, "flower has heard of the task", async || {
        let tasks = http.get("/api/tasks").await.json();
        (tasks[id.as_str().expect("an id")]["state"] == "SUCCESS").then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_gateway_runs_tasks_on_it_without_redis() {
    let config = "[submit]\nallow = ['rs.*']\n".into();
    let env =
        Harness::start(&Options { broker: On::Rabbit, rpc: true, without_worker: true, config, ..Options::default() });
    let url = env.rabbit.as_ref().expect("it was asked for").url();
    let _worker = launch(&url, "rpc://", &[("QUEUES".to_owned(), "celery".to_owned())]);
    let result = env.run("rs.add", json!([2, 3])).await;
    assert_eq!((&result["status"], &result["result"]), (&json!("SUCCESS"), &json!(5)));
    let failed = env.run("rs.fail", json!(["ValueError", "boom"])).await;
    assert_eq!((&failed["status"], &failed["error"]["type"]), (&json!("FAILURE"), &json!("ValueError")), "{failed}");
    let chain = json!({"tasks": [{"task": "rs.add", "args": [1, 2]}, {"task": "rs.mul", "args": [10]}]});
    let chain = env.http.post_once("/chain", &chain).await.expect(202);
    assert_eq!(env.finished(chain["task_id"].as_str().expect("an id")).await["result"], 30);
    let group = json!({"tasks": [{"task": "rs.add", "args": [1, 1]}, {"task": "rs.add", "args": [2, 2]}]});
    let group = env.http.post_once("/group", &group).await.expect(202);
    assert_eq!(env.finished(group["group_id"].as_str().expect("an id")).await["result"], json!([2, 4]));
    // What is said before the gateway listens is heard by nobody.
    eventually("events of the worker come over celeryev", async || {
        let result = env.run("rs.add", json!([1, 1])).await;
        let history = env.history(result["task_id"].as_str().expect("an id")).await;
        history.iter().any(|event| event["worker"] == "rust@test").then_some(())
    })
    .await;
}
