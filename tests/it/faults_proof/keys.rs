//! One key of the wrong type, or one silent worker, does not affect anything else, and an incident says what is not covered.

use serde_json::json;

use super::Counted;
use crate::harness::{CeleryOptions, eventually};

/// kombu's own key of reserved messages: every Python worker fails at it, and it is unknown what is reserved.
#[tokio::test]
async fn what_may_be_reserved_is_left_alone_while_the_key_of_reservations_is_wrong() {
    let world = Counted::start_without("");
    let before = world.env.submit("demo.work", json!([])).await;
    world.phase(&before, "queued").await;
    world.env.redis.command::<String>(0, &["SET", "unacked", "mine"]);
    let said = world.incident_opens("wrong_key", "unacked").await;
    assert!(said["detail"].as_str().is_some_and(|text| text.contains("hash")), "{said}");
    // Its list is gone as well, so a worker may have taken it, and it is left alone.
    world.env.redis.command::<i64>(0, &["DEL", "celery"]);
    world.surveys(3).await;
    assert_eq!(world.task(&before).await["phase"], "queued");
    assert_eq!(world.env.redis.command::<i64>(0, &["EXISTS", "celery"]), 0, "{}", world.env.gateway.log());
    // Submissions go on, and queues are shown.
    let later = world.env.submit("demo.work", json!([])).await;
    world.phase(&later, "queued").await;
    assert_eq!(world.env.http.get("/v1/queues").await.status, 200);
    world.env.redis.command::<i64>(0, &["DEL", "unacked"]);
    eventually("the incident is over", async || world.incident("wrong_key", "unacked").await.is_none().then_some(()))
        .await;
    let worker = world.second_worker(CeleryOptions::default());
    assert_eq!(world.ends(&later).await["status"], "SUCCESS");
    assert_eq!(world.runs(&later), 1, "{}", worker.log());
}

#[tokio::test]
async fn a_worker_that_answers_nothing_is_named_with_what_to_change() {
    let settings = json!({"accept_content": ["pickle"]});
    let world = Counted::start_deaf(CeleryOptions { settings, ..CeleryOptions::default() }, "");
    let said = world.incident_opens("deaf_worker", "w1@test").await;
    let detail = said["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("accept_content") && detail.contains("worker_enable_remote_control"), "{said}");
    let workers = world.env.http.get("/v1/workers").await.expect(200);
    assert_eq!(workers["workers"][0]["trouble"], detail, "{workers}");
}
