//! Tasks in child processes: isolated, killed reliably, replaced in time; the task of a lost child ends as in Celery (rows W2, W5, R5).

use std::time::Duration;

use serde_json::{Value, json};

use super::process::Rust;
use crate::harness::{Celery, CeleryOptions, RedisOptions, unix, wait};

#[test]
fn a_child_does_everything_that_a_handler_may_do() {
    let rust = Rust::with(RedisOptions::default(), &[("CONCURRENCY", "2")]);
    let said = rust.ask(
        r#"
info = send("child_info").get(timeout=90)
stats = nodes("stats")
seen = []
progress = watched("child_progress", 2)
progress.get(timeout=90, on_message=lambda m: m["task_id"] == progress.id and seen.append([m["status"], m["result"]]))
spawned = send("child_spawn", 2)
spawned.get(timeout=90)
retry = send("child_retry", 2, 0.05)
running = send("child_sleep", 600)
active = eventually(lambda: nodes("active"))[0]
running.revoke(terminate=True, signal="SIGKILL")
tell({
    "info": info, "pid": stats["pid"], "processes": stats["pool"]["processes"], "seen": seen,
    "children": sorted(c.get(timeout=90) for c in spawned.children),
    "retry": retry.get(timeout=90),
    "fail": failure(send("child_fail", "KeyError", "gone")),
    "arguments": failure(send("child_add", 1)),
    "panic": failure(send("child_panic")),
    "terminated": failure(running), "worker_pid": active["worker_pid"],
    "polite": send("child_polite", 5).get(timeout=90),
    "soft": failure(send("child_soft", 5)),
    "busy": failure(send("child_busy", 60)),
    "hard": failure(send("child_hard", 60)),
    "add": send("child_add", 20, 22).get(timeout=90),
})"#,
    );
    assert_eq!(said["info"]["parent"], said["pid"], "{said}");
    let processes = said["processes"].as_array().expect("pids");
    assert_eq!(processes.len(), 2, "as many children as slots: {said}");
    assert!(processes.contains(&said["info"]["pid"]) && processes.contains(&said["worker_pid"]), "{said}");
    let steps = json!([["PROGRESS", {"progress": 1, "total": 2}], ["PROGRESS", {"progress": 2, "total": 2}],
        ["SUCCESS", {"steps": 2}]]);
    assert_eq!((&said["seen"], &said["children"], &said["retry"]), (&steps, &json!([0, 2]), &json!(2)), "{said}");
    assert_eq!((&said["fail"][0], &said["fail"][1]), (&json!("KeyError"), &json!("builtins")), "{said}");
    assert_eq!(said["arguments"][2], "child_add() missing 1 required positional argument: 'y'", "{said}");
    assert_eq!((&said["panic"][0], &said["panic"][2]), (&json!("Panic"), &json!("on purpose")), "{said}");
    assert_eq!(said["terminated"][0], "TaskRevokedError", "{said}");
    assert_eq!(said["polite"], "told to end", "{said}");
    assert_eq!(
        (&said["soft"][0], &said["busy"][0]),
        (&json!("SoftTimeLimitExceeded"), &json!("SoftTimeLimitExceeded"))
    );
    assert_eq!((&said["hard"][0], &said["add"]), (&json!("TimeLimitExceeded"), &json!(42)), "{said}");
    assert_eq!(rust.unacked(), 0);
}

/// A record without the parts that differ from run to run.
fn shape(record: &Value) -> Value {
    let mut record = record.clone();
    for name in ["task_id", "date_done"] {
        assert!(record[name].is_string(), "{record}");
        record[name] = json!("…");
    }
    let text = record["result"]["exc_message"].to_string();
    let job = regex::Regex::new(r"Job: \d+\.").expect("a pattern");
    record["result"]["exc_message"] = job.replace(&text, "Job: N.").into_owned().into();
    record
}

#[test]
fn what_kills_a_child_is_one_lost_task_stored_as_celery_stores_it() {
    let rust = Rust::with(RedisOptions::default(), &[("CONCURRENCY", "1")]);
    let celery = Celery::start(&rust.redis, CeleryOptions { concurrency: 1, ..CeleryOptions::default() });
    let said = rust.ask(
        r#"
def record(result):
    failure(result, 30)
    return json.loads(app.backend.client.get(f"celery-task-meta-{result.id}"))
theirs, ours = py("kill_self").apply_async(), send("child_kill")
late_theirs, late_ours = py("late_reject").apply_async(), send("child_late_reject")
tell({
    "theirs": record(theirs), "ours": record(ours),
    "late": record(send("child_late_kill")),
    "again": [late_theirs.get(timeout=90), late_ours.get(timeout=90)],
    "abort": failure(send("child_abort")), "exit": failure(send("child_exit", 3)),
    "pid": nodes("stats")["pid"],
})"#,
    );
    drop(celery);
    let order = |record: &Value| record.as_object().expect("a record").keys().cloned().collect::<Vec<_>>();
    assert_eq!(order(&said["ours"]), order(&said["theirs"]), "{said}");
    assert_eq!(shape(&said["ours"]), shape(&said["theirs"]), "{said}");
    assert_eq!(shape(&said["late"]), shape(&said["theirs"]), "an early and a late message: {said}");
    assert_eq!(said["again"], json!([{"redelivered": true}, {"redelivered": true}]), "{said}");
    let lost = |name: &str, text: &str| {
        assert_eq!(said[name][0], "WorkerLostError", "{said}");
        assert!(said[name][2].as_str().is_some_and(|said| said.contains(text)), "{said}");
    };
    lost("abort", "Worker exited prematurely: signal 6 (SIGABRT) Job: ");
    lost("exit", "Worker exited prematurely: exitcode 3 Job: ");
    assert_eq!(said["pid"], rust.process.id(), "the worker lives on");
    assert_eq!(rust.unacked(), 0);
}

