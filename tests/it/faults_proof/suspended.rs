//! When many tasks would run again at once, none does: a person decides.

use serde_json::json;

use super::{Counted, rerun};
use crate::harness::{CeleryOptions, Latch, eventually};

#[tokio::test]
async fn a_pass_that_would_run_many_again_does_none_of_it_and_says_so() {
    let celery = CeleryOptions { concurrency: 24, pool: "threads", ..CeleryOptions::default() };
    let mut world = Counted::start(celery, &rerun(&["demo.slow_step"]));
    world.worker_is_known().await;
    let latch = Latch::closed();
    let mut ids = Vec::new();
    for n in 0..24 {
        ids.push(world.env.submit("demo.slow_step", latch.args(n)).await);
    }
    for id in &ids {
        world.env.in_phase(id, "running").await;
    }
    world.env.celery.as_mut().expect("a worker").restart();
    let incident = world.incident_opens("repair-suspended", "").await;
    let detail = incident["detail"].as_str().expect("a text");
    assert!(detail.contains("24 tasks") && detail.contains("/resolve"), "{incident}");
    world.surveys(3).await;
    assert!(ids.iter().all(|id| world.runs(id) == 1));
    latch.open();
    let resolve = async |id: &str, word: &str| {
        world.env.http.post(&format!("/v1/tasks/{id}/resolve"), &json!({"as": word})).await
    };
    let answer = resolve(&ids[0], "rerun").await.expect(200);
    assert_eq!(answer["task_id"], ids[0].as_str(), "{answer}");
    assert_eq!(world.ends(&ids[0]).await["result"], 0);
    assert_eq!(world.runs(&ids[0]), 2);
    assert_eq!(resolve(&ids[1], "ignored").await.expect(200)["phase"], "ignored");
    for id in &ids[2..4] {
        assert_eq!(resolve(id, "lost").await.expect(200)["phase"], "lost");
    }
    assert_eq!(resolve(&ids[1], "lost").await.status, 409, "it has ended");
    assert_eq!(resolve(&ids[5], "something").await.status, 422);
    // Twenty are left, which is within the limit.
    for (n, id) in ids.iter().enumerate().skip(4) {
        assert_eq!(world.ends(id).await["result"], n);
        assert_eq!(world.runs(id), 2);
    }
    eventually("nothing is left that waits for a decision", async || {
        world.incident("repair-suspended", "").await.is_none().then_some(())
    })
    .await;
    let metrics = world.env.http.get("/metrics").await.text();
    assert!(metrics.contains("taskgate_repairs_total{kind=\"rerun\"} 20"), "{metrics}");
}

#[tokio::test]
async fn with_repairs_switched_off_nothing_runs_again() {
    let mut world = Counted::usual(&format!("enabled = false\n{}", rerun(&["demo.slow_step"]))).await;
    let latch = Latch::closed();
    let id = world.env.submit("demo.slow_step", latch.args(1)).await;
    world.env.in_phase(&id, "running").await;
    world.env.celery.as_mut().expect("a worker").restart();
    let incident = world.incident_opens("undecided", &id).await;
    assert!(incident["detail"].as_str().is_some_and(|why| why.contains("switched off")), "{incident}");
    world.surveys(3).await;
    assert_eq!((world.runs(&id), &world.task(&id).await["phase"]), (1, &json!("running")));
    // Ends are still recorded.
    let other = world.env.submit("demo.end_ignored", json!([])).await;
    assert_eq!(world.ends(&other).await["status"], "IGNORED");
}
