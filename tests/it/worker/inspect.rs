//! Compares the replies of a Rust worker key by key with those of a real Celery worker in the same situation (rows W3, W4).

use serde_json::{Map, Value, json};

use super::process::Rust;
use crate::harness::{Celery, CeleryOptions, RedisOptions};

/// Keys and types without values: what a program that reads replies depends on.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), shape(value))).collect(),
        Value::Array(values) => Value::Array(values.first().map(shape).into_iter().collect()),
        Value::String(_) => "text".into(),
        Value::Number(_) => "number".into(),
        Value::Bool(_) => "bool".into(),
        Value::Null => Value::Null,
    }
}

/// The replies of a busy worker: a task runs, one waits, one is held, one id is revoked.
const ASK: &str = r#"
def replies(node, send):
    ids = [f"{node}-{word}" for word in ("running", "reserved", "held")]
    send("sleep", 60, task_id=ids[0], ignore_result=False)
    inspect = app.control.inspect(timeout=5, destination=[node])
    eventually(lambda: inspect.active()[node])
    send("add", 1, 2, task_id=ids[1])
    send("add", 1, 2, task_id=ids[2], countdown=600)
    app.control.revoke("some-id", destination=[node])
    eventually(lambda: len(inspect.query_task(ids)[node]) == 3 and inspect.revoked()[node])
    said = {method: getattr(inspect, method)()[node] for method in
            ("ping", "active", "reserved", "scheduled", "stats", "active_queues", "revoked", "clock", "conf", "report")}
    said["safe"] = inspect.active(safe=True)[node]
    said["query_task"] = {id.removeprefix(node): state for id, state in inspect.query_task(ids)[node].items()}
    said["registered"] = inspect.registered("rate_limit", "max_retries")[node]
    app.control.revoke(ids[0], destination=[node], terminate=True, reply=True)
    app.control.revoke(ids[1:], destination=[node], reply=True)
    return said
def send_py(name, *args, **options):
    return py(name, *args).apply_async(**options)
tell({"theirs": replies("w1@test", send_py), "ours": replies("rust@test", send), "known": list(app.conf)})
"#;

#[test]
fn replies_have_the_keys_and_types_of_a_celery_workers() {
    let rust = Rust::with(RedisOptions::default(), &[("CONCURRENCY", "1")]);
    let celery = Celery::start(&rust.redis, CeleryOptions { concurrency: 1, ..CeleryOptions::default() });
    let mut said = rust.ask(ASK);
    drop(celery);
    // The running tasks have different names on both sides.
    for side in ["theirs", "ours"] {
        let total = said[side]["stats"]["total"].take();
        assert!(total.as_object().is_some_and(|total| total.len() == 1), "{total}");
    }
    let (theirs, ours) = (&said["theirs"], &said["ours"]);
    for method in
        ["ping", "active", "reserved", "scheduled", "stats", "active_queues", "revoked", "clock", "safe", "report"]
    {
        assert_eq!(shape(&ours[method]), shape(&theirs[method]), "{method}: {} {}", ours[method], theirs[method]);
    }
    assert_eq!(shape(&ours["query_task"]), shape(&theirs["query_task"]));
    for word in ["-running", "-reserved", "-held"] {
        assert_eq!(ours["query_task"][word][0], theirs["query_task"][word][0], "{word}");
    }
    for method in ["active", "reserved", "scheduled"] {
        let ids = |side: &Value| side[method].as_array().expect("a list").len();
        assert_eq!((ids(ours), ids(theirs)), (1, 1), "{method}: {}", ours[method]);
    }
    assert_eq!((&ours["safe"][0]["args"], &ours["safe"][0]["kwargs"]), (&json!("(60,)"), &json!("{}")));
    assert_eq!(ours["active"][0]["args"], json!([60]));
    // The values of a queue are kombu's own.
    let mut queue = theirs["active_queues"][0].clone();
    queue["name"] = "rust".into();
    queue["routing_key"] = "rust".into();
    queue["exchange"]["name"] = "rust".into();
    assert_eq!(ours["active_queues"][0], queue);
    let known = said["known"].as_array().expect("names");
    let conf: &Map<String, Value> = ours["conf"].as_object().expect("settings");
    assert!(conf.keys().all(|name| known.contains(&name.as_str().into())), "only Celery's names: {conf:?}");
    for name in ["broker_url", "result_backend", "timezone"] {
        assert_eq!(shape(&conf[name]), shape(&theirs["conf"][name]), "{name}");
    }
    let listed = ours["registered"].as_array().expect("names");
    for line in ["rs.limited [rate_limit=4/s max_retries=3]", "rs.retry_exhausted [max_retries=1]"] {
        assert!(listed.contains(&line.into()), "{line}: {listed:?}");
    }
}

#[test]
fn a_password_is_never_told() {
    let rust = Rust::with(RedisOptions { password: Some("s3cret".into()), ..RedisOptions::default() }, &[]);
    let said = rust.ask(r#"tell([nodes("conf"), nodes("report"), nodes("stats")])"#).to_string();
    assert!(said.contains("broker_url") && !said.contains("s3cret"), "{said}");
}
