//! One replica records at a time; the next takes over in under two seconds, a stale one writes nothing, and an outage of the database
//! loses nothing that Redis still has.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::postgres::Cluster;
use crate::harness::wait::within;
use crate::harness::{Celery, CeleryOptions, Gateway, Latch, Redis, RedisOptions, Stopwatch, eventually, unix};

const QUICK: &str = "[sweeper]\nperiod = '1s'\ngrace = '500ms'\n";
const PATIENCE: Duration = Duration::from_secs(120);

async fn is_recording(gateway: &Gateway) -> bool {
    let answer = gateway.http().try_send(reqwest::Method::GET, "/readyz", &[], None).await;
    answer.is_ok_and(|answer| answer.json()["recorder"] == "active")
}

/// Both gateways, the recorder first.
async fn in_order<'a>(one: &'a mut Gateway, other: &'a mut Gateway) -> (&'a mut Gateway, &'a mut Gateway) {
    eventually("one of them records", async || (is_recording(one).await || is_recording(other).await).then_some(()))
        .await;
    if is_recording(one).await { (one, other) } else { (other, one) }
}

fn gapless(history: &[Value]) -> bool {
    history.iter().enumerate().all(|(index, event)| event["seq"] == index as u64 + 1)
}

async fn all_succeed(env: &Lent<Box<Harness>>, http: &crate::harness::Http, ids: &[String]) {
    for id in ids {
        within(PATIENCE, &format!("{id} ends"), async || {
            let answer = http.get(&format!("/result/{id}")).await;
            (answer.status == 200).then(|| assert_eq!(answer.json()["status"], "SUCCESS"))
        })
        .await;
        let path = format!("/v1/tasks/{id}/events");
        let listed = http.get_with(&path, &[("accept", "application/json")]).await.expect(200);
        let events = listed["events"].as_array().expect("events").clone();
        assert!(gapless(&events), "{events:?}\n{}", env.gateway.log());
        let ends = events.iter().filter(|event| event["phase"] == "succeeded").count();
        assert_eq!(ends, 1, "{events:?}");
    }
}

#[tokio::test]
async fn the_next_recorder_is_there_within_two_seconds_and_no_end_is_missing() {
    let mut env = Harness::start(&Options { config: QUICK.into(), ..Options::default() });
    let mut second = env.replica(QUICK);
    let mut best = Duration::MAX;
    let mut ids = Vec::new();
    // The machine may be busy, but not every time.
    for _ in 0..3 {
        for n in 0..20 {
            ids.push(env.submit("demo.sleep", json!([0.05, n])).await);
        }
        let (recording, next) = in_order(&mut env.gateway, &mut second).await;
        recording.kill();
        let killed_at = Stopwatch::start();
        eventually("the next one records", async || is_recording(next).await.then_some(())).await;
        best = best.min(killed_at.elapsed());
        recording.restart();
        if best < Duration::from_secs(2) {
            break;
        }
    }
    assert!(best < Duration::from_secs(2), "the next one recorded after {best:?}");
    let http = env.http.clone();
    all_succeed(&env, &http, &ids).await;
}

#[tokio::test]
async fn a_recorder_that_was_stopped_writes_nothing_beside_its_successor() {
    let mut env = Harness::start(&Options { config: QUICK.into(), ..Options::default() });
    let mut second = env.replica(QUICK);
    let latch = Latch::closed();
    let id = env.submit("demo.progress_until", latch.args(())).await;
    env.in_phase(&id, "running").await;
    let (stale, next) = in_order(&mut env.gateway, &mut second).await;
    unix::kill(stale.id(), libc::SIGSTOP);
    let http = next.http();
    // Only events report this task, and no process reads them while neither gateway records.
    let unread = http.post("/v1/tasks", &json!({"task": "demo.ignore"})).await.expect(202);
    let unread = unread["task_id"].as_str().expect("an id").to_owned();
    eventually("the other one records", async || is_recording(next).await.then_some(())).await;
    let short = http.post("/v1/tasks", &json!({"task": "demo.identity", "args": [1]})).await.expect(202);
    let short = short["task_id"].as_str().expect("an id").to_owned();
    within(PATIENCE, "it ends", async || (http.get(&format!("/result/{short}")).await.status == 200).then_some(()))
        .await;
    unix::kill(stale.id(), libc::SIGCONT);
    eventually("the stale one has noticed", async || {
        (!is_recording(stale).await && is_recording(next).await).then_some(())
    })
    .await;
    assert!(stale.log().contains("another replica"), "{}", stale.log());
    within(PATIENCE, "what only the stale one heard is known", async || {
        let task = http.get(&format!("/v1/tasks/{unread}")).await.expect(200);
        (task["phase"] == "succeeded").then(|| assert_eq!(task["worker"], "w1@test", "{task}"))
    })
    .await;
    latch.open();
    all_succeed(&env, &http, &[short, id]).await;
}

