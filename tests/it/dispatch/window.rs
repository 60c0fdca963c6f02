//! The window of a queue: few messages are in the broker; the other tasks wait in the ledger, in order, where a revoke is certain.

use serde_json::json;

use super::{explained, finished, most_in_broker, reached, received, worker};
use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::rabbit::On;
use crate::harness::wait::{DEADLINE, within};
use crate::harness::{Latch, eventually};

const WINDOW: &str = "[queues.celery]\nwindow = 5\n";

fn alone(broker: On, config: &str) -> Options {
    Options { broker, config: config.into(), without_worker: true, ..Options::default() }
}

async fn submit(http: &crate::harness::Http, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        let accepted = http.post("/v1/tasks", &json!({"task": "demo.identity", "args": [n]})).await.expect(202);
        assert_eq!(accepted["phase"], "accepted", "{accepted}");
        ids.push(accepted["task_id"].as_str().expect("an id").to_owned());
    }
    ids
}

async fn published(env: &Lent<Box<Harness>>, count: usize) -> Vec<String> {
    within(DEADLINE, &format!("{count} are in the broker"), async || {
        let published = reached(env, "queued");
        (published.len() == count).then(|| published.into_iter().map(|(id, _)| id).collect())
    })
    .await
}

/// Counts the messages in the broker and the waiting tasks, before and after workers start.
async fn only_the_window(broker: On) {
    let mut env = Harness::start(&alone(broker, WINDOW));
    let ids = submit(&env.http, 12).await;
    assert_eq!(published(&env, 5).await, ids[..5], "first come, first served");
    let why = explained(&env.http, &ids[7], "for room in celery").await;
    let evidence = &why["evidence"];
    assert_eq!((&evidence["window"], &evidence["in_broker"], &evidence["ahead"]), (&json!(5), &json!(5), &json!(2)));
    let revoked = env.http.post(&format!("/v1/tasks/{}/revoke", ids[11]), &json!({})).await.expect(200);
    assert_eq!((&revoked["verdict"], &revoked["confirmed"]), (&json!("prevented"), &json!(true)), "{revoked}");
    // With one slot tasks end in the order in which they were taken.
    env.start_worker(worker(1));
    for id in &ids[..11] {
        assert_eq!(env.finished(id).await["status"], "SUCCESS");
    }
    assert_eq!(finished(&env), ids[..11]);
    let most = most_in_broker(&env, "celery");
    assert!(most <= 5, "{most} at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_window_is_in_redis_and_the_rest_is_revoked_for_certain() {
    only_the_window(On::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_window_is_in_rabbitmq_and_the_rest_is_revoked_for_certain() {
    only_the_window(On::Rabbit).await;
}

/// Two gateways, one of them killed while tasks wait: the window holds for both together, and nothing is lost or done twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_a_window_and_a_restart_keeps_it() {
    let mut env = Harness::start(&alone(On::Redis, WINDOW));
    let other = env.replica(WINDOW);
    let mut ids = Vec::new();
    for n in 0..30 {
        let http = if n % 2 == 0 { env.http.clone() } else { other.http() };
        ids.extend(submit(&http, 1).await);
    }
    assert_eq!(published(&env, 5).await.len(), 5);
    env.gateway.kill();
    env.start_worker(worker(2));
    env.gateway.restart();
    for id in &ids {
        assert_eq!(env.finished(id).await["status"], "SUCCESS");
    }
    assert_eq!(reached(&env, "succeeded").len(), ids.len(), "each once");
    let most = most_in_broker(&env, "celery");
    assert!(most <= 5, "{most} at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_stops_the_release_and_a_resume_goes_on() {
    let env = Harness::start(&alone(On::Redis, "[queues.celery]\nwindow = 2\n"));
    let ids = submit(&env.http, 4).await;
    published(&env, 2).await;
    env.http.post("/v1/queues/celery/pause", &json!({})).await.expect(200);
    explained(&env.http, &ids[2], "its queue is paused").await;
    env.http.post("/v1/queues/celery/purge", &json!({})).await.expect(200);
    env.finished(&ids[0]).await;
    // A task of another queue is published meanwhile, so the relay has made a pass.
    let beside = env.submit_signature(json!({"task": "demo.add", "args": [1, 1], "queue": "beside"})).await;
    env.in_phase(&beside, "queued").await;
    explained(&env.http, &ids[2], "its queue is paused").await;
    env.http.post("/v1/queues/celery/resume", &json!({})).await.expect(200);
    env.in_phase(&ids[2], "queued").await;
    env.in_phase(&ids[3], "queued").await;
}

/// A worker is often faster than the end of the pass that published the message: nothing waits for the next poll because of that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_that_is_taken_makes_room_without_a_poll() {
    let config = "[queues.celery]\nwindow = 1\n";
    let env = Harness::start(&Options { config: config.into(), celery: worker(1), ..Options::default() });
    let call = json!({"task": "demo.null", "args": [1]});
    env.http.post("/v1/tasks/batch", &json!(vec![&call; 120])).await.expect(202);
    within(DEADLINE, "all have ended", async || (finished(&env).len() == 120).then_some(())).await;
    let metrics = env.http.get("/metrics").await.text();
    assert!(metrics.contains("taskgate_fallback_polls_total{service=\"relay\"} 0"), "{metrics}");
}

/// The only process has the first; the others wait, and leave by priority.
async fn strict_priority(broker: On, order: [u8; 4]) {
    let config = "[queues.celery]\nwindow = 1\n";
    let celery = worker(1);
    let env = Harness::start(&Options { broker, config: config.into(), celery, ..Options::default() });
    let latch = Latch::closed();
    let first = env.submit_signature(json!({"task": "demo.until", "args": latch.args(())})).await;
    env.in_phase(&first, "running").await;
    // A task that the worker has reserved or that is in the broker was released before the others arrived.
    let mut before = vec![first];
    for _ in 0..2 {
        let id = env.submit_signature(json!({"task": "demo.identity", "args": [0]})).await;
        let path = format!("/v1/tasks/{id}");
        eventually("it was published", async || {
            (env.http.get(&path).await.expect(200)["phase"] != "accepted").then_some(())
        })
        .await;
        before.push(id);
    }
    let mut waiting = std::collections::HashMap::new();
    for priority in [5_u8, 9, 0, 3] {
        let signature = json!({"task": "demo.identity", "args": [priority], "priority": priority});
        waiting.insert(priority, env.submit_signature(signature).await);
    }
    explained(&env.http, &waiting[&order[3]], "for room in celery").await;
    latch.open();
    for id in waiting.values() {
        env.finished(id).await;
    }
    let order = order.map(|priority| waiting[&priority].clone());
    let received: Vec<String> = received(&env).into_iter().filter(|id| order.contains(id)).collect();
    assert_eq!(received, order);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn priority_is_strict_among_those_who_wait_before_redis() {
    strict_priority(On::Redis, [0, 3, 5, 9]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn priority_is_strict_among_those_who_wait_before_rabbitmq() {
    strict_priority(On::Rabbit, [9, 5, 3, 0]).await;
}
