//! Arguments, results, states, retries, limits: as an unmodified Celery client sees them.

use std::time::Duration;

use serde_json::json;

use super::process::Rust;
use crate::harness::{RedisOptions, Version};

#[test]
fn a_client_of_either_version_calls_by_position_and_name_and_gets_results_and_errors() {
    let rust = Rust::start();
    for version in [Version::Latest, Version::Older] {
        let said = rust.ask_with(
            version,
            r#"
tell({
    "position": send("add", 2, 3).get(timeout=90),
    "name": send("add", 2, kwargs={"y": 5}).get(timeout=90),
    "blocking": send("blocking", 7, 3).get(timeout=90),
    "missing": failure(send("add")),
    "many": failure(send("add", 1, 2, 3)),
    "unexpected": failure(send("add", 1, 2, kwargs={"z": 1})),
    "type": failure(send("add", 1, "two")),
    "unknown": failure(send("nope")),
    "fail": failure(send("fail", "KeyError", "gone")),
    "panic": failure(send("panic")),
})"#,
        );
        assert_eq!((&said["position"], &said["name"], &said["blocking"]), (&json!(5), &json!(7), &json!(4)), "{said}");
        let error = |name: &str| said[name].as_array().expect(name).clone();
        assert_eq!(error("missing")[2], "add() missing 2 required positional arguments: 'x' and 'y'");
        assert_eq!(error("many")[2], "add() takes 2 positional arguments but 3 were given");
        assert_eq!(error("unexpected")[2], "add() got an unexpected keyword argument 'z'");
        assert_eq!((&error("type")[0], &error("type")[1]), (&json!("TypeError"), &json!("builtins")), "{said}");
        assert_eq!(error("unknown")[0], "NotRegistered");
        assert_eq!((&error("fail")[0], &error("fail")[1]), (&json!("KeyError"), &json!("builtins")), "{said}");
        assert_eq!((&error("panic")[0], &error("panic")[2]), (&json!("Panic"), &json!("on purpose")), "{said}");
    }
    assert_eq!(rust.unacked(), 0);
}

#[test]
fn states_children_and_ignored_results_are_kept_as_celery_keeps_them() {
    let rust = Rust::start();
    let said = rust.ask(
        r#"
r = watched("progress", 3)
seen = []
r.get(timeout=90, on_message=lambda m: seen.append([m["status"], m["result"]]))
parent = send("spawn", 2)
parent.get(timeout=90)
ignored = send("add", 1, 1, ignore_result=True)
eventually(lambda: nodes("stats")["total"].get("rs.add", 0) >= 3)
try:
    state = app.AsyncResult(ignored.id).get(timeout=0.5)
except TimeoutError:
    state = "nothing"
tell({"seen": seen, "children": sorted(c.get(timeout=90) for c in parent.children), "ignored": state,
      "root": [c._get_task_meta().get("parent_id") for c in parent.children] == [parent.id] * 2})
"#,
    );
    let steps = json!([["PROGRESS", {"progress": 1, "total": 3}], ["PROGRESS", {"progress": 2, "total": 3}],
        ["PROGRESS", {"progress": 3, "total": 3}], ["SUCCESS", {"steps": 3}]]);
    assert_eq!(said["seen"], steps, "{said}");
    assert_eq!(said["children"], json!([0, 2]), "{said}");
    assert_eq!((&said["ignored"], &said["root"]), (&json!("nothing"), &json!(true)), "{said}");
}

