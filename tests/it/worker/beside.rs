//! A Rust worker and a real Celery worker handle the same messages equally (issue item 3, and its bad input).

use std::time::Duration;

use serde_json::{Value, json};

use super::process::Rust;
use crate::harness::{Celery, CeleryOptions, RedisOptions, wait};

/// One message for each side: its queue and task are the only difference.
const MESSAGES: &str = r#"
import base64
def b64(value):
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.b64encode(text.encode()).decode()
def message(side, name, **change):
    id = f"{side}-{name}"
    queue, prefix = ("celery", "demo.") if side == "py" else ("rust", "rs.")
    task = change.pop("task", "add")
    headers = {"lang": "py", "task": prefix + task, "id": id, "retries": 0, "root_id": id, **change.pop("headers", {})}
    properties = {"correlation_id": id, "delivery_mode": 2, "priority": 0, "body_encoding": "base64", "delivery_tag": id,
                  "delivery_info": {"exchange": "", "routing_key": queue}, **change.pop("properties", {})}
    body = b64(change.pop("body", [[2, 3], {}, {}]))
    whole = {"body": body, "content-encoding": "utf-8", "content-type": "application/json", "headers": headers,
             "properties": {k: v for k, v in properties.items() if v is not None}, **change}
    return queue, json.dumps(whole)
def later(seconds):
    import datetime
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)).isoformat()
cases = {
    "plain": {},
    "unknown header": {"headers": {"x-mine": {"a": 1}, "lang": "c"}},
    "embed null": {"body": [[2, 3], {}, None]},
    "by name": {"body": [[2], {"y": 3}, {}]},
    "too few": {"body": [[2], {}, {}]},
    "too many": {"body": [[2, 3, 4], {}, {}]},
    "unexpected": {"body": [[2, 3], {"z": 1}, {}]},
    "twice": {"body": [[2, 3], {"x": 1}, {}]},
    "unknown task": {"task": "nobody_has_this"},
    "not JSON inside": {"body": "not json"},
    "pickle": {"content-type": "application/x-python-serialize"},
    "yaml": {"content-type": "application/x-yaml"},
    "plain text": {"content-type": "text/plain"},
    "encoding not said": {"properties": {"body_encoding": None}},
    "bad eta": {"headers": {"eta": "soon"}},
    "bad expires": {"headers": {"expires": "never"}},
    "eta": {"headers": {"eta": later(1)}},
    "eta past": {"headers": {"eta": later(-60)}},
    "expired": {"headers": {"expires": later(-60)}},
    "not expired": {"headers": {"expires": later(60)}},
    "expires waiting": {"headers": {"expires": later(0.5), "eta": later(1.5)}},
    "ignored": {"headers": {"ignore_result": True}},
    "time limit": {"task": "sleep", "body": [[30], {}, {}], "headers": {"timelimit": [1, None]}},
    "soft limit": {"task": "sleep", "body": [[30], {}, {}], "headers": {"timelimit": [60, 1]}},
    "group": {"headers": {"group": "g", "group_index": 0}},
    "parent": {"headers": {"parent_id": "p"}},
    "unicode": {"task": "identity", "body": [["héllo ☃ \U0001f680 \u2028"], {}, {}]},
    "numbers": {"task": "identity", "body": [[[1, 1.5, -0.1, 1e100, 12345678901234567890, None, True]], {}, {}]},
}
connection = app.connection().default_channel.client
for name, change in cases.items():
    for side in ("py", "rs"):
        queue, text = message(side, name, **json.loads(json.dumps(change)))
        connection.lpush(queue, text)
for side, queue, prefix in (("py", "celery", "demo."), ("rs", "rust", "rs.")):
    old = {"task": prefix + "add", "id": f"{side}-protocol 1", "args": [4, 5], "kwargs": {}, "retries": 0}
    connection.lpush(queue, json.dumps({"body": b64(old), "content-type": "application/json", "content-encoding": "utf-8",
        "headers": {}, "properties": {"body_encoding": "base64", "delivery_tag": side + "old", "correlation_id": "c",
        "delivery_mode": 2, "delivery_info": {"exchange": "", "routing_key": queue}}}))
# One by one and in order: when the last one has ended, all have, but for what was held.
last = [app.send_task("demo.add", (1, 1), queue="celery", countdown=3), app.send_task("rs.add", (1, 1), queue="rust", countdown=3)]
[r.get(timeout=90) for r in last]
eventually(lambda: connection.hlen("unacked") == 0, 30)
def record(side, name):
    raw = app.backend.client.get(f"celery-task-meta-{side}-{name}")
    return raw and json.loads(raw)
tell({name: [record("py", name), record("rs", name)] for name in [*cases, "protocol 1"]})
"#;

