//! Tasks that kill their workers: every delivery is counted, and their number is limited.

use serde_json::json;

use super::{Counted, SETTLED, rerun};
use crate::harness::wait::within;
use crate::harness::{CeleryOptions, Latch};

#[tokio::test]
async fn a_task_that_kills_its_process_is_delivered_five_times_and_no_more() {
    let world = Counted::usual("").await;
    let id = world.env.submit("demo.poison", json!([0.5])).await;
    let incident = world.incident_opens("repeated_delivery", &id).await;
    assert!(incident["detail"].as_str().is_some_and(|detail| detail.contains("demo.poison")), "{incident}");
    let result = world.ends(&id).await;
    assert_eq!((&result["status"], &result["error"]["type"]), (&json!("FAILURE"), &json!("PoisonTask")), "{result}");
    assert_eq!(world.runs(&id), 5, "{:#?}", world.env.history(&id).await);
    assert!(world.is_dead_letter(&id).await);
    let nothing = |command: &[&str]| world.env.redis.command::<i64>(0, command) == 0;
    assert!(nothing(&["HLEN", "unacked"]) && nothing(&["LLEN", "celery"]), "its message is gone");
    world.surveys(3).await;
    assert_eq!(world.runs(&id), 5);
}

#[tokio::test]
async fn a_catalog_entry_says_how_often_its_task_may_be_delivered() {
    let world = Counted::usual("[[tasks]]\nname = 'demo.poison'\nmax_deliveries = 2\n").await;
    let id = world.env.submit("demo.poison", json!([0.5])).await;
    let result = world.ends(&id).await;
    assert_eq!(result["error"]["type"], "PoisonTask", "{result}");
    assert_eq!(world.runs(&id), 2);
}

/// The whole worker dies each time, and its supervisor starts it again.
#[tokio::test]
async fn a_task_whose_policy_is_rerun_is_not_run_for_ever() {
    let mut world = Counted::usual(&format!("max_deliveries = 3\n{}", rerun(&["demo.slow_step"]))).await;
    let latch = Latch::closed();
    let id = world.env.submit("demo.slow_step", latch.args(1)).await;
    for run in 1..=3 {
        within(SETTLED, &format!("it runs for the {run}. time"), async || (world.runs(&id) >= run).then_some(())).await;
        world.env.in_phase(&id, "running").await;
        world.env.celery.as_mut().expect("a worker").restart();
    }
    let result = world.ends(&id).await;
    assert_eq!(result["error"]["type"], "PoisonTask", "{result}");
    assert_eq!(world.runs(&id), 3);
}

/// kombu's decoder gives a meaning to some JSON, and refuses what it does not know.
#[tokio::test]
async fn what_a_worker_could_not_decode_is_refused_with_its_place() {
    let world = Counted::start(CeleryOptions::default(), "");
    let unknown = json!({"task": "demo.identity", "args": [1, {"x": [{"__type__": "nosuch", "__value__": 1}]}]});
    let problem = world.env.http.post("/v1/tasks", &unknown).await.expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "/args/1/x/0", "{problem}");
    let wrong = json!({"task": "demo.identity", "kwargs": {"value": {"__type__": "uuid", "__value__": {"hex": "no"}}}});
    let problem = world.env.http.post("/v1/tasks", &wrong).await.expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "/kwargs/value", "{problem}");
    let fine = json!({"task": "demo.identity", "args": [{"__type__": "datetime", "__value__": "2026-11-30T10:00:00"}]});
    let id = world.env.submit_signature(fine).await;
    assert_eq!(world.ends(&id).await["status"], "SUCCESS");
}
