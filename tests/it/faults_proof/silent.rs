//! Workers that report nothing, or answer nothing: their silence alone never makes a task run again.

use serde_json::json;

use super::{Counted, eventless, rerun};
use crate::harness::{CeleryOptions, Latch};

#[tokio::test]
async fn what_a_worker_without_events_took_runs_once() {
    let world = Counted::start_deaf(eventless(), &rerun(&["demo.unrecorded", "demo.slow_step", "demo.end_ignored"]));
    world.worker_is_known().await;
    let unrecorded = world.env.submit("demo.unrecorded", json!([])).await;
    let ignored = world.env.submit("demo.end_ignored", json!([])).await;
    let latch = Latch::closed();
    let slow = world.env.submit("demo.slow_step", latch.args("kept")).await;
    world.has_begun(&slow).await;
    for id in [&unrecorded, &ignored] {
        let result = world.ends(id).await;
        assert_eq!((&result["status"], &result["failed"]), (&json!("IGNORED"), &json!(false)), "{result}");
        assert_eq!(world.runs(id), 1, "{}", world.env.gateway.log());
        let sentence = world.explained(id).await;
        assert!(sentence.contains("w1@test") && sentence.contains("--without-"), "{sentence}");
    }
    // It answers questions, so its running tasks are known.
    world.phase(&slow, "running").await;
    latch.open();
    assert_eq!(world.ends(&slow).await["result"], "kept");
    assert_eq!(world.runs(&slow), 1);
}

/// It sends heartbeats and no task events, and answers nothing.
#[tokio::test]
async fn a_worker_without_remote_control_leaves_nothing_queued_for_ever() {
    let settings = json!({"worker_enable_remote_control": false});
    let world = Counted::start_deaf(CeleryOptions { settings, ..CeleryOptions::default() }, "");
    let stored = world.env.submit("demo.add", json!([1, 2])).await;
    let unrecorded = world.env.submit("demo.unrecorded", json!([])).await;
    assert_eq!(world.ends(&stored).await["result"], 3);
    assert_eq!(world.ends(&unrecorded).await["status"], "IGNORED");
    assert_eq!(world.runs(&unrecorded), 1);
}

/// It refuses JSON, and drops such messages.
#[tokio::test]
async fn a_message_that_a_worker_drops_on_arrival_ends() {
    let settings = json!({"accept_content": ["pickle"]});
    let world = Counted::start_deaf(CeleryOptions { settings, ..CeleryOptions::default() }, "");
    let id = world.env.submit("demo.unrecorded", json!([])).await;
    let result = world.ends(&id).await;
    assert_eq!(result["status"], "IGNORED", "{result}");
    assert_eq!((world.runs(&id), world.env.history(&id).await.len()), (0, 3), "delivered once");
}
