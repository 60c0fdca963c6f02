//! Explanations: one sentence and its evidence for every phase, on both ledgers.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::process::folder;
use crate::harness::wait::within;
use crate::harness::{Celery, CeleryOptions, Gateway, Http, Redis, RedisOptions, postgres};

const QUICK: &str = "[sweeper]\nperiod = '1s'\ngrace = '500ms'\nworker_lost_after = '4s'\n";
const PATIENCE: Duration = Duration::from_secs(120);

struct Scene {
    http: Http,
    gateway: Gateway,
    redis: Redis,
    celery: Celery,
}

impl Scene {
    fn build(database: &str) -> Self {
        let redis = Redis::start(RedisOptions::default());
        let options = CeleryOptions { concurrency: 1, ..CeleryOptions::default() };
        let mut celery = Celery::launch(&redis.url(0), &redis.url(1), options);
        let gateway = Gateway::serve(database, &redis.url(0), &redis.url(1), QUICK);
        celery.wait_until_ready();
        celery.wait_for_events();
        Self { http: gateway.http(), gateway, redis, celery }
    }

    async fn submit(&self, signature: Value) -> String {
        let accepted = self.http.post("/v1/tasks", &signature).await.expect(202);
        accepted["task_id"].as_str().expect("an id").to_owned()
    }

    /// Waits until the explanation is of `phase` and says `words`; returns its evidence.
    async fn says(&self, id: &str, phase: &str, words: &str) -> Value {
        let mut last = Value::Null;
        let path = format!("/v1/tasks/{id}/explain");
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.http.get(&path).await.expect(200);
                if last["phase"] == phase && last["sentence"].as_str().is_some_and(|said| said.contains(words)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        assert!(found.is_ok(), "{phase}, {words:?}: {last}\n{}", self.gateway.log());
        last["evidence"].clone()
    }

    async fn worker_is_known(&self) {
        within(PATIENCE, "the worker's queues and pool are known", async || {
            let workers = self.http.get("/v1/workers").await.expect(200);
            let worker = &workers["workers"][0];
            (worker["pool"] == "prefork" && worker["queues"].as_array().is_some_and(|list| !list.is_empty()))
                .then_some(())
        })
        .await;
    }
}

async fn explains_every_phase(mut scene: Scene) {
    let add = |queue: &str| json!({"task": "demo.add", "args": [1, 2], "queue": queue});
    scene.worker_is_known().await;
    ends(&scene).await;

    // The worker retries one task, runs one, and has reserved some; the rest waits in the queue.
    let retrying = scene.submit(json!({"task": "demo.retry", "args": [1, 60]})).await;
    let evidence = scene.says(&retrying, "retrying", "Attempt 1 failed on w1@test").await;
    assert!(evidence["heartbeat_age_seconds"].is_number(), "{evidence}");
    let running = scene.submit(json!({"task": "demo.sleep", "args": [600]})).await;
    let evidence = scene.says(&running, "running", "s on w1@test (seen").await;
    assert_eq!((&evidence["worker"], &evidence["worker_online"]), (&json!("w1@test"), &json!(true)), "{evidence}");
    let mut behind = Vec::new();
    for _ in 0..10 {
        behind.push(scene.submit(add("celery")).await);
    }
    scene.says(&behind[0], "received", "has not started it").await;
    let evidence = scene.says(&behind[9], "queued", "messages").await;
    assert!(evidence["position"].as_i64().is_some_and(|place| place >= 1), "{evidence}");
    assert!(evidence["age_seconds"].is_number() && evidence["consumers"] == json!(["w1@test"]), "{evidence}");

    let nobody = scene.submit(add("crawll")).await;
    let evidence = scene.says(&nobody, "queued", "no worker that is online serves that queue. Is crawl meant?").await;
    assert_eq!(evidence["nearest_queue"], "crawl", "{evidence}");
    let held = scene.submit(json!({"task": "demo.add", "args": [1, 2], "countdown": 600})).await;
    scene.says(&held, "held", "It is held until 20").await;
    scene.http.post("/v1/queues/document_processing/pause", &json!({})).await.expect(200);
    let paused = scene.submit(add("document_processing")).await;
    scene.says(&paused, "held", "its queue is paused").await;
    let chain = json!({"tasks": [add("crawll"), {"task": "demo.add", "args": [1]}]});
    let chain = scene.http.post("/chain", &chain).await.expect(202);
    // The end of the chain explains itself by the beginning, so that must be on its way first.
    let last = chain["task_id"].as_str().expect("an id");
    let children = chain["children"].as_array().expect("both tasks");
    let first = children.iter().filter_map(|child| child["task_id"].as_str()).find(|id| *id != last).expect("one more");
    scene.says(first, "queued", "no worker that is online serves that queue").await;
    let evidence = scene.says(last, "waiting", "It waits for demo.add").await;
    assert_eq!(evidence["predecessors"][0]["phase"], "queued", "{evidence}");
    let missing = scene.http.get("/v1/tasks/nobody-knows-it/explain").await;
    assert_eq!(missing.status, 404);

    scene.celery.kill();
    scene.says(&running, "lost", "w1@test had it and is gone").await;
    scene.redis.kill();
    let waits = scene.submit(add("celery")).await;
    let evidence = scene.says(&waits, "accepted", "when Redis answers again").await;
    assert!(evidence["outbox"].is_number() && evidence["redis"] == "down", "{evidence}");
}

/// Those that have ended.
async fn ends(scene: &Scene) {
    let done = scene.submit(json!({"task": "demo.add", "args": [1, 2]})).await;
    scene.says(&done, "succeeded", "It succeeded at 20").await;
    let failed = scene.submit(json!({"task": "demo.fail", "args": ["ValueError", "boom"]})).await;
    scene.says(&failed, "failed", "ValueError: boom").await;
    let revoked = scene.submit(json!({"task": "demo.add", "args": [1, 2], "countdown": 600})).await;
    scene.http.post(&format!("/v1/tasks/{revoked}/revoke"), &json!({"reason": "not wanted"})).await.expect(200);
    scene.says(&revoked, "revoked", "not wanted").await;
    let expired = json!({"task": "demo.add", "args": [1, 2], "countdown": 600, "expires": 1});
    let expired = scene.submit(expired).await;
    scene.says(&expired, "expired", "expires passed before it was published").await;
    let branch = json!({"task": "demo.add", "args": [1, 2], "link_error": [{"task": "demo.on_error"}]});
    let accepted = scene.http.post("/v1/tasks", &branch).await.expect(202);
    let graph = scene.http.get(&format!("/v1/tasks/{}/graph", accepted["task_id"].as_str().expect("an id"))).await;
    let graph = graph.expect(200);
    let errback = graph["nodes"].as_array().expect("nodes").iter().find(|node| node["task"] == "demo.on_error");
    let errback = errback.and_then(|node| node["task_id"].as_str()).expect("the errback is a node").to_owned();
    scene.says(&errback, "skipped", "Its branch was not taken").await;
}

#[tokio::test]
async fn every_phase_is_explained_on_postgresql() {
    explains_every_phase(Scene::build(&postgres::cluster().migrated_database())).await;
}

#[tokio::test]
async fn every_phase_is_explained_on_sqlite() {
    let path = folder("explain").join("ledger.db");
    explains_every_phase(Scene::build(&format!("sqlite://{}", path.display()))).await;
}
