//! The gateway is killed at every crash point of a submission, or PostgreSQL is; afterwards every 202 has exactly one message (P1, P2).

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::postgres::Cluster;
use crate::harness::{Gateway, Redis, RedisOptions, eventually, gateway, ports, postgres};

/// Concurrent requests when the process dies.
const REQUESTS: usize = 60;
const LISTS: [&str; 4] = ["celery", "celery\u{6}\u{16}3", "celery\u{6}\u{16}6", "celery\u{6}\u{16}9"];

/// Ids of the tasks in the default queue, one per message.
fn messages(redis: &Redis) -> Vec<String> {
    let all = LISTS.iter().flat_map(|list| redis.command::<Vec<String>>(0, &["LRANGE", list, "0", "-1"]));
    let id = |text: String| {
        let message: Value = serde_json::from_str(&text).expect("a message is JSON");
        message["headers"]["id"].as_str().expect("an id").to_owned()
    };
    all.map(id).collect()
}

fn counted(ids: Vec<String>) -> HashMap<String, usize> {
    ids.into_iter().fold(HashMap::new(), |mut counts, id| {
        *counts.entry(id).or_default() += 1;
        counts
    })
}

/// Submits batches of tasks until the gateway is killed; returns the ids that were answered 202.
async fn submit_until_death(gateway: &mut Gateway) -> Vec<String> {
    let mut accepted = Vec::new();
    while !gateway.has_ended() {
        accepted.extend(submit_some(gateway).await);
    }
    accepted
}

async fn submit_some(gateway: &Gateway) -> Vec<String> {
    let http = gateway.http();
    let submissions = (0..REQUESTS).map(|n| {
        let http = http.clone();
        let body = json!({"task": "demo.add", "args": [n, n]}).to_string().into_bytes();
        async move {
            let headers = [("content-type", "application/json")];
            let answer = http.try_send(reqwest::Method::POST, "/v1/tasks", &headers, Some(body)).await.ok()?;
            (answer.status == 202).then(|| answer.json()["task_id"].as_str().expect("an id").to_owned())
        }
    });
    futures_util::future::join_all(submissions).await.into_iter().flatten().collect()
}

/// Kills a gateway at `point`, starts another one on the same ledger and waits until it has published everything.
async fn killed_at(point: &str) {
    let redis = Redis::start(RedisOptions::default());
    let database = postgres::cluster().migrated_database();
    let port = ports::free();
    let config = gateway::config(port, &database, &redis.url(0), &redis.url(1), "");
    let mut first = Gateway::start(&["serve"], port, Some(&config), &[("TASKGATE_CRASH_AT", point)]);
    first.wait_until_ready();
    let accepted = submit_until_death(&mut first).await;
    assert_eq!(first.wait(Duration::from_secs(20)), None, "{point}: it was to die of a signal\n{}", first.log());
    let second = Gateway::serve(&database, &redis.url(0), &redis.url(1), "");
    let question =
        "select count(*) filter (where phase <> 'queued'), count(*) from taskgate.tasks where queue = 'celery'";
    let tasks: usize = eventually("everything in the ledger is published", async || {
        let told = postgres::query(&database, question);
        told.strip_prefix("0|").map(|all| all.parse().expect("a number"))
    })
    .await;
    let counts = counted(messages(&redis));
    for id in &accepted {
        assert_eq!(counts.get(id), Some(&1), "{point}: messages of the accepted task {id}\n{}", second.log());
    }
    // A task that was committed without an answer is a task like any other.
    assert_eq!(counts.len(), tasks, "{point}: one message for each task of the ledger");
    assert!(counts.values().all(|count| *count == 1), "{point}: {counts:?}");
}

#[tokio::test]
async fn killed_before_the_commit() {
    killed_at("before_commit:3").await;
}

#[tokio::test]
async fn killed_after_the_commit() {
    killed_at("after_commit:3").await;
}

#[tokio::test]
async fn killed_between_push_and_bookkeeping() {
    killed_at("after_push:2").await;
}

#[tokio::test]
async fn killed_with_half_a_batch_in_the_broker() {
    killed_at("half_batch").await;
}

#[tokio::test]
async fn killed_before_the_markers_go() {
    killed_at("after_bookkeeping:2").await;
}

