//! One call that becomes a group of many (row S8).

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Options};
use crate::harness::gateway::Gateway;
use crate::harness::wait::{DEADLINE, within};
use crate::harness::{Http, Redis, RedisOptions, Stopwatch, Version, eventually, postgres, turns};

/// 100,000 chunks must be accepted within this time, and never take more than this memory.
const ACCEPTED: Duration = Duration::from_secs(10);
const MEMORY_KIB: u64 = 200 << 10;

async fn a_range_and_a_list_become_groups(version: Version) {
    let env = if version == Version::Latest { Harness::shared() } else { Harness::shared_older() };
    let accepted = env.http.post("/reindex-notices", &json!({"start": 5, "end": 40, "size": 10})).await.expect(202);
    assert_eq!(accepted["count"], 4, "{accepted}");
    assert_eq!(accepted["message"], "Indexing notices 5 to 40");
    assert_eq!(accepted["children"].as_array().map(Vec::len), Some(4));
    let done = env.finished(accepted["group_id"].as_str().expect("a group")).await;
    assert_eq!((&done["result"], &done["total"]), (&json!([10, 10, 10, 5]), &json!(4)), "{done}");

    let emails: Vec<String> = (0..250).map(|n| format!("a{n}@example.org")).collect();
    let accepted = env.http.post("/send-emails", &json!({"emails": emails})).await.expect(202);
    assert_eq!(accepted["count"], 3, "{accepted}");
    let done = env.finished(accepted["group_id"].as_str().expect("a group")).await;
    assert_eq!(done["result"], json!([100, 100, 50]), "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_and_a_list_become_groups_with_the_newest_celery() {
    a_range_and_a_list_become_groups(Version::Latest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_and_a_list_become_groups_with_the_older_celery() {
    a_range_and_a_list_become_groups(Version::Older).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_that_cannot_be_is_refused_by_name() {
    let env = Harness::start(&Options { without_worker: true, ..Options::default() });
    for (body, pointer) in [
        (json!({"start": 5, "end": 4}), "/end"),
        (json!({"start": 0, "end": 4, "size": 0}), "/size"),
        (json!({"start": 0, "end": 2_000_000, "size": 1}), "/end"),
        (json!({"start": "0", "end": 4}), "/start"),
    ] {
        let problem = env.http.post("/reindex-notices", &body).await.problem(422, "invalid-request");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    }
    let large = "x".repeat(1 << 20);
    let problem = env.http.post("/send-emails", &json!({"emails": ["a@b", large]})).await;
    assert_eq!(problem.problem(422, "invalid-request")["errors"][0]["pointer"], "/emails/1");
    assert_eq!(env.http.get("/v1/tasks").await.expect(200)["tasks"], json!([]), "something was accepted");
}

/// A gateway without workers whose list can be read.
struct Alone {
    gateway: Gateway,
    redis: Redis,
    _folder: tempfile::TempDir,
}

impl Alone {
    fn start(on_sqlite: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let database = if on_sqlite {
            format!("sqlite://{}", folder.path().join("ledger.db").display())
        } else {
            postgres::cluster().migrated_database()
        };
        let redis = Redis::start(RedisOptions { appendonly: true, ..RedisOptions::default() });
        let gateway = Gateway::serve(&database, &redis.url(0), &redis.url(1), "");
        Self { gateway, redis, _folder: folder }
    }

    fn http(&self) -> Http {
        self.gateway.http()
    }

    fn queued(&self) -> usize {
        self.redis.command(0, &["LLEN", "celery"])
    }
}

async fn fan_out(http: &Http, chunks: usize) -> Value {
    http.post("/reindex-notices", &json!({"start": 0, "end": chunks * 10, "size": 10})).await.expect(202)
}

async fn a_hundred_thousand_chunks_are_accepted_at_once(on_sqlite: bool) {
    let _turn = turns::alone();
    let env = Alone::start(on_sqlite);
    let http = env.http();
    let asked = Stopwatch::start();
    let accepted = fan_out(&http, 100_000).await;
    assert!(asked.elapsed() < ACCEPTED, "{:?}", asked.elapsed());
    assert_eq!((&accepted["count"], &accepted["children"]), (&json!(100_000), &Value::Null), "{accepted}");
    let group = accepted["group_id"].as_str().expect("a group").to_owned();
    // Another client's task does not wait for all of them.
    http.post("/v1/tasks", &json!({"task": "demo.add", "args": [1, 1], "queue": "light"})).await.expect(202);
    eventually("another queue is served meanwhile", async || {
        (env.redis.command::<usize>(0, &["LLEN", "light"]) == 1).then_some(())
    })
    .await;
    within(DEADLINE, "thousands are published", async || (env.queued() > 3_000).then_some(())).await;
    let path = format!("/result/{group}");
    let shown = http.get(&path).await.expect(202);
    assert_eq!((&shown["total"], &shown["completed"]), (&json!(100_000), &json!(0)));
    let status = std::fs::read_to_string(format!("/proc/{}/status", env.gateway.id())).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says it");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak < MEMORY_KIB, "{peak} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_chunks_are_accepted_at_once_on_postgresql() {
    a_hundred_thousand_chunks_are_accepted_at_once(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_chunks_are_accepted_at_once_on_sqlite() {
    a_hundred_thousand_chunks_are_accepted_at_once(true).await;
}

/// The gateway is killed in between: every chunk is queued, and none twice.
async fn a_crash_between_two_pieces_neither_loses_nor_doubles(on_sqlite: bool) {
    let mut env = Alone::start(on_sqlite);
    let http = env.http();
    let body = json!({"start": 0, "end": 60_000, "size": 10});
    let key = [("Idempotency-Key", "once")];
    let accepted = http.post_with("/reindex-notices", &key, &body).await.expect(202);
    eventually("some are queued", async || (env.queued() > 0).then_some(())).await;
    env.gateway.kill();
    env.gateway.restart();
    let again = http.post_with("/reindex-notices", &key, &body).await.expect(202);
    assert_eq!(again["group_id"], accepted["group_id"]);
    within(DEADLINE, "all are queued", async || (env.queued() >= 6_000).then_some(())).await;
    let group = accepted["group_id"].as_str().expect("a group");
    let shown = http.get(&format!("/result/{group}")).await.expect(202);
    let ids: HashSet<&str> =
        shown["children"].as_array().expect("members").iter().filter_map(|one| one["task_id"].as_str()).collect();
    assert_eq!((ids.len(), env.queued()), (6_000, 6_000));
    let messages: Vec<String> = env.redis.command(0, &["LRANGE", "celery", "0", "-1"]);
    let id = |text: &String| {
        let message: Value = serde_json::from_str(text).expect("an envelope");
        message["headers"]["id"].as_str().expect("an id").to_owned()
    };
    let published: HashSet<String> = messages.iter().map(id).collect();
    assert!(published.len() == 6_000 && published.iter().all(|id| ids.contains(id.as_str())));
    let message: Value = serde_json::from_str(&messages[0]).expect("an envelope");
    assert_eq!(message["headers"]["group"], group);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_two_pieces_neither_loses_nor_doubles_on_postgresql() {
    a_crash_between_two_pieces_neither_loses_nor_doubles(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_two_pieces_neither_loses_nor_doubles_on_sqlite() {
    a_crash_between_two_pieces_neither_loses_nor_doubles(true).await;
}
