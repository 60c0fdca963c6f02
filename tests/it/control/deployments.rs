//! Redis as people deploy it: passwords, users, database numbers, prefixes, a restart.

use serde_json::json;

use crate::harness::environment::{Harness, Options};
use crate::harness::postgres::cluster;
use crate::harness::{Celery, CeleryOptions, Gateway, Latch, Redis, RedisOptions, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_used_by_all() {
    let redis = RedisOptions { password: Some("geheim".into()), ..RedisOptions::default() };
    let env = Harness::start(&Options { redis, ..Options::default() });
    assert_eq!(env.run("demo.add", json!([1, 2])).await["result"], 3);
    assert!(!env.gateway.log().contains("geheim"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_other_databases_and_prefixes_work_together() {
    let redis = Redis::start(RedisOptions::default());
    redis.command::<()>(0, &["ACL", "SETUSER", "fleet", "on", ">geheim", "~*", "&*", "+@all", "-flushall"]);
    let url = |database: u8| format!("redis://fleet:geheim@127.0.0.1:{}/{database}", redis.port);
    let settings = json!({
        "broker_transport_options": {"global_keyprefix": "app:"},
        "result_backend_transport_options": {"global_keyprefix": "res"},
    });
    let _celery = Celery::start_at(&url(3), &url(4), CeleryOptions { settings, ..CeleryOptions::default() });
    let config = "[broker]\nkey_prefix = \"app:\"\n[backend]\nkey_prefix = \"res\"\n";
    let gateway = Gateway::serve(&cluster().migrated_database(), &url(3), &url(4), config);
    let http = gateway.http();
    let accepted = http.post("/v1/tasks", &json!({"task": "demo.add", "args": [1, 2]})).await.expect(202);
    let id = accepted["task_id"].as_str().expect("an id").to_owned();
    let result = eventually("it is finished", async || {
        let answer = http.get(&format!("/result/{id}")).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!(result["result"], 3);
    let pong = http.get("/v1/inspect/ping?timeout=5").await.expect(200);
    assert_eq!(pong["replies"]["w1@test"]["ok"], "pong");
    let foreign: Vec<String> = redis.command(3, &["KEYS", "*"]);
    assert!(foreign.iter().all(|key| key.starts_with("app:")), "{foreign:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_redis_later_events_are_heard() {
    let redis = RedisOptions { appendonly: true, ..RedisOptions::default() };
    let mut env = Harness::start(&Options { redis, ..Options::default() });
    env.run("demo.add", json!([1, 2])).await;
    env.redis.restart();
    let latch = Latch::closed();
    let id = env.submit("demo.until", latch.args("after")).await;
    env.in_phase(&id, "running").await;
    latch.open();
    assert_eq!(env.finished(&id).await["result"], "after");
}