#[test]
fn a_child_is_replaced_after_so_many_tasks_or_so_much_memory() {
    let limits = [("CONCURRENCY", "1"), ("MAX_TASKS_PER_CHILD", "3"), ("MAX_MEMORY_PER_CHILD", "150000")];
    let rust = Rust::with(RedisOptions::default(), &limits);
    let said = rust.ask(
        r#"
pid = lambda: send("child_info").get(timeout=90)["pid"]
pids = [pid() for _ in range(7)]
before = pid()
send("child_eat", 200).get(timeout=90)
after = pid()
stats = nodes("stats")["pool"]
tell({"pids": pids, "before": before, "after": after, "max": stats["max-tasks-per-child"]})"#,
    );
    let pids: Vec<i64> = serde_json::from_value(said["pids"].clone()).expect("pids");
    assert!(pids[0] == pids[1] && pids[1] == pids[2] && pids[2] != pids[3], "{said}");
    assert!(pids[3] == pids[5] && pids[5] != pids[6], "{said}");
    assert_ne!(said["before"], said["after"], "{said}");
    assert_eq!(said["max"], 3, "{said}");
}

#[test]
fn the_prefork_pool_runs_every_task_in_a_child_and_ends_with_its_worker() {
    let mut rust = Rust::with(RedisOptions::default(), &[("CONCURRENCY", "2"), ("POOL", "prefork")]);
    let children = |rust: &Rust| rust.ask(r#"tell(nodes("stats")["pool"]["processes"])"#);
    let said = rust.ask(
        r#"
sleeping = [send("sleep", 3, n) for n in range(4)]
pids = {task["worker_pid"] for task in eventually(lambda: len(nodes("active")) == 2 and nodes("active"))}
out = {"sum": sum(r.get(timeout=90) for r in sleeping), "blocking": send("blocking", 7, 3).get(timeout=90),
       "shell": send("shell", "you").get(timeout=90), "own": nodes("stats")["pid"] in pids, "pids": len(pids)}
app.control.pool_grow(1)
eventually(lambda: len(nodes("stats")["pool"]["processes"]) == 3)
app.control.pool_shrink(2)
eventually(lambda: len(nodes("stats")["pool"]["processes"]) == 1)
tell(out)"#,
    );
    assert_eq!((&said["sum"], &said["blocking"], &said["shell"]), (&json!(6), &json!(4), &json!({"hello": "you"})));
    assert_eq!((&said["own"], &said["pids"]), (&json!(false), &json!(2)), "{said}");
    // A warm stop finishes running tasks.
    let id = rust.ask("r = send('sleep', 1.5, 'done'); eventually(lambda: nodes('active')); tell(r.id)");
    let pids = children(&rust);
    rust.process.signal(libc::SIGTERM);
    assert!(rust.process.wait(Duration::from_secs(10)).success(), "{}", rust.process.log());
    assert_eq!(rust.ask(&format!("tell(app.AsyncResult({id}).get(timeout=90))")), "done");
    gone(&pids);
    // A killed worker takes its children with it, and a late task runs again.
    rust.restart();
    let ids = rust.ask("r = send('child_late', 600); eventually(lambda: nodes('active')); tell(r.id)");
    let pids = children(&rust);
    unix::kill(rust.process.id(), libc::SIGKILL);
    gone(&pids);
    assert_eq!((rust.unacked(), ids.is_string()), (1, true), "it returns after the visibility timeout");
}

fn gone(pids: &Value) {
    for pid in pids.as_array().expect("pids") {
        wait::blocking(wait::DEADLINE, "a child is gone", || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            (status.is_empty() || status.contains("State:\tZ")).then_some(())
        });
    }
}

#[test]
fn a_cold_stop_kills_children_and_returns_their_late_messages() {
    let mut rust = Rust::with(RedisOptions::default(), &[("CONCURRENCY", "2")]);
    let said = rust.ask(
        r#"
early, late = send("child_hard", 60, time_limit=60), send("child_late", 60)
eventually(lambda: len(nodes("active")) == 2)
tell({"early": early.id, "pids": nodes("stats")["pool"]["processes"]})"#,
    );
    rust.process.signal(libc::SIGTERM);
    rust.process.wait_for_log("stopping warm", wait::DEADLINE);
    rust.process.signal(libc::SIGTERM);
    assert!(rust.process.wait(Duration::from_secs(10)).success());
    gone(&said["pids"]);
    assert_eq!((rust.waiting(), rust.unacked()), (1, 0));
    let ended = rust.ask(&format!("tell(failure(app.AsyncResult({})))", said["early"]));
    assert_eq!(ended[0], "WorkerLostError", "{ended}");
}
