//! Unmodified Celery workers and clients on the built-in server.

use serde_json::Value;

use crate::harness::celery::client;
use crate::harness::{Celery, CeleryOptions, Version};

use super::built_in::BuiltIn;

/// Submits everything at once and prints the outcomes.
const PROGRAM: &str = r#"
import json, threading, time
from celery import chain, chord, group
from celery.exceptions import TaskRevokedError

seen = set()
def listen():
    with app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": lambda event: seen.add(event["type"])})
        receiver.capture(limit=None, timeout=None, wakeup=True)
threading.Thread(target=listen, daemon=True).start()

def outcome(result):
    try:
        return result.get(timeout=90)
    except (TaskRevokedError, ValueError) as error:
        return f"{type(error).__name__}: {error}"

def until(fact):
    end = time.time() + 20
    while time.time() < end:
        if fact():
            return True
        time.sleep(0.02)
    return False

inspect = app.control.inspect(timeout=3)
assert until(lambda: inspect.ping())
app.control.enable_events()
began = time.time()
held = add.apply_async((1, 1), countdown=1)
pending = {
    "success": add.delay(1, 2),
    "failure": fail.delay("ValueError", "boom"),
    "retry": retry.delay(2, 0.05),
    "unicode": unicode.delay(),
    "progress": progress.delay(3, 0.05),
    "chain": chain(add.s(1, 2), mul.s(10), add.s(4))(),
    "group": group(add.s(n, n) for n in range(5))(),
    "chord": chord([add.s(n, n) for n in range(5)])(xsum.s()),
    "chord in a chain": chain(group(add.s(1, 1), add.s(2, 2)), xsum.s(), add.s(1))(),
    "eta": held,
}
results = {name: outcome(result) for name, result in pending.items()}
results["eta waited"] = time.time() - began >= 1
results["priorities"] = [outcome(add.apply_async((n, 0), priority=n)) for n in (0, 3, 6, 9)]
blockers = [sleep.delay(1) for _ in range(2)]
doomed = sleep.delay(60)
doomed.revoke()
results["revoked"] = outcome(doomed).split(":")[0]
long = sleep.apply_async((60,))
started = until(lambda: any(long.id in str(tasks) for tasks in (inspect.active() or {}).values()))
long.revoke(terminate=True)
results["terminated"] = started and outcome(long).split(":")[0]
results["stats"] = list((inspect.stats() or {}).keys())
results["registered"] = "demo.add" in str(inspect.registered())
results["queues"] = sorted(queue["name"] for queue in list(inspect.active_queues().values())[0])
results["control"] = app.control.rate_limit("demo.add", "1000/s", reply=True, timeout=3)[0]
results["events"] = until(lambda: {"task-received", "task-started", "task-succeeded", "task-failed", "task-retried",
                                   "task-revoked", "worker-heartbeat"} <= seen) or sorted(seen)
print(json.dumps(results))
"#;

fn does_everything(version: Version) {
    let server = BuiltIn::start();
    let (broker, backend) = (server.url(0), server.url(1));
    let settings = serde_json::json!({ "task_track_started": true });
    let worker = Celery::start_at(&broker, &backend, CeleryOptions { version, settings, ..CeleryOptions::default() });
    let printed = client(version, &broker, &backend, PROGRAM);
    let results: Value = serde_json::from_str(printed.lines().last().expect("a line")).expect("JSON");
    for (name, wanted) in [
        ("success", serde_json::json!(3)),
        ("failure", "ValueError: boom".into()),
        ("retry", 2.into()),
        ("progress", serde_json::json!({ "steps": 3 })),
        ("chain", 34.into()),
        ("group", serde_json::json!([0, 2, 4, 6, 8])),
        ("chord", 20.into()),
        ("chord in a chain", 7.into()),
        ("eta", 2.into()),
        ("eta waited", true.into()),
        ("priorities", serde_json::json!([0, 3, 6, 9])),
        ("revoked", "TaskRevokedError".into()),
        ("terminated", "TaskRevokedError".into()),
        ("stats", serde_json::json!(["w1@test"])),
        ("registered", true.into()),
        ("queues", serde_json::json!(["celery", "crawl", "document_processing", "image_analysis"])),
        ("events", true.into()),
    ] {
        assert_eq!(results[name], wanted, "{name}: {results}\n{}", worker.log());
    }
    assert!(results["unicode"].as_str().expect("a text").contains("안녕하세요"), "{results}");
    assert!(results["control"].to_string().contains("ok"), "{results}");
}

#[test]
fn the_newest_celery_does_everything_on_the_built_in_server() {
    does_everything(Version::Latest);
}

#[test]
fn the_older_celery_does_everything_on_the_built_in_server() {
    does_everything(Version::Older);
}
