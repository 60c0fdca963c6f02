//! A ledger or a Redis that answers but takes no writes: `/readyz`, an incident and `check` report it at once, with a remedy.

use serde_json::Value;

use crate::harness::gateway::run;
use crate::harness::postgres::{self, Cluster, cluster};
use crate::harness::{Gateway, Http, Redis, RedisOptions, eventually};

/// The detail of an incident that is open.
async fn told(http: &Http, kind: &str) -> String {
    eventually(&format!("{kind} is an incident"), async || {
        let all = http.get("/v1/incidents").await.expect(200);
        let one = all["incidents"].as_array()?.iter().find(|one| one["kind"] == kind)?.clone();
        one["detail"].as_str().map(str::to_owned)
    })
    .await
}

async fn is_over(http: &Http, kind: &str) {
    eventually(&format!("{kind} is over"), async || {
        let all = http.get("/v1/incidents").await.expect(200);
        all["incidents"].as_array()?.iter().all(|one| one["kind"] != kind).then_some(())
    })
    .await;
}

/// The body of `/readyz` as soon as it has this status and this word for one dependency.
async fn ready(http: &Http, status: u16, what: &str, word: &str) -> Value {
    eventually(&format!("/readyz is {status}, {what} {word}"), async || {
        let answer = http.get("/readyz").await;
        (answer.status == status && answer.json()[what] == word).then(|| answer.json())
    })
    .await
}

fn check(database: &str, broker: &str, backend: &str) -> String {
    let environment = [("DATABASE_URL", database), ("CELERY_BROKER_URL", broker), ("CELERY_RESULT_BACKEND", backend)];
    String::from_utf8_lossy(&run(&["check"], &environment).stdout).into_owned()
}

#[tokio::test]
async fn a_ledger_that_became_read_only_is_not_ready_and_says_what_helps() {
    let own = Cluster::start();
    let redis = Redis::start(RedisOptions::default());
    let database = own.empty_database();
    let gateway = Gateway::serve(&database, &redis.url(0), &redis.url(1), "");
    let http = gateway.http();
    postgres::query(&own.url("postgres"), "alter system set default_transaction_read_only = on");
    postgres::query(&own.url("postgres"), "select pg_reload_conf()");
    let view = ready(&http, 503, "ledger", "down").await;
    let reason = view["reasons"][0].as_str().expect("a reason");
    assert!(reason.contains("read-only transaction") && reason.contains("pg_is_in_recovery"), "{view}");
    assert!(told(&http, "ledger_down").await.contains("read-only"));
    let checked = check(&database, &redis.url(0), &redis.url(1));
    assert!(checked.contains("problem  the ledger") && checked.contains("takes no writes"), "{checked}");
    // A session that may write in spite of the default.
    postgres::query(
        &format!("{}?options=-c%20default_transaction_read_only%3Doff", own.url("postgres")),
        "alter system reset default_transaction_read_only",
    );
    postgres::query(&own.url("postgres"), "select pg_reload_conf()");
    ready(&http, 200, "ledger", "up").await;
    is_over(&http, "ledger_down").await;
}

#[tokio::test]
async fn a_redis_that_became_a_replica_or_is_full_is_down_and_tasks_are_accepted() {
    let redis = Redis::start(RedisOptions::default());
    let gateway = Gateway::serve(&cluster().migrated_database(), &redis.url(0), &redis.url(1), "");
    let http = gateway.http();
    ready(&http, 200, "redis", "up").await;
    let cases = [
        ("REPLICAOF 127.0.0.1 1", "replica", "REPLICAOF NO ONE"),
        ("CONFIG SET maxmemory 1", "full", "CONFIG SET maxmemory 0"),
    ];
    for (hurt, word, heal) in cases {
        redis.command::<()>(0, &hurt.split(' ').collect::<Vec<_>>());
        let view = ready(&http, 200, "redis", "down").await;
        assert!(view["reasons"][0].as_str().is_some_and(|reason| reason.contains(word)), "{view}");
        assert!(told(&http, "redis_down").await.contains(word));
        http.post("/v1/tasks", &serde_json::json!({"task": "demo.add"})).await.expect(202);
        redis.command::<()>(0, &heal.split(' ').collect::<Vec<_>>());
        ready(&http, 200, "redis", "up").await;
        is_over(&http, "redis_down").await;
    }
}

#[tokio::test]
async fn a_user_that_may_not_write_our_keys_is_told_and_the_command_is_named() {
    let redis = Redis::start(RedisOptions::default());
    redis.command::<()>(0, &["ACL", "SETUSER", "narrow", "on", ">word", "~other*", "&*", "+@all"]);
    let url = |database| format!("redis://narrow:word@127.0.0.1:{}/{database}", redis.port);
    let database = cluster().migrated_database();
    let gateway = Gateway::serve(&database, &url(0), &url(1), "");
    let view = ready(&gateway.http(), 200, "redis", "down").await;
    assert!(view["reasons"][0].as_str().is_some_and(|reason| reason.contains("ACL SETUSER")), "{view}");
    let checked = check(&database, &url(0), &url(1));
    assert!(checked.contains("problem  the broker") && checked.contains("ACL GETUSER"), "{checked}");
}

#[tokio::test]
async fn a_redis_that_drops_what_it_was_given_is_an_incident() {
    let redis = Redis::start(RedisOptions::default());
    let database = cluster().migrated_database();
    let gateway = Gateway::serve(&database, &redis.url(0), &redis.url(1), "");
    let http = gateway.http();
    redis.command::<()>(0, &["CONFIG", "SET", "maxmemory", "64mb"]);
    redis.command::<()>(0, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    assert!(told(&http, "redis_evicts").await.contains("maxmemory-policy noeviction"));
    let checked = check(&database, &redis.url(0), &redis.url(1));
    assert!(checked.contains("maxmemory-policy is allkeys-lru"), "{checked}");
    redis.command::<()>(0, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    is_over(&http, "redis_evicts").await;
}