#[test]
fn every_message_ends_as_it_ends_in_celery() {
    let rust = Rust::with(RedisOptions::default(), &[("CONCURRENCY", "2")]);
    let celery = Celery::start(&rust.redis, CeleryOptions::default());
    let said = rust.ask(MESSAGES);
    let log = celery.log();
    drop(celery);
    let told = |record: &Value| {
        let mut record = record.clone();
        if let Some(members) = record.as_object_mut() {
            for own in ["task_id", "date_done", "traceback"] {
                // Both sides have the field or neither has; the values differ.
                let value = members.get(own).map(Value::is_null);
                members.insert(own.into(), json!(value));
            }
        }
        Value::from(record.to_string().replace("demo.", "rs."))
    };
    let cases = said.as_object().expect("cases");
    for (name, records) in cases {
        assert_eq!(told(&records[1]), told(&records[0]), "{name}: {records}\n{log}");
    }
    let kind = |name: &str| cases[name][1]["result"]["exc_type"].clone();
    assert_eq!(cases["plain"][1]["result"], 5, "{said}");
    assert_eq!((kind("too few"), kind("unknown task")), (json!("TypeError"), json!("NotRegistered")));
    assert_eq!((kind("expired"), kind("expires waiting")), (json!("TaskRevokedError"), json!("TaskRevokedError")));
    assert_eq!((kind("time limit"), kind("soft limit")), (json!("TimeLimitExceeded"), json!("SoftTimeLimitExceeded")));
    for dropped in ["not JSON inside", "pickle", "yaml", "encoding not said", "bad eta", "bad expires", "ignored"] {
        assert!(cases[dropped][1].is_null(), "{dropped}: {said}");
    }
}

/// Fills three queues at several priorities, then starts a worker and returns the order in which it worked.
const ORDER: &str = r#"
order = [("a", 0), ("a", 9), ("b", 0), ("a", 0), ("c", 3), ("b", 6), ("a", 3), ("c", 0), ("b", 0), ("c", 9), ("a", 6), ("c", 0)]
for number, (queue, priority) in enumerate(order):
    app.send_task(TASK, (1, 1), queue=queue, priority=priority, task_id=f"{SIDE}-{number}-{queue}{priority}")
"#;
const WORKED: &str = r#"
keys = eventually(lambda: [k for k in app.backend.client.scan_iter(f"celery-task-meta-{SIDE}-*")] if len(list(app.backend.client.scan_iter(f"celery-task-meta-{SIDE}-*"))) == 12 else None, 30)
records = [json.loads(app.backend.client.get(key)) for key in keys]
records.sort(key=lambda record: record["date_done"])
tell([record["task_id"].split("-", 1)[1] for record in records])
"#;

fn order_of_work(strategy: &str) -> (Value, Value) {
    let environment = [("CONCURRENCY", "1"), ("PREFETCH", "1"), ("QUEUES", "a,b,c"), ("QUEUE_ORDER", strategy)];
    let mut rust = Rust::with(RedisOptions::default(), &environment);
    rust.process.kill();
    let names = |side: &str, task: &str| format!("SIDE, TASK = {side:?}, {task:?}\n");
    let ours = names("rs", "rs.add");
    rust.ask(&format!("{ours}{ORDER}tell(0)"));
    rust.restart();
    let ours = rust.ask(&format!("{ours}{WORKED}"));
    rust.process.kill();
    let theirs = names("py", "demo.add");
    rust.ask(&format!("{theirs}{ORDER}tell(0)"));
    let settings =
        json!({"broker_transport_options": {"queue_order_strategy": strategy}, "worker_prefetch_multiplier": 1});
    let options = CeleryOptions { queues: "a,b,c".into(), concurrency: 1, settings, ..CeleryOptions::default() };
    let celery = Celery::start(&rust.redis, options);
    let theirs = rust.ask(&format!("{theirs}{WORKED}"));
    drop(celery);
    (ours, theirs)
}

#[test]
fn queues_and_priorities_are_served_in_celerys_order() {
    for strategy in ["round_robin", "priority"] {
        let (ours, theirs) = order_of_work(strategy);
        let first: Vec<bool> = ours.as_array().expect("ids")[..6]
            .iter()
            .map(|id| id.as_str().is_some_and(|id| id.ends_with('0')))
            .collect();
        assert_eq!(first, [true; 6], "priority 0 before all others: {ours}");
        if strategy == "priority" {
            assert_eq!(ours, theirs, "in the order of the command line");
        } else {
            // Which queue comes first depends on how often an idle worker has asked; that they take turns does not.
            for order in [&ours, &theirs] {
                let order = order.as_array().expect("ids");
                let queue = |place: usize| {
                    order[place].as_str().and_then(|id| id.split('-').nth(1)).expect("a queue")[..1].to_owned()
                };
                let mut turn = vec![queue(0), queue(1), queue(2)];
                turn.sort();
                assert_eq!(turn, ["a", "b", "c"], "{ours} {theirs}");
            }
        }
    }
}

