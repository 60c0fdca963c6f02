//! Flower's API under `[compat] flower`, answer by answer beside the real Flower 2 on the same fleet.

use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::harness::celery::root;
use crate::harness::environment::{Harness, Options};
use crate::harness::process::Process;
use crate::harness::wait::within;
use crate::harness::{Answer, CeleryOptions, Gateway, Http, Redis, RedisOptions, eventually, gateway, ports, postgres};

/// On a busy machine Flower takes its time: it asks every worker eight questions.
const PATIENCE: Duration = Duration::from_secs(120);
const CONFIG: &str = "compat.flower = '/flower'";
/// Values without meaning outside of the process that counted them.
const OWN: [&str; 3] = ["clock", "timestamp", "children"];

/// Flower with the tests' application, so that it knows the tasks by name.
fn flower(redis: &Redis) -> (Process, Http) {
    let port = ports::free();
    let mut command = Command::new(root().join(".venv/flower/bin/celery"));
    command.args(["-A", "app", "flower", "--address=127.0.0.1", &format!("--port={port}"), "--persistent=False"]);
    command
        .current_dir(root().join("tests/celery_app"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("CELERY_BROKER_URL", redis.url(0))
        .env("CELERY_RESULT_BACKEND", redis.url(1))
        .env("FLOWER_UNAUTHENTICATED_API", "true");
    (Process::start("flower", command), Http::new(format!("http://127.0.0.1:{port}")))
}

/// The same request to both.
struct Both {
    theirs: Http,
    ours: Http,
}

impl Both {
    async fn ask(&self, method: &Method, path: &str, body: Option<&str>) -> (Answer, Answer) {
        let headers = [("content-type", "application/json")];
        let body = || body.map(|text| text.as_bytes().to_vec());
        let theirs = self.theirs.try_send(method.clone(), path, &headers, body()).await.expect("Flower answers");
        let ours = self.ours.try_send(method.clone(), &format!("/flower{path}"), &headers, body()).await;
        (theirs, ours.expect("the gateway answers"))
    }

    /// Status and body are equal, once both have received all events.
    ///
    /// # Panics
    /// With both answers, when they stay different.
    async fn agree(&self, path: &str) {
        within(PATIENCE, &format!("{path} is answered alike"), async || {
            let (theirs, ours) = self.ask(&Method::GET, path, None).await;
            let alike = (ours.status, told(&ours)) == (theirs.status, told(&theirs));
            if !alike {
                eprintln!("{path}: {} {}, not {} {}", ours.status, ours.text(), theirs.status, theirs.text());
            }
            alike.then_some(())
        })
        .await;
    }
}

/// JSON where it is some: Tornado writes it with other spaces.
fn told(answer: &Answer) -> Value {
    serde_json::from_str(&answer.text()).unwrap_or_else(|_| Value::from(answer.text()))
}

/// Numbers that are times or spans become their kind: two observers do not see the same microsecond.
fn shape(task: &Value) -> Map<String, Value> {
    let members = task.as_object().unwrap_or_else(|| panic!("no object: {task}")).iter();
    let told = |(name, value): (&String, &Value)| {
        let value = if value.is_f64() { json!("a time") } else { value.clone() };
        (!OWN.contains(&name.as_str())).then(|| (name.clone(), value))
    };
    members.filter_map(told).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_for_flower_get_the_same_answers() {
    let celery = CeleryOptions { events: true, ..CeleryOptions::default() };
    let env = Harness::start(&Options { celery, config: CONFIG.to_owned(), ..Options::default() });
    let (_process, theirs) = flower(&env.redis);
    let both = Both { theirs, ours: env.gateway.http() };
    within(PATIENCE, "flower sees the worker", async || {
        let answer = both.theirs.try_send(Method::GET, "/api/workers?refresh=1", &[], None).await.ok()?;
        let workers: Value = serde_json::from_str(&answer.text()).ok()?;
        workers["w1@test"]["conf"].is_object().then_some(())
    })
    .await;

    // Submitted over ours and over theirs, seen by both.
    let mut ids = Vec::new();
    for (task, body) in [("demo.add", json!({"args": [2, 3]})), ("demo.fail", json!({"args": ["ValueError", "boom"]}))]
    {
        let (their, our) =
            both.ask(&Method::POST, &format!("/api/task/async-apply/{task}"), Some(&body.to_string())).await;
        assert_eq!((our.status, their.status), (200, 200), "{} {}", our.text(), their.text());
        let (their, our) = (their.json(), our.json());
        assert_eq!(our["state"], their["state"]);
        ids.push((
            their["task-id"].as_str().expect("an id").to_owned(),
            our["task-id"].as_str().expect("an id").to_owned(),
        ));
    }
    for (their, our) in &ids {
        for id in [their, our] {
            within(PATIENCE, "both have seen the end", async || {
                let (theirs, ours) = both.ask(&Method::GET, &format!("/api/task/info/{id}"), None).await;
                let ended = |answer: &Answer| {
                    answer.status == 200 && answer.json()["runtime"].is_f64() || answer.text().contains("FAILURE")
                };
                // Each receives the events at its own pace.
                (ended(&theirs) && ended(&ours) && shape(&ours.json()) == shape(&theirs.json())).then_some(())
            })
            .await;
            let (theirs, ours) = both.ask(&Method::GET, &format!("/api/task/result/{id}"), None).await;
            assert_eq!(ours.json(), theirs.json(), "result of {id}");
        }
    }
    let (theirs, ours) = both.ask(&Method::GET, "/api/tasks?taskname=demo.add&state=SUCCESS", None).await;
    let (theirs, ours) = (theirs.json(), ours.json());
    let names =
        |list: &Value| list.as_object().expect("tasks").keys().cloned().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(names(&ours), names(&theirs));
    for (id, task) in ours.as_object().expect("tasks") {
        assert_eq!(shape(task), shape(&theirs[id]), "list of {id}");
    }
    let limited = both.ask(&Method::GET, "/api/tasks?limit=1", None).await.1.json();
    assert_eq!(limited.as_object().map(Map::len), Some(1));
    for path in ["/api/task/types", "/api/queues/length", "/api/workers?status=1", "/healthcheck"] {
        both.agree(path).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_commands_are_flowers_own() {
    let celery = CeleryOptions { events: true, ..CeleryOptions::default() };
    let env = Harness::start(&Options { celery, config: CONFIG.to_owned(), ..Options::default() });
    let (_process, theirs) = flower(&env.redis);
    let both = Both { theirs, ours: env.gateway.http() };
    within(PATIENCE, "both see the worker", async || {
        both.theirs.try_send(Method::GET, "/healthcheck", &[], None).await.ok()?;
        let (theirs, ours) = both.ask(&Method::GET, "/api/workers?refresh=1", None).await;
        let has = |answer: &Answer| answer.status == 200 && answer.json()["w1@test"]["conf"].is_object();
        (has(&theirs) && has(&ours)).then_some(())
    })
    .await;
    let unknown = "00000000-0000-4000-8000-000000000000";
    for (method, path, body) in [
        (Method::GET, format!("/api/task/info/{unknown}"), None),
        (Method::GET, format!("/api/task/result/{unknown}"), None),
        (Method::POST, "/api/task/apply/no.such.task".to_owned(), None),
        (Method::POST, "/api/task/async-apply/demo.add".to_owned(), Some("[1]")),
        (Method::POST, "/api/task/async-apply/demo.add".to_owned(), Some(r#"{"args": {}}"#)),
        (Method::POST, "/api/task/apply/demo.add".to_owned(), Some(r#"{"args": [1], "eta": "tomorrow"}"#)),
        (Method::POST, "/api/worker/pool/grow/nobody@here".to_owned(), None),
        (Method::GET, "/api/workers?workername=nobody@here".to_owned(), None),
        (Method::POST, "/api/worker/pool/grow/w1@test?n=1".to_owned(), None),
        (Method::POST, "/api/worker/pool/shrink/w1@test?n=1".to_owned(), None),
        (Method::POST, "/api/worker/queue/add-consumer/w1@test?queue=extra".to_owned(), None),
        (Method::POST, "/api/worker/queue/cancel-consumer/w1@test?queue=extra".to_owned(), None),
        (Method::POST, "/api/task/rate-limit/demo.add?workername=w1@test&ratelimit=100/m".to_owned(), None),
        (Method::POST, "/api/task/timeout/demo.add?workername=w1@test&soft=30&hard=60".to_owned(), None),
        (Method::POST, format!("/api/task/revoke/{unknown}?terminate=true"), None),
    ] {
        let (theirs, ours) = both.ask(&method, &path, body).await;
        assert_eq!((ours.status, told(&ours)), (theirs.status, told(&theirs)), "{method} {path}");
    }
    let (theirs, ours) = both.ask(&Method::POST, "/api/task/apply/demo.add", Some(r#"{"args": [20, 22]}"#)).await;
    let (theirs, ours) = (theirs.json(), ours.json());
    assert_eq!((&ours["result"], &ours["state"]), (&theirs["result"], &theirs["state"]));
    let (theirs, ours) = both.ask(&Method::GET, "/api/workers?workername=w1@test", None).await;
    let keys = |answer: &Answer| {
        let worker = answer.json()["w1@test"].clone();
        worker.as_object().expect("a worker").keys().cloned().collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(keys(&ours), keys(&theirs));
}

/// A token that is limited to names sees its own; a script may give it as the password that it gave to Flower.
#[tokio::test]
async fn a_limited_token_sees_its_own_tasks_only() {
    let redis = Redis::start(RedisOptions::default());
    let database = postgres::cluster().migrated_database();
    let token = |arguments: &[&str]| {
        let done = gateway::run(&[&["token", "create"], arguments].concat(), &[("DATABASE_URL", &database)]);
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    };
    let admin = token(&["--name", "all", "--scope", "submit,read,control,admin"]);
    let limited = token(&["--name", "some", "--scope", "submit,read,control", "--tasks", "mine.*"]);
    let config = format!("auth = 'token'\nsubmit.allow = ['*']\n{CONFIG}");
    let gateway = Gateway::serve(&database, &redis.url(0), &redis.url(1), &config);
    let http = gateway.http();
    let basic = |token: &str| {
        let pair = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("anybody:{token}"));
        format!("Basic {pair}")
    };
    let call = async |token: &str, method: Method, path: &str| {
        let headers = [("authorization", token), ("content-type", "application/json")];
        http.try_send(method, &format!("/flower/api{path}"), &headers, Some(b"{}".to_vec())).await.expect("an answer")
    };
    let (admin, limited) = (basic(&admin), format!("Bearer {limited}"));
    let mine = call(&limited, Method::POST, "/task/send-task/mine.one").await.json()["task-id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let foreign = call(&admin, Method::POST, "/task/send-task/other.one").await.json()["task-id"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert_eq!(call(&limited, Method::POST, "/task/send-task/other.one").await.status, 403);
    eventually("both are listed", async || {
        (call(&admin, Method::GET, "/tasks").await.json().as_object().map(Map::len) == Some(2)).then_some(())
    })
    .await;
    let seen = call(&limited, Method::GET, "/tasks").await.json();
    assert_eq!(seen.as_object().expect("tasks").keys().collect::<Vec<_>>(), [&mine]);
    assert_eq!(call(&limited, Method::GET, "/task/types").await.json(), json!({"task-types": ["mine.one"]}));
    assert_eq!(call(&limited, Method::GET, &format!("/task/info/{foreign}")).await.status, 404);
    assert_eq!(call(&limited, Method::GET, &format!("/task/result/{foreign}")).await.json()["state"], "PENDING");
    assert_eq!(call(&limited, Method::POST, &format!("/task/revoke/{foreign}")).await.status, 404);
    assert_eq!(call(&limited, Method::GET, &format!("/task/info/{mine}")).await.status, 200);
    for fleet in ["/workers", "/queues/length"] {
        assert_eq!(call(&limited, Method::GET, fleet).await.status, 403, "{fleet}");
    }
    assert_eq!(call(&limited, Method::POST, "/worker/shutdown/w1@test").await.status, 403);
    assert_eq!(call("Bearer nonsense", Method::GET, "/tasks").await.status, 401);
    assert_eq!(http.get("/flower/api/tasks").await.status, 401);
}