#[test]
fn retries_limits_and_rejections_end_as_in_celery() {
    let rust = Rust::start();
    let said = rust.ask(
        r#"
def attempts(result):
    seen = []
    try:
        result.get(timeout=90, on_message=lambda m: m["task_id"] == result.id and seen.append(m["status"]))
    except ValueError as error:
        seen.append(str(error))
    return seen
retry = watched("retry", 2, 0.05)
states = []
retry.get(timeout=90, on_message=lambda m: states.append(m["status"]))
started = time.time()
limited = [send("limited", n) for n in range(4)]
[r.get(timeout=90) for r in limited]
spread = time.time() - started
tell({
    "retry": retry.get(), "states": states,
    "exhausted": failure(send("retry_exhausted", 5, 0.01)),
    "asked": attempts(watched("fail", "ValueError", "no", headers={"taskgate_retry": {"max": 2, "delay": 0.05}})),
    "unreadable": attempts(watched("fail", "ValueError", "no", headers={"taskgate_retry": {"max": "many"}})),
    "soft": failure(send("soft_limit", 5)),
    "hard": failure(send("hard_limit", 5)),
    "message_limit": failure(send("sleep", 5, time_limit=0.2)),
    "polite": send("polite", 5).get(timeout=90),
    "reject": failure(send("reject")),
    "requeue": send("reject", kwargs={"requeue": True}).get(timeout=90),
    "expired": failure(send("add", 1, 1, expires=-1)),
    "eta": send("add", 1, 1, countdown=0.3).get(timeout=90),
    "spread": spread,
})"#,
    );
    assert_eq!(
        (&said["retry"], &said["polite"], &said["eta"]),
        (&json!(2), &json!("told to end"), &json!(2)),
        "{said}"
    );
    assert_eq!(said["states"], json!(["RETRY", "RETRY", "SUCCESS"]), "{said}");
    assert_eq!(said["asked"], json!(["RETRY", "RETRY", "FAILURE", "no"]), "the sender's own policy: {said}");
    assert_eq!(said["unreadable"], json!(["FAILURE", "no"]), "{said}");
    assert_eq!(said["exhausted"], json!(["ValueError", "builtins", "attempt 1"]), "{said}");
    assert_eq!((&said["soft"][0], &said["soft"][1]), (&json!("SoftTimeLimitExceeded"), &json!("billiard.exceptions")));
    assert_eq!(said["hard"][0], "TimeLimitExceeded", "{said}");
    assert_eq!(said["message_limit"][0], "TimeLimitExceeded", "{said}");
    assert_eq!(said["reject"][0], "Reject", "{said}");
    assert_eq!(said["requeue"], "second delivery", "{said}");
    assert_eq!(said["expired"][0], "TaskRevokedError", "{said}");
    assert!(said["spread"].as_f64().expect("seconds") > 0.7, "four at 4/s take three quarters of a second: {said}");
    assert_eq!(rust.unacked(), 0);
}

#[test]
fn a_command_is_a_task() {
    let rust = Rust::start();
    let said = rust.ask(
        r#"
r = watched("shell", "you")
seen = []
value = r.get(timeout=90, on_message=lambda m: seen.append(m["status"]))
long = send("shell_sleep")
eventually(lambda: nodes("active"))
long.revoke(terminate=True)
tell({
    "value": value, "seen": seen,
    "call": send("echo" if False else "shell", "echo", 1).get(timeout=90),
    "fail": failure(send("shell", "fail")),
    "die": failure(send("shell", "die")),
    "limit": failure(send("shell_sleep", time_limit=0.3)),
    "terminated": failure(long),
})"#,
    );
    assert_eq!((&said["value"], &said["seen"]), (&json!({"hello": "you"}), &json!(["PROGRESS", "SUCCESS"])), "{said}");
    assert_eq!(said["call"]["args"], json!(["echo", 1]), "{said}");
    assert_eq!(said["fail"][0], "CommandFailed", "{said}");
    assert!(said["fail"][2].as_str().is_some_and(|text| text.contains("it went wrong")), "{said}");
    assert_eq!(said["die"][0], "WorkerLostError", "{said}");
    assert_eq!(said["limit"][0], "TimeLimitExceeded", "{said}");
    assert_eq!(said["terminated"][0], "TaskRevokedError", "{said}");
}

/// Of the worker so far, in hundredths of a second.
fn processor_time(rust: &Rust) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", rust.process.id())).expect("it lives");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = |place: usize| fields[place].parse::<u64>().expect("a number");
    ticks(11) + ticks(12)
}

/// The time itself is what is measured.
fn idle_for(length: Duration) {
    std::thread::sleep(length);
}

#[test]
fn a_thousand_sleeping_tasks_run_at_once_in_little_memory() {
    let rust = Rust::with(RedisOptions::default(), &[("CONCURRENCY", "1000")]);
    let said = rust.ask(
        r#"
started = time.time()
results = [send("sleep", 2, 1) for _ in range(1000)]
total = sum(r.get(timeout=90) for r in results)
stats = nodes("stats")
tell({"total": total, "seconds": time.time() - started, "maxrss": stats["rusage"]["maxrss"]})
"#,
    );
    assert_eq!(said["total"], 1000, "{said}");
    let before = processor_time(&rust);
    idle_for(Duration::from_secs(3));
    let used = processor_time(&rust) - before;
    assert!(used <= 15, "an idle worker used {used} hundredths of three seconds");
    assert!(said["maxrss"].as_i64().expect("KiB") < 100 * 1024, "{said}");
}