#[tokio::test]
async fn killed_twice_in_a_row_at_the_same_place() {
    let redis = Redis::start(RedisOptions::default());
    let database = postgres::cluster().migrated_database();
    let mut accepted = Vec::new();
    for _ in 0..2 {
        let port = ports::free();
        let config = gateway::config(port, &database, &redis.url(0), &redis.url(1), "");
        let mut dying = Gateway::start(&["serve"], port, Some(&config), &[("TASKGATE_CRASH_AT", "after_push:1")]);
        // Rows that the previous process left in the outbox may kill it before it answers.
        eventually("it is ready or dead", async || {
            (gateway::probe(port, "/readyz") == Some(200) || dying.has_ended()).then_some(())
        })
        .await;
        accepted.extend(submit_until_death(&mut dying).await);
        dying.wait(Duration::from_secs(20));
    }
    let last = Gateway::serve(&database, &redis.url(0), &redis.url(1), "");
    let http = last.http();
    for id in &accepted {
        eventually("it is queued", async || {
            (http.get(&format!("/v1/tasks/{id}")).await.expect(200)["phase"] == "queued").then_some(())
        })
        .await;
    }
    let counts = counted(messages(&redis));
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    assert!(accepted.iter().all(|id| counts.contains_key(id)));
}

/// Publications are recorded without waiting for the disk. A crash undoes the record, and the row is in the outbox again.
#[tokio::test]
async fn what_a_crash_of_postgresql_brings_back_is_not_published_twice() {
    const UNDONE: &str = "were in the broker already";
    let mut cluster = Cluster::start_forgetful();
    let redis = Redis::start(RedisOptions::default());
    let gateway = Gateway::serve(&cluster.empty_database(), &redis.url(0), &redis.url(1), "");
    let mut accepted = Vec::new();
    // A lease renewal in between would flush everything before it to the disk.
    for _ in 0..8 {
        if gateway.log().contains(UNDONE) {
            break;
        }
        accepted.extend(submit_some(&gateway).await);
        eventually("all are pushed", async || (messages(&redis).len() >= accepted.len()).then_some(())).await;
        // The record follows immediately, and is not on the disk yet.
        tokio::time::sleep(Duration::from_millis(50)).await;
        cluster.stop();
        cluster.restart();
        eventually("the ledger is back", async || (gateway::probe(gateway.port, "/readyz") == Some(200)).then_some(()))
            .await;
        for id in &accepted {
            eventually("it is queued", async || {
                let task = gateway.http().get(&format!("/v1/tasks/{id}")).await;
                (task.status == 200 && task.json()["phase"] == "queued").then_some(())
            })
            .await;
        }
    }
    let counts = counted(messages(&redis));
    assert!(counts.values().all(|count| *count == 1), "{counts:?}\n{}", gateway.log());
    assert!(accepted.iter().all(|id| counts.contains_key(id)), "{}", gateway.log());
    assert!(gateway.log().contains(UNDONE), "no crash has undone anything");
}

/// The marker of a push is lost with Redis's data, and so is the replica that knew of the push: the second publication is told all the same.
#[tokio::test]
async fn what_a_dead_replica_pushed_before_redis_was_emptied_is_told_as_queued_again() {
    let redis = Redis::start(RedisOptions::default());
    let database = postgres::cluster().migrated_database();
    let config = "[sweeper]\nperiod = '1s'\ngrace = '700ms'\n";
    let other = Gateway::serve(&database, &redis.url(0), &redis.url(1), config);
    let http = other.http();
    eventually("the other gateway knows Redis's data", async || {
        redis.command::<Option<String>>(0, &["GET", "taskgate.life"])
    })
    .await;
    let port = ports::free();
    let config = gateway::config(port, &database, &redis.url(0), &redis.url(1), config);
    let mut dying = Gateway::start(&["serve"], port, Some(&config), &[("TASKGATE_CRASH_AT", "after_push:3")]);
    dying.wait_until_ready();
    submit_until_death(&mut dying).await;
    // Some of these are recorded as published, and some are not.
    let pushed = messages(&redis);
    redis.command::<String>(0, &["FLUSHALL"]);
    assert!(!pushed.is_empty());
    for id in &pushed {
        eventually(&format!("{id} is told as queued again"), async || {
            let path = format!("/v1/tasks/{id}/events");
            let history = http.get_with(&path, &[("accept", "application/json")]).await.expect(200);
            history.to_string().contains("queued again").then_some(())
        })
        .await;
    }
}

/// What was only accepted while Redis was away is published for the first time.
#[tokio::test]
async fn what_was_accepted_while_redis_was_away_is_not_told_as_queued_again() {
    let mut redis = Redis::start(RedisOptions::default());
    let gateway = Gateway::serve(&postgres::cluster().migrated_database(), &redis.url(0), &redis.url(1), "");
    submit_some(&gateway).await;
    redis.kill();
    // The first ones find out that Redis is away.
    submit_some(&gateway).await;
    let accepted = submit_some(&gateway).await;
    redis.restart();
    for id in &accepted {
        let path = format!("/v1/tasks/{id}/events");
        let history = eventually("it is queued", async || {
            let history = gateway.http().get_with(&path, &[("accept", "application/json")]).await.expect(200);
            history.to_string().contains("\"queued\"").then_some(history)
        })
        .await;
        assert!(!history.to_string().contains("queued again"), "{history}");
    }
}
