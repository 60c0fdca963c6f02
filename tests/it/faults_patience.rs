//! Slow work is not repaired: a busy worker that reports nothing, a message that a worker keeps for later, a database that is
//! down for a minute (P9, and the recorder's promise).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Options};
use crate::harness::postgres::Cluster;
use crate::harness::wait::within;
use crate::harness::{Celery, CeleryOptions, Gateway, Redis, RedisOptions, Version, eventually};

const PATIENCE: Duration = Duration::from_secs(120);

fn times(log: &str, id: &str, word: &str) -> usize {
    log.matches(&format!("[{id}] {word}")).count()
}

/// How the history tells of a task that a worker has and sent no event about.
const TAKEN: &str = "a worker took its message and has sent no event about it";

#[tokio::test]
async fn a_busy_solo_worker_is_given_the_visibility_timeout() {
    let settings = json!({"broker_transport_options": {"visibility_timeout": 14}});
    let celery = CeleryOptions { pool: "solo", concurrency: 1, settings, ..CeleryOptions::default() };
    let config =
        "[sweeper]\nperiod = '1s'\ngrace = '500ms'\nworker_lost_after = '2s'\n[broker]\nvisibility_timeout = '14s'\n";
    let mut env = Harness::start(&Options { celery, config: config.into(), ..Options::default() });
    eventually("the worker has said what its pool is", async || {
        let workers = env.http.get("/v1/workers").await.expect(200);
        (workers["workers"][0]["pool"] == "solo").then_some(())
    })
    .await;
    // Longer than a worker that sends events may be silent.
    let busy = env.submit("demo.late", json!([8, "once"])).await;
    let done = within(PATIENCE, "it ends", async || {
        let answer = env.http.get(&format!("/result/{busy}")).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!(done["result"], "once", "{done}");
    assert_eq!(times(&env.celery.as_ref().expect("a worker").log(), &busy, "received"), 1);
    // On a slow machine the worker may answer the sweeper after it has taken the task and before it starts it. That the task was taken
    // without an event is then true, and nothing else may be said about it.
    let history = env.history(&busy).await;
    let reasons: Vec<&str> = history.iter().filter_map(|event| event["reason"].as_str()).collect();
    assert!(reasons.iter().all(|reason| *reason == TAKEN), "{history:?}");

    // A solo worker sends everything, even its acknowledgement, only after the task, so this task is not reported.
    let last = env.submit("demo.sleep", json!([300])).await;
    eventually("the worker runs it", async || {
        (times(&env.celery.as_ref().expect("a worker").log(), &last, "received") == 1).then_some(())
    })
    .await;
    let started = Instant::now();
    env.celery.as_mut().expect("a worker").kill();
    within(PATIENCE, "it is given back", async || {
        let history = env.history(&last).await;
        let back = |event: &Value| event["reason"].as_str().is_some_and(|why| why.contains("went back to the queue"));
        history.iter().any(back).then_some(())
    })
    .await;
    assert_eq!(env.redis.command::<usize>(0, &["LLEN", "celery"]), 1, "it stands in its queue again");
    // Its last heartbeat may have been one period before it began.
    assert!(started.elapsed() > Duration::from_secs(10), "given back after {:?}", started.elapsed());
}

#[tokio::test]
async fn what_a_worker_keeps_for_later_is_delivered_once() {
    let settings = json!({"broker_transport_options":
        {"visibility_timeout": 4, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}});
    let config = "[sweeper]\nperiod = '1s'\n[broker]\nvisibility_timeout = '4s'\n";
    // Before 5.7 a worker that is asked for such a task denies that it has it.
    let celery = CeleryOptions { version: Version::Older, settings: settings.clone(), ..CeleryOptions::default() };
    let env = Harness::start(&Options { celery, config: config.into(), ..Options::default() });
    let parent = env.submit("demo.child_later", json!([14, "on time"])).await;
    let child = env.finished(&parent).await["result"].as_str().expect("an id").to_owned();
    // A worker looks for what is overdue every second.
    let second = CeleryOptions { hostname: "w2@test".into(), settings, ..CeleryOptions::default() };
    let second = Celery::start(&env.redis, second);
    let done = within(PATIENCE, "it ends", async || {
        let answer = env.http.get(&format!("/result/{child}")).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!(done["result"], "on time", "{done}");
    let logs = env.celery.as_ref().expect("a worker").log() + &second.log();
    assert_eq!((times(&logs, &child, "received"), times(&logs, &child, "succeeded")), (1, 1), "{logs}");
}

#[tokio::test]
#[ignore = "takes two minutes: a_database_that_is_away_loses_nothing_and_blocks_nobody is its short form"]
async fn a_database_that_is_away_for_a_minute_loses_nothing_and_blocks_nobody() {
    const AWAY: Duration = Duration::from_secs(60);
    let mut cluster = Cluster::start();
    let redis = Redis::start(RedisOptions::default());
    let options = CeleryOptions { concurrency: 4, ..CeleryOptions::default() };
    let mut celery = Celery::launch(&redis.url(0), &redis.url(1), options);
    let database = cluster.empty_database();
    let gateway = Gateway::serve(&database, &redis.url(0), &redis.url(1), "http.sse_heartbeat = '1s'\n");
    celery.wait_until_ready();
    celery.wait_for_events();
    let http = gateway.http();
    let submit = async |task: &str, args: Value| {
        let accepted = http.post("/v1/tasks", &json!({"task": task, "args": args})).await.expect(202);
        accepted["task_id"].as_str().expect("an id").to_owned()
    };
    // One task reports progress all the time and ends afterwards; the others begin and end while nothing can be recorded.
    let watched = submit("demo.progress", json!([800, 0.1])).await;
    let mut others = Vec::new();
    for n in 0..60 {
        others.push(submit("demo.sleep", json!([1, n])).await);
    }
    let mut stream = http.events(&format!("/v1/tasks/{watched}/events"), &[("last-event-id", "0")]).await;
    let mut seen = Vec::new();
    while seen.len() < 6 {
        seen.push(stream.next().await.expect("it runs").seq());
    }
    cluster.stop();
    let away = Instant::now();
    while away.elapsed() < AWAY {
        let told = stream.until_comment(Duration::from_secs(20)).await;
        seen.extend(told.iter().map(crate::harness::sse::Event::seq));
    }
    let ended = others.iter().filter(|id| times(&celery.log(), id, "succeeded") == 1).count();
    assert!(ended > 30, "{ended} have ended meanwhile");
    cluster.restart();
    let rest = tokio::time::timeout(PATIENCE * 2, stream.until("end")).await.expect("the stream goes on");
    seen.extend(rest.iter().map(crate::harness::sse::Event::seq));
    assert_eq!(seen, (1..=seen.len() as u64).collect::<Vec<_>>());
    assert!(seen.len() > 800, "{} of 800 steps", seen.len());
    for (n, id) in others.iter().enumerate() {
        let done = within(PATIENCE, &format!("the end of {id} is known"), async || {
            let answer = http.get(&format!("/result/{id}")).await;
            (answer.status == 200).then(|| answer.json())
        })
        .await;
        assert_eq!(done["result"], n, "{done}");
    }
}
