//! A ledger behind PgBouncer, in session and in transaction mode: the real one, as Debian installs it.

use serde_json::{Value, json};

use crate::harness::gateway::run;
use crate::harness::postgres::{self, cluster};
use crate::harness::{Celery, CeleryOptions, Gateway, Http, PgBouncer, Redis, RedisOptions, eventually};

const TASKS: usize = 40;

async fn succeeded(http: &Http, id: &str) {
    eventually(&format!("{id} succeeds"), async || {
        let task = http.get(&format!("/v1/tasks/{id}")).await.expect(200);
        (task["phase"] == "succeeded").then_some(())
    })
    .await;
}

fn id(answer: &Value) -> String {
    answer["task_id"].as_str().expect("an id").to_owned()
}

/// Two replicas behind one pooler: many submissions at once, a chain, a key, a schedule, a list, a revoke.
async fn works_behind(mode: &str, more: &str) {
    let redis = Redis::start(RedisOptions::default());
    let _celery = Celery::start(&redis, CeleryOptions::default());
    let direct = cluster().empty_database();
    let pgbouncer = PgBouncer::start(cluster(), mode, more);
    let url = pgbouncer.url(&direct);
    // Migrates through the pooler.
    let gateways = [(); 2].map(|()| Gateway::serve(&url, &redis.url(0), &redis.url(1), ""));
    let [one, other] = [gateways[0].http(), gateways[1].http()];
    let many = (0..TASKS).map(|n| {
        let (http, task) = (if n % 2 == 0 { &one } else { &other }, json!({"task": "demo.add", "args": [n, 1]}));
        async move { id(&http.post("/v1/tasks", &task).await.expect(202)) }
    });
    let ids = futures_util::future::join_all(many).await;
    let chain = json!({"chain": [{"task": "demo.add", "args": [1, 2]}, {"task": "demo.add", "args": [3]}]});
    let chain = one.post("/v1/tasks", &chain).await.expect(202);
    let at = (jiff::Timestamp::now() + std::time::Duration::from_secs(10)).to_string();
    let schedule = json!({"name": "once", "task": "demo.add", "args": [1, 1], "at": at});
    one.post("/v1/schedules", &schedule).await.expect(201);
    let later = id(&one.post("/v1/tasks", &json!({"task": "demo.add", "countdown": 3600})).await.expect(202));
    other.post(&format!("/v1/tasks/{later}/revoke"), &json!({})).await.expect(200);
    for id in &ids {
        succeeded(&other, id).await;
    }
    eventually("the chain has ended", async || {
        let result = other.get(&format!("/v1/tasks/{}", id(&chain))).await.expect(200);
        (result["phase"] == "succeeded").then_some(())
    })
    .await;
    eventually("the schedule fired", async || {
        let runs = other.get("/v1/schedules/once/runs").await.expect(200);
        runs["runs"][0]["task_id"].as_str().map(drop)
    })
    .await;
    // A waiting stream sees what the other replica wrote.
    let task = one.post("/v1/tasks", &json!({"task": "demo.sleep", "args": [0.5]})).await.expect(202);
    let told = other.get(&format!("/v1/tasks/{}/events", id(&task))).await.text();
    assert!(told.contains("SUCCESS"), "{told}");
    let listed = other.get("/v1/tasks?phase=succeeded&limit=200").await.expect(200);
    assert!(listed["tasks"].as_array().is_some_and(|tasks| tasks.len() >= TASKS), "{listed}");
    one.get("/readyz").await.expect(200);
    for gateway in &gateways {
        let log = gateway.log();
        assert!(!log.contains("panicked") && !log.contains("prepared statement"), "{log}");
    }
    eventually("the outbox is empty", async || {
        let left = postgres::query(&direct, "select count(*) from taskgate.outbox where wake_at < 9000000000000000000");
        (left == "0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_gateway_works_behind_pgbouncer_in_session_mode() {
    works_behind("session", "").await;
}

#[tokio::test]
async fn a_gateway_works_behind_pgbouncer_in_transaction_mode() {
    works_behind("transaction", "").await;
}

/// A setting from many guides: the pooler drops the startup parameters without an error.
#[tokio::test]
async fn a_pooler_that_swallows_parameters_is_known_as_one() {
    works_behind("transaction", "ignore_startup_parameters = extra_float_digits,options").await;
}

#[tokio::test]
async fn with_the_servers_own_address_other_replicas_are_heard_of_at_once_and_check_says_what_is_missing() {
    let redis = Redis::start(RedisOptions::default());
    let direct = cluster().migrated_database();
    let pgbouncer = PgBouncer::start(cluster(), "transaction", "");
    let url = pgbouncer.url(&direct);
    let settings = format!("[database]\ndirect_url = '{direct}'\n");
    let gateway = Gateway::serve(&url, &redis.url(0), &redis.url(1), &settings);
    gateway.http().get("/readyz").await.expect(200);
    eventually("it listens at the server itself", async || {
        let listens =
            "select count(*) from pg_stat_activity where datname = current_database() and query like 'LISTEN%'";
        (postgres::query(&direct, listens) == "1").then_some(())
    })
    .await;
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("CELERY_BROKER_URL", &redis.url(0)),
        ("CELERY_RESULT_BACKEND", &redis.url(1)),
    ];
    let checked = String::from_utf8_lossy(&run(&["check"], &environment).stdout).into_owned();
    assert!(checked.contains("connection pooler") && checked.contains("database.direct_url"), "{checked}");
}
