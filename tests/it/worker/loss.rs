//! A worker that stops, dies, or loses its Redis loses nothing that was promised.

use std::time::Duration;

use serde_json::json;

use super::process::Rust;
use crate::harness::celery::client;
use crate::harness::{Gateway, Latch, Redis, RedisOptions, Version, wait};

fn until(what: &str, fact: impl Fn() -> bool) {
    wait::blocking(wait::DEADLINE, what, || fact().then_some(()));
}

#[test]
fn a_warm_stop_finishes_what_runs_and_returns_the_rest() {
    let mut rust = Rust::with(RedisOptions::default(), &[("CONCURRENCY", "1")]);
    let latch = Latch::closed();
    let ids = rust.ask(&format!(
        r#"
running = send("until", {})
eventually(lambda: nodes("active"))
rest = [send("add", n, n) for n in range(3)] + [send("add", 9, 9, countdown=600)]
eventually(lambda: len(nodes("reserved")) == 3 and nodes("scheduled"))
tell([running.id] + [r.id for r in rest])
"#,
        latch.args(())[0]
    ));
    rust.process.signal(libc::SIGTERM);
    rust.process.wait_for_log("stopping warm", wait::DEADLINE);
    latch.open();
    assert!(rust.process.wait(Duration::from_secs(10)).success());
    assert_eq!((rust.waiting(), rust.unacked()), (4, 0), "{}", rust.process.log());
    let next: Vec<String> = rust.redis.command(0, &["LRANGE", "rust", "0", "-1"]);
    let order: Vec<bool> = next
        .iter()
        .rev()
        .zip(ids.as_array().expect("ids")[1..].iter())
        .map(|(message, id)| message.contains(id.as_str().expect("id")))
        .collect();
    assert_eq!(order, [true; 4], "the oldest is the next to be taken");
    assert!(next.iter().all(|message| message.contains("\"redelivered\": true")));
    assert_eq!(rust.ask(&format!("tell(app.AsyncResult({}).get(timeout=90))", ids[0])), json!(null));
}

#[test]
fn a_cold_stop_returns_late_messages_and_fails_early_ones() {
    let mut rust = Rust::with(RedisOptions::default(), &[("CONCURRENCY", "2")]);
    let ids = rust.ask(
        r#"
early, late = send("sleep", 600), send("late", 600)
eventually(lambda: len(nodes("active")) == 2)
tell([early.id, late.id])
"#,
    );
    rust.process.signal(libc::SIGTERM);
    rust.process.wait_for_log("stopping warm", wait::DEADLINE);
    rust.process.signal(libc::SIGTERM);
    assert!(rust.process.wait(Duration::from_secs(10)).success());
    assert_eq!((rust.waiting(), rust.unacked()), (1, 0));
    let said = rust.ask(&format!("tell(failure(app.AsyncResult({})))", ids[0]));
    assert_eq!(said[0], "WorkerLostError", "{said}");
}

#[test]
fn a_killed_worker_loses_no_late_task() {
    let mut rust = Rust::with(RedisOptions::default(), &[("VISIBILITY_TIMEOUT", "2"), ("CONCURRENCY", "1")]);
    let latch = Latch::closed();
    let ids = rust.ask(&format!(
        r#"
late, waiting = send("until_late", {}), send("add", 1, 1)
eventually(lambda: nodes("active") and nodes("reserved"))
tell([late.id, waiting.id])
"#,
        latch.args(())[0]
    ));
    rust.process.kill();
    latch.open();
    assert_eq!(rust.unacked(), 2);
    rust.restart();
    let said = rust.ask(&format!("tell([app.AsyncResult(id).get(timeout=90) for id in {ids}])"));
    assert_eq!(said, json!([null, 2]));
    until("everything is acknowledged", || rust.unacked() == 0);
}

#[test]
fn a_living_worker_keeps_its_reservations() {
    let rust = Rust::with(RedisOptions::default(), &[("VISIBILITY_TIMEOUT", "3"), ("CONCURRENCY", "1")]);
    let said = rust.ask(
        r#"
late = send("late", 7, "once")
held = send("add", 1, 1, countdown=8)
late.get(timeout=90), held.get(timeout=90)
tell(nodes("stats")["total"])
"#,
    );
    assert_eq!(said, json!({"rs.late": 1, "rs.add": 1}));
}

#[test]
fn consumption_resumes_when_redis_is_back_and_nothing_acknowledged_runs_again() {
    let keep = RedisOptions { appendonly: true, ..RedisOptions::default() };
    let mut rust = Rust::with(keep, &[("CONCURRENCY", "2")]);
    let before = rust.ask("r = [send('add', n, n) for n in range(50)]; [x.get(timeout=90) for x in r]; tell(len(r))");
    assert_eq!(before, 50);
    let running = rust.ask("r = send('sleep', 1.5, 'through'); eventually(lambda: nodes('active')); tell(r.id)");
    restart_after(&mut rust.redis, Duration::from_secs(2));
    let said = rust.ask(&format!(
        r#"
through = app.AsyncResult({running}).get(timeout=90)
again = send("add", 20, 22).get(timeout=90)
stats = eventually(lambda: nodes("stats"))
tell({{"through": through, "again": again, "total": stats["total"]}})
"#
    ));
    assert_eq!((&said["through"], &said["again"]), (&json!("through"), &json!(42)), "{said}");
    assert_eq!(said["total"], json!({"rs.add": 51, "rs.sleep": 1}), "{said}");
    until("everything is acknowledged", || rust.unacked() == 0);
}

