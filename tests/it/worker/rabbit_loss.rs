//! The Rust worker on RabbitMQ in trouble: killed, cut off, stopped, with poison in a quorum queue. Nothing that was promised is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::rabbit::Rust;
use crate::harness::process::folder;
use crate::harness::rabbit::Rabbit;
use crate::harness::{Latch, Redis, RedisOptions, wait};

fn until(what: &str, fact: impl Fn() -> bool) {
    wait::blocking(wait::DEADLINE, what, || fact().then_some(()));
}

fn depth(rust: &Rust, queue: &str) -> usize {
    rust.rabbit.messages(queue).len()
}

/// How often each task began, by its id.
fn begun(journal: &std::path::Path) -> BTreeMap<String, usize> {
    let mut begun = BTreeMap::new();
    for line in std::fs::read_to_string(journal).unwrap_or_default().lines() {
        let mut words = line.split(' ');
        if let (Some("start"), Some(id)) = (words.next(), words.next()) {
            *begun.entry(id.to_owned()).or_default() += 1;
        }
    }
    begun
}

#[test]
fn a_killed_worker_loses_no_late_task() {
    let mut rust = Rust::over_rpc(&[("CONCURRENCY", "1")]);
    let latch = Latch::closed();
    rust.ask(&format!(
        r#"
send("until_late", {})
send("add", 1, 1)
eventually(lambda: nodes("active") and nodes("reserved"))
tell(0)"#,
        latch.args(())[0]
    ));
    rust.process.kill();
    until("RabbitMQ has both messages back", || depth(&rust, "rust") == 2);
    latch.open();
    rust.restart();
    rust.ask(r#"tell(eventually(lambda: nodes("stats")["total"].get("rs.until_late") and nodes("stats")["total"].get("rs.add")))"#);
    until("both are acknowledged", || {
        rust.rabbit.queue("rust").is_some_and(|queue| queue["messages"] == 0 && queue["messages_unacknowledged"] == 0)
    });
}

#[test]
fn priority_nine_is_taken_first() {
    let journal = folder("journal").join("journal");
    let rabbit = Rabbit::shared();
    rabbit.declare("rust", &json!({"x-max-priority": 9}));
    let environment = [("CONCURRENCY", "1"), ("PREFETCH", "1"), ("DEMO_JOURNAL", journal.to_str().expect("a path"))];
    let settings = json!({"task_queue_max_priority": 9});
    let rust = Rust::on(rabbit, Some(Redis::start(RedisOptions::default())), &environment, settings);
    let latch = Latch::closed();
    let ids = rust.ask(&format!(
        r#"
send("until_late", {})
eventually(lambda: nodes("active"))
tell([send("work_late", 0, priority=priority).id for priority in (0, 9, 5)])"#,
        latch.args(())[0]
    ));
    until("all three wait in the queue", || depth(&rust, "rust") == 3);
    latch.open();
    until("all three ran", || begun(&journal).len() == 3);
    let lines = std::fs::read_to_string(&journal).expect("it was written");
    let order: Vec<&str> = lines.lines().filter_map(|line| line.strip_prefix("start ")?.split(' ').next()).collect();
    let wanted: Vec<&str> = [1, 2, 0].iter().map(|place| ids[*place].as_str().expect("an id")).collect();
    assert_eq!(order, wanted);
}

#[test]
fn what_a_quorum_queue_delivered_too_often_fails_without_running() {
    let rabbit = Rabbit::shared();
    rabbit.declare("rust", &json!({"x-queue-type": "quorum"}));
    let settings = json!({"task_create_missing_queue_type": "quorum"});
    let redis = Some(Redis::start(RedisOptions::default()));
    let mut rust = Rust::on(rabbit, redis, &[("MAX_DELIVERIES", "2")], settings);
    let id = rust.ask(r#"r = send("until_late", "/proc/never"); eventually(lambda: nodes("active")); tell(r.id)"#);
    let counted = |rust: &Rust, state: &str| rust.rabbit.queue("rust").is_some_and(|queue| queue[state] == 1);
    for _ in 0..2 {
        until("the worker has it", || counted(&rust, "messages_unacknowledged"));
        rust.process.kill();
        until("the quorum queue has it back", || counted(&rust, "messages_ready"));
        rust.restart();
    }
    let said = rust.ask(&format!("tell(failure(app.AsyncResult({id})))"));
    assert_eq!(said[0], "PoisonTask", "{said}");
    assert!(said[2].as_str().is_some_and(|text| text.contains("2 times before")), "{said}");
    until("its message is gone", || rust.rabbit.queue("rust").is_some_and(|queue| queue["messages"] == 0));
}

#[test]
fn a_cut_connection_runs_nothing_twice_and_consumers_come_back() {
    let journal = folder("journal").join("journal");
    let environment = [("CONCURRENCY", "1"), ("DEMO_JOURNAL", journal.to_str().expect("a path"))];
    let mut rust = Rust::start(&environment);
    let latch = Latch::closed();
    let ids = rust.ask(&format!(
        r#"
late = send("until_late", {})
eventually(lambda: nodes("active"))
waiting = [send("work_late", 0) for _ in range(3)]
eventually(lambda: len(nodes("reserved")) == 3)
tell([late.id] + [r.id for r in waiting])"#,
        latch.args(())[0]
    ));
    rust.rabbit.cut_connections("taskgate worker");
    rust.process.wait_for_log("taking messages again", wait::DEADLINE);
    rust.process.wait_for_log("runs here, its message was delivered again", wait::DEADLINE);
    latch.open();
    let states = rust.ask(&format!("tell([app.AsyncResult(id).get(timeout=90) for id in {ids}])"));
    assert_eq!(states, json!([null, null, null, null]));
    assert_eq!(begun(&journal).values().copied().collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(rust.ask(r#"tell([nodes("ping"), send("add", 1, 1).get(timeout=90)])"#), json!([{"ok": "pong"}, 2]));
    until("everything is acknowledged", || {
        rust.rabbit.queue("rust").is_some_and(|queue| queue["messages"] == 0 && queue["messages_unacknowledged"] == 0)
    });
}

#[test]
fn tasks_that_wait_for_their_time_do_not_keep_others_out_and_go_back_at_a_stop() {
    let mut rust = Rust::start(&[("CONCURRENCY", "1"), ("PREFETCH", "1")]);
    let said = rust.ask(
        r#"
later = [send("add", n, n, countdown=600) for n in range(3)]
now = send("add", 1, 1).get(timeout=90)
soon = send("add", 2, 2, countdown=1).get(timeout=90)
tell([now, soon, len(eventually(lambda: len(nodes("scheduled")) == 3 and nodes("scheduled")))])"#,
    );
    assert_eq!(said, json!([2, 4, 3]));
    rust.process.signal(libc::SIGTERM);
    assert!(rust.process.wait(Duration::from_secs(20)).success());
    until("they are in the queue again", || depth(&rust, "rust") == 3);
}

#[test]
fn a_step_for_a_queue_that_does_not_exist_makes_it_and_a_rejected_message_is_a_dead_letter() {
    let rabbit = Rabbit::shared();
    rabbit.declare("dead", &json!({}));
    let arguments = json!({"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"});
    rabbit.declare("rust", &arguments);
    let redis = Some(Redis::start(RedisOptions::default()));
    let rust = Rust::on(rabbit, redis, &[], Value::Null);
    // Celery's clients declare a queue that they are told by its name, with the arguments of their own configuration.
    let said = rust.ask(
        r#"
from kombu import Queue
def direct(name, *args, **options):
    return app.send_task("rs." + name, args, queue=Queue("rust", no_declare=True), **options)
step = signature("rs.add", args=(1,), queue="nobody-made-this", task_id="step")
direct("add", 1, 1, link=step).get(timeout=90)
tell([failure(direct("reject"))[0]])"#,
    );
    assert_eq!(said, json!(["Reject"]));
    until("the step waits in its queue", || depth(&rust, "nobody-made-this") == 1);
    until("the rejected message is a dead letter", || depth(&rust, "dead") == 1);
}

#[test]
fn a_task_whose_next_step_rabbitmq_can_never_take_fails_with_the_reason() {
    let rust = Rust::start(&[]);
    let said = rust.ask(
        r#"
long = signature("rs.add", args=(1,), queue="é" * 200)
nowhere = signature("rs.add", args=(1,), exchange="nobody-made-this", routing_key="x")
again = send("add", 2, 2)
tell([failure(send("add", 1, 1, link=step)) for step in (long, nowhere)] + [again.get(timeout=90)])"#,
    );
    assert_eq!((&said[0][0], &said[1][0], &said[2]), (&json!("NotSent"), &json!("NotSent"), &json!(4)), "{said}");
    let told = |place: usize, text: &str| said[place][2].as_str().is_some_and(|why| why.contains(text));
    assert!(told(0, "a name of 400 bytes; RabbitMQ takes 255"), "{said}");
    assert!(told(1, "RabbitMQ has no exchange nobody-made-this"), "{said}");
    until("nothing is kept back", || {
        rust.rabbit.queue("rust").is_some_and(|queue| queue["messages"] == 0 && queue["messages_unacknowledged"] == 0)
    });
}