#[test]
fn a_fleet_with_a_key_prefix_is_one_fleet() {
    let rust = Rust::with(RedisOptions::default(), &[("KEY_PREFIX", "pfx:"), ("RESULT_PREFIX", "rpfx")]);
    let options = json!({"broker_transport_options": {"global_keyprefix": "pfx:"},
        "result_backend_transport_options": {"global_keyprefix": "rpfx"}});
    let celery = Celery::start(&rust.redis, CeleryOptions { settings: options.clone(), ..CeleryOptions::default() });
    let said = rust.ask(&format!(
        r#"
app.conf.update(json.loads('{options}'))
run = lambda canvas: canvas.apply_async().get(timeout=90)
held = send("add", 1, 1, countdown=600)
eventually(lambda: nodes("scheduled"))
held.revoke()
tell({{
    "chain": run(chain(rs("add", 1, 2), py("add", 10), rs("mul", 2))),
    "chord": run(chord([rs("add", 1, 1), py("add", 2, 2)], rs("xsum"))),
    "fail": failure(send("fail", "KeyError", "k"))[0], "held": failure(held)[0],
    "nodes": sorted(app.control.inspect(timeout=2).ping()),
    "keys": sorted({{k.decode().split(":")[0].split("_")[0] for db in (0, 1) for k in
        __import__("redis").Redis.from_url(app.conf.broker_url[:-1] + str(db)).keys()}}),
}})"#
    ));
    drop(celery);
    assert_eq!((&said["chain"], &said["chord"]), (&json!(26), &json!(6)), "{said}");
    assert_eq!((&said["fail"], &said["held"]), (&json!("KeyError"), &json!("TaskRevokedError")), "{said}");
    assert_eq!(said["nodes"], json!(["rust@test", "w1@test"]), "{said}");
    assert_eq!(said["keys"], json!(["pfx", "rpfx"]), "nothing stands outside: {said}");
}

#[test]
fn what_a_dead_worker_had_is_restored_by_the_other_kind() {
    let mut rust = Rust::with(RedisOptions::default(), &[("CONCURRENCY", "1"), ("VISIBILITY_TIMEOUT", "2")]);
    let settings = json!({"broker_transport_options": {"visibility_timeout": 2}});
    let options = CeleryOptions { concurrency: 1, settings, ..CeleryOptions::default() };
    let mut celery = Celery::start(&rust.redis, options);
    // The Python worker dies, the Rust one puts its message back.
    rust.ask(r#"py("late", 600).apply_async(); eventually(lambda: app.control.inspect(["w1@test"], timeout=2).active()["w1@test"]); tell(0)"#);
    celery.kill();
    let waiting = |rust: &Rust, queue: &str| -> Vec<String> { rust.redis.command(0, &["LRANGE", queue, "0", "-1"]) };
    let restored = |rust: &Rust, queue: &str| {
        wait::blocking(Duration::from_secs(30), "the message is back in its queue", || {
            waiting(rust, queue).into_iter().next()
        })
    };
    assert!(restored(&rust, "celery").contains("\"redelivered\": true"));
    let _: i64 = rust.redis.command(0, &["DEL", "celery"]);
    // The Rust worker dies, a Python one puts its message back when it starts.
    rust.ask(r#"send("late", 600); eventually(lambda: nodes("active")); tell(0)"#);
    rust.process.kill();
    assert_eq!(rust.unacked(), 1);
    wait::blocking(Duration::from_secs(10), "the reservation is overdue", || {
        let scores: Vec<String> = rust.redis.command(0, &["ZRANGE", "unacked_index", "0", "-1", "WITHSCORES"]);
        let now: Vec<String> = rust.redis.command(0, &["TIME"]);
        let age = now[0].parse::<f64>().expect("seconds") - scores[1].parse::<f64>().expect("seconds");
        (age > 3.0).then_some(())
    });
    celery.restart();
    assert!(restored(&rust, "rust").contains("\"redelivered\": true"));
    assert_eq!(rust.unacked(), 0);
}

#[test]
fn a_rate_limit_set_at_run_time_slows_both_kinds_alike() {
    let rust = Rust::with(RedisOptions::default(), &[("CONCURRENCY", "4")]);
    let celery = Celery::start(&rust.redis, CeleryOptions::default());
    let said = rust.ask(
        r#"
app.control.rate_limit("rs.add", "5/s", destination=["rust@test"], reply=True)
app.control.rate_limit("demo.add", "5/s", destination=["w1@test"], reply=True)
results = [[send("add", n, n) for n in range(6)], [py("add", n, n).apply_async() for n in range(6)]]
for side in results:
    for r in side:
        r.get(timeout=90)
def spread(side):
    done = sorted(app.backend.get_task_meta(r.id)["date_done"] for r in side)
    from datetime import datetime
    parse = lambda at: at if isinstance(at, datetime) else datetime.fromisoformat(at)
    return (parse(done[-1]) - parse(done[0])).total_seconds()
tell([spread(side) for side in results])"#,
    );
    drop(celery);
    for seconds in said.as_array().expect("two") {
        assert!(seconds.as_f64().is_some_and(|seconds| seconds > 0.8), "six at 5/s take a second: {said}");
    }
}