#[tokio::test]
async fn a_database_that_is_away_loses_nothing_and_blocks_nobody() {
    let mut cluster = Cluster::start();
    let redis = Redis::start(RedisOptions::default());
    let mut celery = Celery::launch(&redis.url(0), &redis.url(1), CeleryOptions::default());
    let database = cluster.empty_database();
    let gateway =
        Gateway::serve(&database, &redis.url(0), &redis.url(1), &format!("http.sse_heartbeat = '1s'\n{QUICK}"));
    celery.wait_until_ready();
    celery.wait_for_events();
    let http = gateway.http();
    let submit = async |task: &str, args: Value| {
        let accepted = http.post("/v1/tasks", &json!({"task": task, "args": args})).await.expect(202);
        accepted["task_id"].as_str().expect("an id").to_owned()
    };
    let latch = Latch::closed();
    let watched = submit("demo.progress_until", latch.args(())).await;
    let other = submit("demo.until", latch.args("meanwhile")).await;
    eventually("the other one runs too", async || {
        let task = http.get(&format!("/v1/tasks/{other}")).await.expect(200);
        (task["phase"] == "running").then_some(())
    })
    .await;
    let mut stream = http.events(&format!("/v1/tasks/{watched}/events"), &[("last-event-id", "0")]).await;
    let mut seen = Vec::new();
    while seen.len() < 6 {
        seen.push(stream.next().await.expect("it runs").seq());
    }
    // A submission's commit is on the disk, and with it all before it: what was written before somebody watched is not at once.
    submit("demo.identity", json!([1])).await;
    cluster.stop();
    let asked = Stopwatch::start();
    let refused = http.post("/v1/tasks", &json!({"task": "demo.identity", "args": [1]})).await;
    refused.problem(503, "ledger-unavailable");
    assert!(asked.elapsed() < Duration::from_secs(15), "an answer without the database takes {:?}", asked.elapsed());
    latch.open();
    eventually("both have ended while nothing could be written down", async || {
        let ended = |id: &str| celery.log().contains(&format!("[{id}] succeeded"));
        (ended(&watched) && ended(&other)).then_some(())
    })
    .await;
    seen.extend(stream.until_comment(PATIENCE).await.iter().map(crate::harness::sse::Event::seq));
    cluster.restart();
    let rest = tokio::time::timeout(PATIENCE, stream.until("end")).await.expect("the stream goes on");
    seen.extend(rest.iter().map(crate::harness::sse::Event::seq));
    assert_eq!(seen, (1..=seen.len() as u64).collect::<Vec<_>>());
    let done = within(PATIENCE, "the other one's end is known", async || {
        let answer = http.get(&format!("/result/{other}")).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!(done["result"], "meanwhile", "{done}");
    let after = within(PATIENCE, "it accepts again", async || {
        let answer = http.post("/v1/tasks", &json!({"task": "demo.add", "args": [1, 2]})).await;
        (answer.status == 202).then(|| answer.json())
    })
    .await;
    let after = after["task_id"].as_str().expect("an id").to_owned();
    within(PATIENCE, "what was accepted afterwards runs", async || {
        let answer = http.get(&format!("/result/{after}")).await;
        (answer.status == 200).then_some(())
    })
    .await;
}

/// Without a watcher, news of received tasks is written without waiting for the disk.
#[tokio::test]
async fn what_a_crash_of_postgresql_undid_is_told_again() {
    let mut cluster = Cluster::start_forgetful();
    let redis = Redis::start(RedisOptions::default());
    let mut celery = Celery::launch(&redis.url(0), &redis.url(1), CeleryOptions::default());
    let gateway = Gateway::serve(&cluster.empty_database(), &redis.url(0), &redis.url(1), "");
    celery.wait_until_ready();
    celery.wait_for_events();
    let http = gateway.http();
    // A lease renewal in between would flush everything before it to the disk.
    for _ in 0..8 {
        let latch = Latch::closed();
        let task = json!({"task": "demo.until", "args": latch.args("done")});
        let id = http.post("/v1/tasks", &task).await.expect(202)["task_id"].as_str().expect("an id").to_owned();
        let path = format!("/v1/tasks/{id}");
        let before = eventually("it runs", async || {
            let task = http.get(&path).await.expect(200);
            (task["phase"] == "running").then_some(task)
        })
        .await;
        cluster.stop();
        cluster.restart();
        let after = within(PATIENCE, "that it runs is known again", async || {
            let answer = http.get(&path).await;
            (answer.status == 200 && answer.json()["phase"] == "running").then(|| answer.json())
        })
        .await;
        for fact in ["received_at", "started_at", "worker"] {
            assert_eq!(after[fact], before[fact], "{fact}: {after}");
        }
        latch.open();
        within(PATIENCE, "it ends", async || {
            let answer = http.get(&format!("/result/{id}")).await;
            (answer.status == 200).then(|| assert_eq!(answer.json()["result"], "done"))
        })
        .await;
        if gateway.log().contains("a crash of the ledger had undone") {
            return;
        }
    }
    panic!("no crash has undone anything");
}