/// One task that may run again, one that may not; neither ends by itself.
const ENDLESS: &str = r#"
[[tasks]]
name = "shell.early"
command = ["sleep", "600"]

[[tasks]]
name = "shell.late"
command = ["sleep", "600"]
idempotent = true
"#;

#[test]
fn the_program_ends_within_ten_seconds_whatever_runs_and_without_redis() {
    let redis = Redis::start(RedisOptions::default());
    let addresses = [("CELERY_BROKER_URL", &*redis.url(0)), ("CELERY_RESULT_BACKEND", &*redis.url(1))];
    let start = || {
        let config: toml::Table = ENDLESS.parse().expect("TOML");
        let words = ["worker", "--hostname", "stop@test", "--concurrency", "2"];
        let mut worker = Gateway::start(&words, 0, Some(&config), &addresses);
        worker.wait_for_log("is ready");
        let program = "import time\nsent = [app.send_task('shell.' + kind, queue='celery') for kind in ('early', 'late')]\n\
            while len((app.control.inspect(timeout=1).active() or {}).get('stop@test', [])) < 2: time.sleep(0.05)\nprint(sent[0].id)";
        let id = client(Version::Latest, &redis.url(0), &redis.url(1), program);
        (worker, id.trim().to_owned())
    };
    let (mut worker, early) = start();
    assert_eq!(worker.stop(Duration::from_secs(10)), Some(0), "{}", worker.log());
    let left: (usize, usize) = (redis.command(0, &["LLEN", "celery"]), redis.command(0, &["HLEN", "unacked"]));
    assert_eq!(left, (1, 0), "the late one went back: {}", worker.log());
    let record: String = redis.command(1, &["GET", &format!("celery-task-meta-{early}")]);
    assert!(record.contains("WorkerLostError"), "the early one has failed: {record}");
    let _: i64 = redis.command(0, &["DEL", "celery"]);

    let (mut worker, _) = start();
    redis.pause();
    let ended = worker.stop(Duration::from_secs(10));
    redis.resume();
    assert_eq!(ended, Some(0), "{}", worker.log());
    let left: usize = redis.command(0, &["HLEN", "unacked"]);
    assert_eq!(left, 1, "the late one is still reserved: it returns after the visibility timeout");
}

/// Redis is away for that long: the time itself is what the test is about.
fn restart_after(redis: &mut Redis, away: Duration) {
    redis.kill();
    std::thread::sleep(away);
    redis.restart();
}

/// The queues of an exchange are read before a message goes there. That fails here as often as the worker asks.
fn unreadable_bindings(rust: &Rust) {
    rust.redis.command::<()>(0, &["SET", "_kombu.binding.routed", "no set"]);
}

const STEP_BEYOND: &str = r#"signature("rs.add", args=(1,), exchange="routed", routing_key="rust", task_id="beyond")"#;

/// The same, for a task that returns nothing.
const STEP_AFTER_NOTHING: &str =
    r#"signature("rs.add", args=(0, 1), immutable=True, exchange="routed", routing_key="rust", task_id="beyond")"#;

#[test]
fn a_task_whose_next_step_has_unreadable_bindings_fails_with_the_reason() {
    let mut rust = Rust::start();
    unreadable_bindings(&rust);
    let said = rust.ask(&format!("tell(failure(send('add', 1, 1, link={STEP_BEYOND})))"));
    assert_eq!(said[0], "NotSent", "{said}");
    assert!(said[2].as_str().is_some_and(|why| why.contains("WRONGTYPE")), "{said}");
    let id = rust.ask(&format!("tell(send('add', 2, 2, link={STEP_BEYOND}).id)"));
    rust.process.wait_for_log("reading bindings: failed, trying again", wait::DEADLINE);
    rust.redis.command::<()>(0, &["DEL", "_kombu.binding.routed"]);
    rust.redis.command::<()>(0, &["SADD", "_kombu.binding.routed", "rust\u{6}\u{16}\u{6}\u{16}rust"]);
    let said = rust.ask(&format!("tell([app.AsyncResult(id).get(timeout=90) for id in ({id}, 'beyond')])"));
    assert_eq!(said, json!([4, 5]));
}

#[test]
fn a_worker_that_stops_before_the_next_step_is_sent_keeps_the_message() {
    let mut rust = Rust::with(RedisOptions::default(), &[("VISIBILITY_TIMEOUT", "2")]);
    unreadable_bindings(&rust);
    let id = rust.ask(&format!("tell(send('late', 0, link={STEP_AFTER_NOTHING}).id)"));
    rust.process.wait_for_log("reading bindings: failed, trying again", wait::DEADLINE);
    for line in ["stopping warm", "its message is kept"] {
        rust.process.signal(libc::SIGTERM);
        rust.process.wait_for_log(line, wait::DEADLINE);
    }
    rust.process.wait(wait::DEADLINE);
    assert_eq!(rust.unacked(), 1);
    rust.redis.command::<()>(0, &["DEL", "_kombu.binding.routed"]);
    rust.redis.command::<()>(0, &["SADD", "_kombu.binding.routed", "rust\u{6}\u{16}\u{6}\u{16}rust"]);
    rust.restart();
    let said = rust.ask(&format!("tell([app.AsyncResult(id).get(timeout=90) for id in ({id}, 'beyond')])"));
    assert_eq!(said, json!([null, 1]));
    until("everything is acknowledged", || rust.unacked() == 0);
}
