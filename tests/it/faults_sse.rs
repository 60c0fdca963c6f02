//! Streams through failures of all parts: the received ids are exactly the recorded ones, in order (P6).

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::reader::Reader;
use crate::harness::wait::within;
use crate::harness::{Gateway, Http, RedisOptions, eventually, http, turns};

const QUICK: &str = "[sweeper]\nperiod = '1s'\ngrace = '500ms'\n";
const PATIENCE: Duration = Duration::from_secs(120);

type Env = Lent<Box<Harness>>;

async fn recorded(http: &Http, id: &str) -> Vec<u64> {
    let path = format!("/v1/tasks/{id}/events");
    let listed = http.get_with(&path, &[("accept", "application/json")]).await.expect(200);
    let events = listed["events"].as_array().expect("events");
    events.iter().map(|event| event["seq"].as_u64().expect("a number")).collect()
}

async fn is_recording(gateway: &Gateway) -> bool {
    let answer = gateway.http().try_send(reqwest::Method::GET, "/readyz", &[], None).await;
    answer.is_ok_and(|answer| answer.json()["recorder"] == "active")
}

#[tokio::test]
async fn a_reader_gets_exactly_what_is_recorded_whatever_dies() {
    let redis = RedisOptions { appendonly: true, ..RedisOptions::default() };
    let mut env = Harness::start(&Options { redis, config: QUICK.into(), ..Options::default() });
    let mut second = env.replica(QUICK);
    // Longer than all faults of the test; it is stopped at the end.
    let id = env.submit("demo.steady", json!([6_000, 0.1])).await;
    let gateways = vec![env.http.clone(), second.http()];
    let reader = |at| tokio::spawn(Reader::new(&gateways, at, &id).follow());
    let readers = [reader(0), reader(1), reader(0)];
    env.in_phase(&id, "running").await;
    // The recorder is killed, then the other gateway; Redis is down in between.
    let first_records = is_recording(&env.gateway).await;
    let (one, other) = if first_records { (&mut env.gateway, &mut second) } else { (&mut second, &mut env.gateway) };
    one.kill();
    eventually("the other one records", async || is_recording(other).await.then_some(())).await;
    one.restart();
    env.redis.restart();
    let (one, other) = if first_records { (&mut second, &mut env.gateway) } else { (&mut env.gateway, &mut second) };
    one.kill();
    eventually("the first one records again", async || is_recording(other).await.then_some(())).await;
    one.restart();
    // Events sent while no gateway recorded are lost; events recorded from now on must reach every reader.
    let before = recorded(&env.http, &id).await.len();
    within(PATIENCE, "it goes on", async || (recorded(&env.http, &id).await.len() >= before + 10).then_some(())).await;
    let stop = json!({"terminate": true, "signal": "SIGKILL"});
    env.http.post(&format!("/v1/tasks/{id}/revoke"), &stop).await.expect(200);
    env.finished(&id).await;
    let expected = recorded(&env.http, &id).await;
    assert_eq!(expected, (1..=expected.len() as u64).collect::<Vec<_>>(), "seq has no gap");
    for reader in readers {
        let seen = tokio::time::timeout(PATIENCE, reader).await.expect("it ends").expect("it does not panic");
        assert_eq!(seen, expected);
    }
}

/// Anonymous memory of a process in kilobytes, without mapped files.
fn resident_kb(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("Linux says it");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

async fn open_raw(env: &Env, id: &str) -> tokio::net::TcpStream {
    let port = env.gateway.port;
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    let request = format!(
        "GET /v1/tasks/{id}/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nLast-Event-ID: 0\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.expect("it reads");
    socket
}

/// Of 20 kB each: more than the sockets hold.
const STEPS: usize = 600;

async fn over(env: &Env, id: &str) {
    within(PATIENCE, "the flood is over", async || {
        (env.http.get(&format!("/result/{id}")).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn readers_that_do_not_read_cost_little_and_miss_nothing() {
    let _turn = turns::heavy();
    // Freed memory is returned at once, so the measurement shows memory in use.
    let env = Harness::start(&Options { environment: &[("MIMALLOC_PURGE_DELAY", "0")], ..Options::default() });
    // Once without readers, to measure the cost of recording.
    let alone = env.submit("demo.flood", json!([STEPS, 20_000])).await;
    over(&env, &alone).await;
    let before = resident_kb(&env.gateway);
    let id = env.submit("demo.flood", json!([STEPS, 20_000])).await;
    let mut sockets = Vec::new();
    for _ in 0..16 {
        sockets.push(open_raw(&env, &id).await);
    }
    over(&env, &id).await;
    // Memory for a short backlog is freed again; memory held for readers that do not read would stay.
    within(PATIENCE, "16 readers that do not read a stream of 12 MB cost less than 80 MB", async || {
        (resident_kb(&env.gateway).saturating_sub(before) / 1_024 < 80).then_some(())
    })
    .await;
    // One of them wakes up and gets everything.
    let mut text = String::new();
    let mut socket = sockets.pop().expect("sixteen");
    tokio::time::timeout(PATIENCE, socket.read_to_string(&mut text)).await.expect("it ends").expect("UTF-8");
    let seen: Vec<u64> =
        text.lines().filter_map(|line| line.strip_prefix("id: ")).map(|id| id.parse().expect("a number")).collect();
    let last = env.http.get(&format!("/v1/tasks/{id}")).await.expect(200)["seq"].as_u64().expect("a number");
    assert_eq!(seen, (1..=last).collect::<Vec<_>>());
    assert!(last > 300, "{last}");
}

#[tokio::test]
async fn a_thousand_watch_one_task() {
    const READERS: usize = 1_000;
    let _turn = turns::heavy();
    let env = Harness::shared();
    let id = env.submit("demo.progress", json!([20, 0.3])).await;
    env.in_phase(&id, "running").await;
    let client = http::client().build().expect("a client");
    let url = format!("{}/v1/tasks/{id}/events", env.http.base);
    let readers = (0..READERS).map(|_| {
        let request = client.get(&url).header("last-event-id", "0");
        tokio::spawn(async move {
            let text = loop {
                let request = request.try_clone().expect("it has no body");
                let answer = request.send().await.expect("it answers");
                if answer.status() == 200 {
                    break answer.text().await.expect("it ends");
                }
                // So many at once may wait too long for the ledger; then they are retried.
                assert_eq!(answer.status(), 503);
                tokio::time::sleep(Duration::from_millis(200)).await;
            };
            text.lines().filter(|line| line.starts_with("id: ")).map(str::to_owned).collect::<Vec<_>>()
        })
    });
    let readers: Vec<_> = readers.collect();
    let mut different = HashSet::new();
    for reader in readers {
        different.insert(tokio::time::timeout(PATIENCE, reader).await.expect("it ends").expect("no panic"));
    }
    let expected: Vec<String> = recorded(&env.http, &id).await.iter().map(|seq| format!("id: {seq}")).collect();
    assert_eq!(different, HashSet::from([expected]));
}

#[tokio::test]
async fn a_stop_does_not_wait_for_readers_that_do_not_read() {
    let mut env = Harness::start(&Options::default());
    let id = env.submit("demo.flood", json!([300, 20_000])).await;
    let _deaf = open_raw(&env, &id).await;
    env.finished(&id).await;
    assert_eq!(env.gateway.stop(Duration::from_secs(15)), Some(0), "{}", env.gateway.log());
}
