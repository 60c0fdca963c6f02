//! Limits by key: rates, concurrency, refusals, only the newest task, and limits set by hand.

use reqwest::Method;
use serde_json::{Value, json};

use super::{explained, reached};
use crate::edge::create;
use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::postgres::cluster;
use crate::harness::wait::{DEADLINE, within};
use crate::harness::{Gateway, Http, Latch, Redis, RedisOptions, eventually};

fn alone(config: &str) -> Options {
    Options { config: config.into(), without_worker: true, ..Options::default() }
}

fn limited(limits: &Value) -> Value {
    json!({"task": "demo.add", "args": [1, 1], "queue": "nobody", "limits": limits})
}

async fn send(http: &Http, method: Method, path: &str, body: &Value) -> crate::harness::Answer {
    let headers = [("content-type", "application/json")];
    http.send(method, path, &headers, (!body.is_null()).then(|| body.to_string().into_bytes())).await
}

/// One task of a key for each second, submitted at two gateways of which one is killed: never two closer together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_of_a_key_is_exact_over_replicas_and_a_restart() {
    let mut env = Harness::start(&alone(""));
    let other = env.replica("");
    let body = limited(&json!([{"key": "user-7", "rate": "1/s"}]));
    let mut ids = Vec::new();
    for n in 0..6 {
        let http = if n % 2 == 0 { env.gateway.http() } else { other.http() };
        let accepted = http.post("/v1/tasks", &body).await.expect(202);
        ids.push(accepted["task_id"].as_str().expect("an id").to_owned());
    }
    let why = explained(&other.http(), &ids[5], "the rate of user-7").await;
    assert_eq!(why["evidence"]["key"], "user-7", "{why}");
    env.gateway.kill();
    env.gateway.restart();
    let passed = within(DEADLINE, "all were published", async || {
        let passed = reached(&env, "queued");
        (passed.len() == ids.len()).then_some(passed)
    })
    .await;
    assert_eq!(passed.iter().map(|(id, _)| id).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
    assert!(passed.windows(2).all(|two| two[1].1 - two[0].1 >= 1_000_000), "{passed:?}");
}

/// A template in the catalog: each user has a rate, and no user waits for another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_user_of_an_entry_has_a_rate_of_their_own() {
    let config = "
