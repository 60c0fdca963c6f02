//! Exchanges as kombu emulates them on Redis (row R4): routes lead through direct, topic and fanout ones.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Options};
use crate::harness::{Celery, CeleryOptions, Redis, Version, eventually};

const CONFIG: &str = r#"
[exchanges.orders]
type = "topic"
bindings = [{ queue = "eu", routing_key = "order.*.eu" }, { queue = "all", routing_key = "order.#" }]
[exchanges.jobs]
bindings = [{ queue = "eu", routing_key = "k" }]
[exchanges.news]
type = "fanout"
[routes]
"demo.request_info" = { exchange = "orders", routing_key = "order.new.us" }
"demo.echo" = { exchange = "orders", routing_key = "order.new.eu" }
"demo.identity" = { exchange = "jobs", routing_key = "k" }
"demo.null" = { exchange = "news" }
"#;

/// The same exchanges in a Celery application's settings.
fn worker(version: Version, hostname: &str, pool: &'static str, queues: &str) -> CeleryOptions {
    let settings = json!({"task_queues": {
        "eu": {"exchange": "orders", "exchange_type": "topic", "routing_key": "order.*.eu"},
        "all": {"exchange": "orders", "exchange_type": "topic", "routing_key": "order.#"},
        "news-in": {"exchange": "news", "exchange_type": "fanout", "routing_key": "celery"},
    }});
    CeleryOptions {
        version,
        hostname: hostname.into(),
        pool,
        queues: queues.into(),
        settings,
        ..CeleryOptions::default()
    }
}

fn members(redis: &Redis, key: &str) -> HashSet<String> {
    redis.command(0, &["SMEMBERS", key])
}

#[tokio::test(flavor = "multi_thread")]
async fn real_workers_get_what_their_bindings_take() {
    let newest = worker(Version::Latest, "w1@test", "prefork", "eu,news-in");
    let env = Harness::start(&Options { celery: newest, config: CONFIG.into(), ..Options::default() });
    let mut second = Celery::start(&env.redis, worker(Version::Older, "w2@test", "threads", "all,news-in"));
    second.wait_for_events();
    let first = env.celery.as_ref().expect("a worker");
    // Exactly the bytes that the workers declared themselves: nothing was added to the set.
    let eu = "order.*.eu\u{6}\u{16}^order\\.[^\\.]+\\.eu$\u{6}\u{16}eu";
    let all = "order.#\u{6}\u{16}^order\\..*?$\u{6}\u{16}all";
    let both: HashSet<String> = [eu, all].map(str::to_owned).into();
    assert_eq!(members(&env.redis, "_kombu.binding.orders"), both);
    assert_eq!(members(&env.redis, "_kombu.binding_permanent.orders"), both);

    let one = env.run("demo.request_info", json!([])).await;
    assert_eq!(one["result"]["hostname"], "w2@test", "{one}");
    assert_eq!(env.run("demo.identity", json!([7])).await["result"], 7);

    let ran = |celery: &Celery, task: &str, id: &str| celery.log().contains(&format!("Task {task}[{id}] succeeded"));
    let two = env.submit("demo.echo", json!(["both"])).await;
    let everybody = env.submit("demo.null", json!([])).await;
    for (task, id) in [("demo.echo", &two), ("demo.null", &everybody)] {
        assert_eq!(env.finished(id).await["status"], "SUCCESS");
        eventually(&format!("both workers ran {task}"), async || {
            (ran(first, task, id) && ran(&second, task, id)).then_some(())
        })
        .await;
    }
    assert_eq!(env.in_phase(&two, "succeeded").await["queue"], "eu");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_copy_is_removed_by_a_revoke_and_a_canvas_of_copies_is_refused() {
    let env = Harness::start(&Options { without_worker: true, config: CONFIG.into(), ..Options::default() });
    let length = |queue: &str| env.redis.command::<i64>(0, &["LLEN", queue]);
    let id = env.submit("demo.echo", json!([1])).await;
    env.in_phase(&id, "queued").await;
    assert_eq!((length("eu"), length("all")), (1, 1));
    let tag = |queue: &str| {
        let text: String = env.redis.command(0, &["LINDEX", queue, "0"]);
        let message: Value = serde_json::from_str(&text).expect("an envelope");
        message["properties"]["delivery_tag"].clone()
    };
    assert_ne!(tag("eu"), tag("all"), "two messages with one tag cannot both be put back");
    let verdict = env.http.post(&format!("/v1/tasks/{id}/revoke"), &json!({})).await.expect(200);
    assert_eq!(verdict["verdict"], "prevented", "{verdict}");
    assert_eq!((length("eu"), length("all")), (0, 0));

    // A worker has taken one of them, so nobody can promise that it will not run.
    let id = env.submit("demo.echo", json!([2])).await;
    env.in_phase(&id, "queued").await;
    env.redis.command::<String>(0, &["RPOP", "all"]);
    let verdict = env.http.post(&format!("/v1/tasks/{id}/revoke"), &json!({})).await.expect(200);
    assert_eq!(verdict["verdict"], "signalled", "{verdict}");

    for canvas in [
        json!({"chain": [{"task": "demo.add", "args": [1, 1]}, {"task": "demo.echo"}]}),
        json!({"group": [{"task": "demo.null"}, {"task": "demo.null"}]}),
    ] {
        let problem = env.http.post("/v1/tasks", &canvas).await.problem(422, "invalid-request");
        assert!(problem["errors"][0]["detail"].as_str().is_some_and(|text| text.contains("exchange")), "{problem}");
    }
}
