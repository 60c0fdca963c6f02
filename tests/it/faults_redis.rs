//! Redis refuses writes, stops answering, loads, loses its data, and comes back with older data: every 202 has exactly one message
//! (P2, P3, P4).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::wait::within;
use crate::harness::{Celery, CeleryOptions, Http, Stopwatch, eventually, ports, unix};

const QUICK: &str = "[sweeper]\nperiod = '1s'\ngrace = '500ms'\nworker_lost_after = '5s'\n";
/// Redis was silent for a whole timeout, or loads for some seconds.
const SLOW: Duration = Duration::from_secs(120);

type Env = Lent<Box<Harness>>;

fn without_worker(config: &str) -> Env {
    Harness::start(&Options { without_worker: true, config: format!("{config}{QUICK}"), ..Options::default() })
}

async fn submit_some(env: &Env, count: usize) -> Vec<String> {
    let submissions = (0..count).map(|n| env.submit("demo.identity", json!([n])));
    futures_util::future::join_all(submissions).await
}

/// Messages in the default queue by task.
fn messages(env: &Env) -> HashMap<String, usize> {
    let all: Vec<String> = env.redis.command(0, &["LRANGE", "celery", "0", "-1"]);
    all.iter().fold(HashMap::new(), |mut counts, text| {
        let message: Value = serde_json::from_str(text).expect("a message is JSON");
        *counts.entry(message["headers"]["id"].as_str().expect("an id").to_owned()).or_default() += 1;
        counts
    })
}

async fn is_up(env: &Env, up: bool) {
    within(SLOW, &format!("/readyz says that Redis is up: {up}"), async || {
        let ready = env.http.get("/readyz").await;
        (ready.json()["redis"] == if up { "up" } else { "down" }).then_some(())
    })
    .await;
}