[[tasks]]
name = 'demo.identity'
endpoint = 'POST /recommend/{user_id}'
args = ['{user_id}']
queue = 'nobody'
limits = [{ key = 'user-{user_id}', rate = '1/h' }]
";
    let env = Harness::start(&alone(config));
    let mut of = Vec::new();
    for user in ["1", "2", "1", "2"] {
        let accepted = env.http.post(&format!("/recommend/{user}"), &json!({})).await.expect(202);
        of.push(accepted["task_id"].as_str().expect("an id").to_owned());
    }
    env.in_phase(&of[0], "queued").await;
    env.in_phase(&of[1], "queued").await;
    explained(&env.http, &of[2], "the rate of user-1").await;
    explained(&env.http, &of[3], "the rate of user-2").await;
    // After the reset the next task may start at once.
    assert_eq!(send(&env.http, Method::DELETE, "/v1/limits/user-1", &Value::Null).await.status, 204);
    env.in_phase(&of[2], "queued").await;
    assert_eq!(env.http.get(&format!("/v1/tasks/{}", of[3])).await.expect(200)["phase"], "held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_rejects_takes_one_of_many_and_says_when_to_come_back() {
    let env = Harness::start(&Options::default());
    let other = env.replica("");
    let latch = Latch::closed();
    let body = json!({"task": "demo.until", "args": latch.args(()), "on_limit": "reject",
        "limits": [{"key": "report", "max": 1}]});
    let gateways = [env.http.clone(), other.http()];
    let calls = (0..20).map(|n| gateways[n % 2].post("/v1/tasks", &body));
    let answers = futures_util::future::join_all(calls).await;
    let (taken, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 202);
    assert_eq!(taken.len(), 1, "{:?}", answers.iter().map(|answer| answer.status).collect::<Vec<_>>());
    for answer in refused {
        let problem = answer.problem(429, "limit-reached");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("report")), "{problem}");
        assert!(answer.header("retry-after").and_then(|text| text.parse::<u64>().ok()).is_some_and(|secs| secs >= 1));
    }
    let id = taken[0].json()["task_id"].as_str().expect("an id").to_owned();
    env.in_phase(&id, "running").await;
    env.http.post("/v1/tasks", &body).await.problem(429, "limit-reached");
    latch.open();
    env.finished(&id).await;
    let next = env.http.post("/v1/tasks", &body).await.expect(202);
    env.finished(next["task_id"].as_str().expect("an id")).await;
    // A rate's explanation has the exact time.
    let once =
        json!({"task": "demo.add", "args": [1, 1], "limits": [{"key": "hourly", "rate": "1/h", "on_limit": "reject"}]});
    env.http.post("/v1/tasks", &once).await.expect(202);
    eventually("the rate is spent", async || {
        let answer = env.http.post("/v1/tasks", &once).await;
        answer.problem(429, "limit-reached");
        answer
            .header("retry-after")
            .and_then(|text| text.parse::<u64>().ok())
            .filter(|secs| (3_500..=3_600).contains(secs))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_only_the_newest_waits_older_ones_are_revoked() {
    let env = Harness::start(&alone(""));
    let body = json!({"task": "demo.add", "args": [1, 1], "queue": "nobody", "on_limit": "drop-oldest",
        "limits": [{"key": "refresh", "max": 1}]});
    let mut ids = Vec::new();
    for _ in 0..4 {
        let accepted = env.http.post("/v1/tasks", &body).await.expect(202);
        ids.push(accepted["task_id"].as_str().expect("an id").to_owned());
        // The first task runs before the next one is submitted.
        env.in_phase(&ids[0], "queued").await;
    }
    for id in &ids[1..3] {
        let dropped = env.finished(id).await;
        assert_eq!(dropped["status"], "REVOKED", "{dropped}");
    }
    let why = explained(&env.http, &ids[3], "the limit of refresh").await;
    assert_eq!((&why["evidence"]["ahead"], &why["evidence"]["under_way"]), (&json!(0), &json!(1)), "{why}");
    let task = env.http.get(&format!("/v1/tasks/{}", ids[1])).await.expect(200);
    assert!(task["reason"].as_str().is_some_and(|reason| reason.contains("newer")), "{task}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_of_a_schedule_and_tasks_that_take_a_place_drop_older_ones_too() {
    let env = Harness::start(&alone(""));
    let limits = json!([{"key": "refresh", "max": 1, "on_limit": "drop-oldest"}]);
    let call = json!({"task": "demo.add", "args": [1, 1], "queue": "nobody", "limits": limits});
    let mut document = call.clone();
    (document["name"], document["every"]) = (json!("refresh"), json!(86_400));
    env.http.post("/v1/schedules", &document).await.expect(201);
    let id = |answer: crate::harness::Answer| answer.expect(202)["task_id"].as_str().expect("an id").to_owned();
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(id(env.http.post("/v1/schedules/refresh/run", &json!({})).await));
        env.in_phase(&runs[0], "queued").await;
    }
    assert_eq!(env.finished(&runs[1]).await["status"], "REVOKED");
    let mut once = call.clone();
    once["unique"] = json!({"key": "newest", "on_conflict": "replace"});
    let first = id(env.http.post("/v1/tasks", &once).await);
    assert_eq!(env.finished(&runs[2]).await["status"], "REVOKED");
    let patient = id(env.http.post("/v1/tasks", &limited(&json!([{"key": "refresh", "max": 1}]))).await);
    // Only tasks that wait at the key can be dropped, and this one goes there in the next pass.
    eventually("both wait at the key", async || state(&env, "refresh").await.filter(|key| key["waiting"] == 2)).await;
    let second = env.http.post("/v1/tasks", &once).await.expect(202);
    assert_eq!(second["replaced"]["task_id"], json!(first), "{second}");
    let dropped = env.finished(&patient).await;
    assert_eq!(dropped["status"], "REVOKED", "{dropped}");
}

async fn state(env: &Lent<Box<Harness>>, key: &str) -> Option<Value> {
    let listed = env.http.get("/v1/limits").await.expect(200);
    listed["limits"].as_array().expect("a list").iter().find(|one| one["key"] == key).cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_listed_changed_paused_and_reset_over_http() {
    let env = Harness::start(&alone(""));
    let body = limited(&json!([{"key": "site/a", "max": 1}]));
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(env.http.post("/v1/tasks", &body).await.expect(202)["task_id"].as_str().expect("an id").to_owned());
    }
    let counted = eventually("one is under way and four wait", async || {
        state(&env, "site/a").await.filter(|one| one["under_way"] == 1 && one["waiting"] == 4)
    })
    .await;
    assert_eq!((&counted["max"], &counted["paused"], &counted["changed_at"]), (&json!(1), &json!(false), &Value::Null));
    let path = "/v1/limits/site%2Fa";
    let changed = send(&env.http, Method::PUT, path, &json!({"max": 3})).await.expect(200);
    assert_eq!((&changed["key"], &changed["max"]), (&json!("site/a"), &json!(3)));
    assert!(changed["changed_at"].is_string(), "{changed}");
    env.in_phase(&ids[2], "queued").await;
    send(&env.http, Method::PUT, path, &json!({"max": 9, "paused": true})).await.expect(200);
    let late = env.http.post("/v1/tasks", &body).await.expect(202)["task_id"].as_str().expect("an id").to_owned();
    explained(&env.http, &late, "which is paused").await;
    assert_eq!(send(&env.http, Method::DELETE, path, &Value::Null).await.status, 204);
    let back = state(&env, "site/a").await.expect("tasks are under way");
    assert_eq!((&back["changed_at"], &back["paused"]), (&Value::Null, &json!(false)), "{back}");
    for (body, pointer) in
        [(json!({}), ""), (json!({"max": 0}), "/max"), (json!({"rate": "often"}), "/rate"), (json!({"min": 1}), "/min")]
    {
        let problem = send(&env.http, Method::PUT, path, &body).await.problem(422, "invalid-request");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    }
}

/// The keys of a token belong to its namespace: no other caller sees, changes or shares them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_sees_and_changes_the_keys_of_its_namespace_only() {
    let (redis, database) = (Redis::start(RedisOptions::default()), cluster().migrated_database());
    create(&database, &["--name", "admin", "--scope", "admin"]);
    let gateway = Gateway::serve(&database, &redis.url(0), &redis.url(1), "auth = 'token'\nsubmit.allow = ['*']\n");
    let token = |name: &str, more: &[&str]| {
        let options = [&["--name", name, "--scope", "submit,read,control"], more].concat();
        format!("Bearer {}", create(&database, &options))
    };
    let (one, other) = (token("one", &["--tasks", "demo.*"]), token("other", &["--tasks", "demo.*"]));
    let call = async |token: &str, method: Method, path: &str, body: &Value| {
        let headers = [("authorization", token), ("content-type", "application/json")];
        let body = (!body.is_null()).then(|| body.to_string().into_bytes());
        gateway.http().send(method, path, &headers, body).await
    };
    let body = limited(&json!([{"key": "host", "max": 1}]));
    for _ in 0..2 {
        call(&one, Method::POST, "/v1/tasks", &body).await.expect(202);
    }
    let keys = async |token: &str| {
        let listed = call(token, Method::GET, "/v1/limits", &Value::Null).await.expect(200);
        let keys = listed["limits"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one["key"].as_str().expect("a key").to_owned());
        keys.collect::<Vec<_>>()
    };
    eventually("its own key is listed by its own word", async || (keys(&one).await == ["host"]).then_some(())).await;
    assert!(keys(&other).await.is_empty());
    call(&other, Method::PUT, "/v1/limits/host", &json!({"max": 5})).await.expect(200);
    assert_eq!(keys(&other).await, ["host"], "another key of the same word");
    let listed = call(&one, Method::GET, "/v1/limits", &Value::Null).await.expect(200);
    assert_eq!(
        (&listed["limits"][0]["max"], &listed["limits"][0]["changed_at"]),
        (&json!(1), &Value::Null),
        "{listed}"
    );
    // Not by the full name of the key either.
    call(&other, Method::PUT, "/v1/limits/%40one%2Fhost", &json!({"paused": true})).await.expect(200);
    let listed = call(&one, Method::GET, "/v1/limits", &Value::Null).await.expect(200);
    assert_eq!(listed["limits"][0]["paused"], false, "{listed}");
}
