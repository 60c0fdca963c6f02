//! Fleets whose broker and results are in one database of Redis, and the queue names of the systems that taskgate serves.

use serde_json::json;

use crate::harness::{Celery, CeleryOptions, Gateway, Redis, RedisOptions, postgres};

/// The queues of five deployments, as their workers name them.
const QUEUES: [&str; 11] = [
    "celery",
    "crawl",
    "default",
    "document_processing",
    "chat_processing",
    "heavy",
    "light",
    "urgent",
    "user_service",
    "image_analysis",
    "email.batch-1",
];

#[tokio::test]
async fn broker_and_results_share_a_database_and_every_queue_is_served() {
    let redis = Redis::start(RedisOptions::default());
    let url = redis.url(0);
    let options = CeleryOptions { queues: QUEUES.join(","), ..CeleryOptions::default() };
    let _worker = Celery::start_at(&url, &url, options);
    let database = postgres::cluster().migrated_database();
    let gateway = Gateway::serve(&database, &url, &url, "");
    let http = gateway.http();
    for queue in QUEUES {
        let call = json!({"task": "demo.identity", "args": [queue], "queue": queue});
        let done = http.post_with("/v1/tasks", &[("prefer", "wait=60")], &call).await.expect(200);
        assert_eq!(done["result"], json!(queue), "{done}");
    }
    let header = json!([{"task": "demo.add", "args": [1, 2]}, {"task": "demo.add", "args": [3, 4]}]);
    let chord = json!({"header": header, "body": {"task": "demo.identity", "queue": "heavy"}});
    let done = http.post_with("/chord", &[("prefer", "wait=60")], &chord).await.expect(200);
    assert_eq!(done["result"], json!([3, 7]), "{done}");
}

#[test]
fn a_headers_exchange_is_refused_with_the_reason() {
    let entry = "[exchanges.pick]\ntype = 'headers'\n";
    let mut gateway = Gateway::launch("sqlite://x.db", "redis://127.0.0.1:1/0", "redis://127.0.0.1:1/1", entry);
    let code = gateway.wait(std::time::Duration::from_secs(60));
    assert!(code.is_some_and(|code| code != 0), "{code:?}");
    let log = gateway.log();
    assert!(log.contains("exchanges.pick") && log.contains("kombu knows no headers exchange"), "{log}");
}