/// Waits until each is published with one message.
async fn each_has_one_message(env: &Env, ids: &[String], what: &str) {
    let wrong = async || {
        let counts = messages(env);
        let mut wrong = Vec::new();
        for id in ids {
            let task = env.http.get(&format!("/v1/tasks/{id}")).await.expect(200);
            let count = counts.get(id).copied().unwrap_or(0);
            if task["phase"] != "queued" || count != 1 {
                wrong.push(format!("{id} is {} with {count} messages", task["phase"]));
            }
        }
        wrong
    };
    let deadline = Instant::now() + SLOW;
    loop {
        let wrong = wrong().await;
        if wrong.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {wrong:?}\n{}", env.gateway.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn writes_that_redis_refuses_are_made_later_and_once() {
    let env = without_worker("");
    let mut ids = submit_some(&env, 5).await;
    each_has_one_message(&env, &ids, "at first").await;

    env.redis.command::<String>(0, &["CONFIG", "SET", "maxmemory", "1"]);
    ids.extend(submit_some(&env, 20).await);
    eventually("the gateway has noticed that memory is full", async || env.gateway.log().contains("OOM").then_some(()))
        .await;
    env.redis.command::<String>(0, &["CONFIG", "SET", "maxmemory", "0"]);
    each_has_one_message(&env, &ids, "after OOM").await;

    let nobody = ports::free().to_string();
    env.redis.command::<String>(0, &["REPLICAOF", "127.0.0.1", &nobody]);
    ids.extend(submit_some(&env, 20).await);
    eventually("the gateway has noticed that it reads only (READONLY, as the client spells it)", async || {
        env.gateway.log().contains("ReadOnly").then_some(())
    })
    .await;
    env.redis.command::<String>(0, &["REPLICAOF", "NO", "ONE"]);
    each_has_one_message(&env, &ids, "after a failover").await;
}

#[tokio::test]
async fn a_redis_that_stops_answering_gets_nothing_twice() {
    let env = without_worker("");
    let mut ids = submit_some(&env, 5).await;
    env.redis.pause();
    // Accepted at once although Redis does not answer; after the timeout the outcome of the push is unknown.
    ids.extend(submit_some(&env, 50).await);
    is_up(&env, false).await;
    ids.extend(submit_some(&env, 10).await);
    env.redis.resume();
    each_has_one_message(&env, &ids, "after a stop").await;
    assert!(!env.gateway.log().contains("older data"), "a late answer is no loss:\n{}", env.gateway.log());
}

/// Whether it comes within some seconds.
async fn soon(came: impl AsyncFn() -> Option<()>) -> bool {
    for _ in 0..30 {
        if came().await.is_some() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}

/// A worker took the first message, and everything else about it in Redis is lost.
#[tokio::test]
async fn what_may_have_been_published_before_redis_lost_its_data_says_so() {
    let env = without_worker("[broker]\nresponse_timeout = '1s'\n");
    let first = submit_some(&env, 1).await;
    each_has_one_message(&env, &first, "at first").await;
    let mut tries = 0;
    // Earlier traffic may have closed the connection; then no late push arrives.
    let id = loop {
        let failures = |log: &str| log.matches("publishing failed").count();
        let before = failures(&env.gateway.log());
        env.redis.pause();
        let id = submit_some(&env, 1).await.remove(0);
        let has_failed = async || (failures(&env.gateway.log()) > before).then_some(());
        eventually("its publication has no outcome", has_failed).await;
        unix::kill(env.gateway.id(), libc::SIGSTOP);
        env.redis.resume();
        let came = async || messages(&env).contains_key(&id).then_some(());
        if soon(came).await {
            break id;
        }
        tries += 1;
        assert!(tries < 5, "no message comes late");
        unix::kill(env.gateway.id(), libc::SIGCONT);
        each_has_one_message(&env, std::slice::from_ref(&id), "the outbox's way").await;
    };
    env.redis.command::<String>(0, &["FLUSHALL"]);
    unix::kill(env.gateway.id(), libc::SIGCONT);
    each_has_one_message(&env, std::slice::from_ref(&id), "after the loss").await;
    eventually("its history says so", async || {
        let told = |event: &Value| event["reason"].as_str().is_some_and(|why| why.contains("before it was known"));
        env.history(&id).await.iter().any(told).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_loads_its_data_is_waited_for() {
    let mut env = without_worker("");
    let mut ids = submit_some(&env, 10).await;
    each_has_one_message(&env, &ids, "before").await;
    let filler = "x".repeat(2_000);
    for n in 0..150 {
        env.redis.command::<()>(3, &["SET", &format!("filler-{n}"), &filler]);
    }
    let snapshot = env.redis.snapshot();
    let slowly = ["--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024"];
    env.redis.restore_slowly(&snapshot, &slowly);
    ids.extend(submit_some(&env, 20).await);
    env.redis.wait_until_ready();
    ids.extend(submit_some(&env, 5).await);
    each_has_one_message(&env, &ids, "after loading").await;
}

#[tokio::test]
async fn a_loss_is_noticed_within_two_seconds() {
    let env = without_worker("");
    let ids = submit_some(&env, 3).await;
    each_has_one_message(&env, &ids, "before").await;
    let (mut seen, mut best) = (0, Duration::MAX);
    // The machine may be busy, so one of three attempts must be quick.
    for _ in 0..3 {
        let lost_at = Stopwatch::start();
        env.redis.command::<String>(0, &["FLUSHALL"]);
        eventually("the loss is noticed", async || {
            (env.gateway.log().matches("Redis has lost its data").count() > seen).then_some(())
        })
        .await;
        best = best.min(lost_at.elapsed());
        seen += 1;
        each_has_one_message(&env, &ids, "after a flush").await;
        if best < Duration::from_secs(2) {
            break;
        }
    }
    assert!(best < Duration::from_secs(2), "noticed after {best:?}");
    let history = env.history(&ids[0]).await;
    let reason = |event: &Value| event["reason"].as_str().is_some_and(|why| why.contains("Redis lost its message"));
    assert!(history.iter().any(reason), "the repair is in the history: {history:?}");
    let metrics = env.http.get("/metrics").await.text();
    let requeued =
        metrics.lines().find_map(|line| line.strip_prefix("taskgate_tasks_requeued_total{reason=\"absent\"} "));
    assert!(requeued.is_some_and(|count| count != "0"), "{metrics}");
}

#[tokio::test]
async fn what_redis_loses_between_two_checks_is_queued_again() {
    let mut env = without_worker("");
    let mut ids = submit_some(&env, 1).await;
    // A check comes once a second, so in most of these rounds none comes between the snapshot and its restoration.
    for round in 0..5 {
        each_has_one_message(&env, &ids, &format!("before round {round}")).await;
        let snapshot = env.redis.snapshot();
        let late = submit_some(&env, 1).await;
        each_has_one_message(&env, &late, "before the restoration").await;
        env.redis.restore(&snapshot);
        ids.extend(late);
        each_has_one_message(&env, &ids, &format!("after round {round}")).await;
    }
}

#[tokio::test]
async fn old_messages_that_come_back_do_not_run_unreported() {
    let mut env = without_worker("");
    let done = submit_some(&env, 6).await;
    each_has_one_message(&env, &done, "before").await;
    let snapshot = env.redis.snapshot();
    let mut celery = Celery::start(&env.redis, CeleryOptions::default());
    for id in &done {
        env.finished(id).await;
    }
    celery.kill();
    let late = submit_some(&env, 2).await;
    each_has_one_message(&env, &late, "before the restoration").await;

    // No worker consumes: messages of ended tasks are removed again, messages missing in the copy are put back.
    env.redis.restore(&snapshot);
    each_has_one_message(&env, &late, "after the restoration").await;
    eventually("messages of ended tasks are gone", async || (messages(&env).len() == late.len()).then_some(())).await;
    for id in &done {
        let history = env.history(id).await;
        let said = history.iter().any(|event| event["reason"].as_str().is_some_and(|why| why.contains("came back")));
        assert!(said, "it is in its history: {history:?}");
    }

    // A worker is there and may be quicker: then the second run is reported.
    env.redis.restore(&snapshot);
    celery.restart();
    for id in &late {
        assert_eq!(env.finished(id).await["status"], "SUCCESS");
    }
    let log = || celery.log();
    eventually("nothing waits and nothing is reserved", async || {
        let reserved: usize = env.redis.command(0, &["HLEN", "unacked"]);
        (messages(&env).is_empty() && reserved == 0).then_some(())
    })
    .await;
    for id in &done {
        let runs = log().matches(&format!("[{id}] received")).count();
        within(SLOW, &format!("{id}: {runs} runs are all in its history"), async || {
            let history = env.history(id).await;
            let told = history
                .iter()
                .filter(|event| event["reason"].as_str().is_some_and(|why| why.contains("it runs twice")));
            (told.count() >= runs).then_some(())
        })
        .await;
    }
}

async fn submit_until_refused(http: &Http) -> (Vec<String>, crate::harness::Answer) {
    let mut accepted = Vec::new();
    for n in 0..200 {
        let answer = http.post("/v1/tasks", &json!({"task": "demo.identity", "args": [n]})).await;
        if answer.status != 202 {
            return (accepted, answer);
        }
        accepted.push(answer.json()["task_id"].as_str().expect("an id").to_owned());
    }
    panic!("the backlog has no limit");
}

#[tokio::test]
async fn a_full_backlog_says_when_to_come_back() {
    let mut env = without_worker("limits.backlog = 30\n");
    let before = submit_some(&env, 3).await;
    each_has_one_message(&env, &before, "before").await;
    env.redis.kill();
    is_up(&env, false).await;
    let (accepted, refused) = submit_until_refused(&env.http).await;
    refused.problem(503, "backlog-full");
    let wait: u64 = refused.header("retry-after").and_then(|text| text.parse().ok()).expect("Retry-After in seconds");
    assert!((1..=300).contains(&wait), "{wait}");
    assert!((20..=60).contains(&accepted.len()), "{} accepted with a limit of 30", accepted.len());
    env.redis.restart();
    let mut all = before;
    all.extend(accepted);
    each_has_one_message(&env, &all, "after the outage").await;
    eventually("it accepts again", async || {
        let answer = env.http.post("/v1/tasks", &json!({"task": "demo.identity", "args": [0]})).await;
        (answer.status == 202).then_some(())
    })
    .await;
}
