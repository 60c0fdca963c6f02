//! Celery's own tools see a Rust worker as they see a Python one.

use std::process::Command;

use serde_json::json;

use super::process::Rust;
use crate::harness::celery::root;
use crate::harness::{Celery, CeleryOptions, RedisOptions};

/// What the real `celery` prints.
fn celery(rust: &Rust, words: &[&str]) -> String {
    let mut command = Command::new(root().join(".venv/celery-latest/bin/celery"));
    command.args(["-b", &rust.redis.url(0), "--result-backend", &rust.redis.url(1)]).args(words);
    let output = command.output().expect("celery can be started");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn status_and_inspect_show_the_worker_with_its_tasks_and_queues() {
    let rust = Rust::start();
    let status = celery(&rust, &["status"]);
    assert!(status.contains("rust@test") && status.contains("OK") && status.contains("1 node online"), "{status}");
    for (method, expected) in [
        ("ping", "pong"),
        ("registered", "rs.limited [rate_limit=4/s]"),
        ("active_queues", "rust"),
        ("stats", "taskgate.worker:TaskPool"),
        ("conf", "worker_prefetch_multiplier"),
        ("report", "taskgate"),
        ("clock", "clock"),
        ("active", "empty"),
        ("reserved", "empty"),
        ("scheduled", "empty"),
        ("revoked", "empty"),
    ] {
        let shown = celery(&rust, &["inspect", method]);
        assert!(shown.contains("rust@test") && shown.contains(expected), "{method}: {shown}");
    }
}

#[test]
fn commands_change_the_worker_and_answer_as_celery_answers() {
    let rust = Rust::with(RedisOptions::default(), &[("CONCURRENCY", "1")]);
    let said = rust.ask(
        r#"
def do(method, **arguments):
    replies = app.control.broadcast(method, arguments=arguments, reply=True, timeout=1)
    return replies[0]["rust@test"] if replies else None
out = {
    "unknown": do("nope"),
    "bad": do("rate_limit"),
    "rate": do("rate_limit", task_name="rs.add", rate_limit="5/s"),
    "rate_off": do("rate_limit", task_name="rs.add", rate_limit=0),
    "rate_unknown": do("rate_limit", task_name="nope", rate_limit="5/s"),
    "rate_bad": do("rate_limit", task_name="rs.add", rate_limit="5/x"),
    "time": do("time_limit", task_name="rs.sleep", hard=0.3),
    "limited": failure(send("sleep", 5)),
    "time_off": do("time_limit", task_name="rs.sleep", hard=0),
    "grow": do("pool_grow", n=2),
    "slots": do("stats")["pool"]["max-concurrency"],
    "shrink": do("pool_shrink", n=2),
    "autoscale": do("autoscale", max=3, min=1),
    "events": [do("disable_events"), do("enable_events"), do("enable_events")],
    "heartbeat": do("heartbeat"),
    "restart": do("pool_restart"),
    "hello": do("hello", from_node="other@node", revoked=["gone"]),
    "add": do("add_consumer", queue="extra"),
    "extra": app.send_task("rs.add", (1, 1), queue="extra").get(timeout=90),
    "queues": [q["name"] for q in do("active_queues")],
    "cancel": do("cancel_consumer", queue="extra"),
}
late = app.send_task("rs.add", (1, 1), queue="extra")
out["cancelled"] = failure(late, 2)[0]
tell(out)
"#,
    );
    let ok = |text: &str| json!({"ok": text});
    assert_eq!(said["unknown"], json!({"error": "KeyError('nope')"}), "{said}");
    let missing = "TypeError(\"rate_limit() missing 2 required positional arguments: 'task_name' and 'rate_limit'\")";
    assert_eq!(said["bad"], json!({"error": missing}), "{said}");
    assert_eq!(said["rate"], ok("new rate limit set successfully"));
    assert_eq!(said["rate_off"], ok("rate limit disabled successfully"));
    assert_eq!(said["rate_unknown"], json!({"error": "unknown task"}));
    assert_eq!(said["rate_bad"], json!({"error": "KeyError('x')"}));
    assert_eq!(said["time"], ok("time limits set successfully"));
    assert_eq!(said["limited"][0], "TimeLimitExceeded", "{said}");
    assert_eq!(
        (&said["grow"], &said["slots"], &said["shrink"]),
        (&ok("pool will grow"), &json!(3), &ok("pool will shrink"))
    );
    assert_eq!(said["autoscale"], json!({"error": "ValueError('Autoscale not enabled')"}));
    let events = json!([ok("task events disabled"), ok("task events enabled"), ok("task events already enabled")]);
    assert_eq!((&said["events"], &said["heartbeat"]), (&events, &json!(null)));
    assert_eq!(said["restart"], json!({"error": "ValueError('Pool restarts not enabled')"}));
    assert_eq!(said["hello"]["revoked"], json!(["gone"]), "{said}");
    assert_eq!((&said["add"], &said["extra"]), (&ok("add consumer extra"), &json!(2)));
    assert_eq!(said["queues"], json!(["rust", "extra"]), "{said}");
    assert_eq!(said["cancel"], ok("no longer consuming from extra"));
    assert_eq!(said["cancelled"], "TimeoutError", "{said}");
}

#[test]
fn what_is_revoked_does_not_run_and_what_runs_is_terminated() {
    let rust = Rust::with(RedisOptions::default(), &[("CONCURRENCY", "1")]);
    let said = rust.ask(
        r#"
inspect = app.control.inspect(destination=["rust@test"], timeout=20)
running = send("sleep", 600)
eventually(lambda: nodes("active"))
reserved, held = send("add", 1, 1), send("add", 2, 2, countdown=60)
eventually(lambda: nodes("reserved") and nodes("scheduled"))
shown = inspect.query_task([running.id, reserved.id, held.id])["rust@test"]
active = nodes("active")[0]
scheduled = inspect.scheduled()["rust@test"][0]["request"]["id"] == held.id
reserved.revoke(); held.revoke()
out = {"reserved": failure(reserved), "held": failure(held), "scheduled": scheduled,
       "states": [shown[running.id][0], shown[reserved.id][0], shown[held.id][0]],
       "active": [active["name"], active["args"], active["acknowledged"], active["delivery_info"]["routing_key"]],
       "revoked": sorted(inspect.revoked()["rust@test"]) == sorted([reserved.id, held.id])}
running.revoke(terminate=True, signal="SIGKILL")
out["running"] = failure(running)
unknown = app.AsyncResult("never-sent")
unknown.revoke()
out["unknown"] = failure(unknown)
out["after"] = send("add", 4, 4).get(timeout=90)
tell(out)
"#,
    );
    for name in ["reserved", "held", "running", "unknown"] {
        assert_eq!(said[name][0], "TaskRevokedError", "{name}: {said}");
    }
    assert_eq!(said["states"], json!(["active", "reserved", "scheduled"]), "{said}");
    assert_eq!(said["active"], json!(["rs.sleep", [600], true, "rust"]), "{said}");
    assert_eq!(
        (&said["scheduled"], &said["revoked"], &said["after"]),
        (&json!(true), &json!(true), &json!(8)),
        "{said}"
    );
    assert_eq!(rust.unacked(), 0);
}

#[test]
fn revoked_ids_are_learned_from_python_workers_and_told_to_them() {
    let mut rust = Rust::start();
    let python = Celery::start(&rust.redis, CeleryOptions::default());
    rust.ask("app.control.revoke('early-one'); tell(eventually(lambda: 'early-one' in app.control.inspect(timeout=1).revoked().get('w1@test', [])))");
    rust.process.kill();
    rust.restart();
    let said = rust.ask("tell(app.control.inspect(timeout=1, destination=['rust@test']).revoked())");
    assert_eq!(said, json!({"rust@test": ["early-one"]}));
    drop(python);
    let second = Celery::start(&rust.redis, CeleryOptions { hostname: "w2@test".into(), ..CeleryOptions::default() });
    let said = rust.ask("tell(app.control.inspect(timeout=1, destination=['w2@test']).revoked())");
    assert_eq!(said, json!({"w2@test": ["early-one"]}));
    drop(second);
}

#[test]
fn celerys_event_state_follows_the_worker_and_its_tasks() {
    let rust = Rust::start();
    let said = rust.ask(
        r#"
import threading
state = app.events.State()
connection = app.connection()
receiver = app.events.Receiver(connection, handlers={"*": state.event})
def listen():
    try:
        receiver.capture(limit=None, timeout=None, wakeup=True)
    except Exception:
        pass
threading.Thread(target=listen, daemon=True).start()
eventually(lambda: "rust@test" in state.workers)
good, bad, again = send("add", 1, 2), send("fail", "ValueError", "no"), send("retry", 1, 0.05)
good.get(timeout=90), failure(bad), again.get(timeout=90)
get = lambda r: state.tasks.get(r.id)
eventually(lambda: all(get(r) and get(r).state in ("SUCCESS", "FAILURE") for r in (good, bad, again)))
worker = state.workers["rust@test"]
tell({"alive": worker.alive, "ident": worker.sw_ident, "states": [get(r).state for r in (good, bad, again)],
      "name": get(good).name, "args": get(good).args, "result": get(good).result, "runtime": get(good).runtime is not None,
      "exception": get(bad).exception, "retries": get(again).retries, "worker": get(good).worker.hostname,
      "received": get(good).received is not None and get(good).started is not None})
"#,
    );
    assert_eq!(said["alive"], true, "{said}");
    assert_eq!(said["states"], json!(["SUCCESS", "FAILURE", "SUCCESS"]), "{said}");
    assert_eq!(
        (&said["name"], &said["args"], &said["result"]),
        (&json!("rs.add"), &json!("(1, 2)"), &json!("3")),
        "{said}"
    );
    assert_eq!((&said["exception"], &said["retries"]), (&json!("ValueError('no')"), &json!(1)), "{said}");
    assert_eq!((&said["runtime"], &said["received"]), (&json!(true), &json!(true)), "{said}");
    assert_eq!(said["worker"], "rust@test", "{said}");
}

#[test]
fn autoscaling_follows_the_load() {
    let rust = Rust::with(RedisOptions::default(), &[("AUTOSCALE", "4")]);
    let said = rust.ask(
        r#"
stats = lambda: nodes("stats")
before = stats()["pool"]["max-concurrency"]
results = [send("sleep", 3) for _ in range(8)]
grown = eventually(lambda: stats()["pool"]["max-concurrency"] == 4)
[r.get(timeout=90) for r in results]
tell({"before": before, "grown": grown, "autoscaler": stats()["autoscaler"]})
"#,
    );
    assert_eq!((&said["before"], &said["grown"]), (&json!(1), &json!(true)), "{said}");
    assert_eq!((&said["autoscaler"]["max"], &said["autoscaler"]["min"]), (&json!(4), &json!(1)), "{said}");
}
