//! Webhooks from end to end: exactly the recorded events, signed, retried until accepted, without delaying anything else.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::receiver::{Receiver, SECRET};
use super::shared;
use crate::harness::environment::{Harness, Options};
use crate::harness::wait::{DEADLINE, within};
use crate::harness::{Gateway, Http, Redis, RedisOptions, eventually, ports, postgres};

/// Registers `receiver` for tasks of `name`; answers with the webhook.
async fn register(http: &Http, receiver: &Receiver, on: &[&str], label: &str) -> Value {
    let wanted = json!({"url": receiver.url, "on": on, "tasks": [label], "secret": SECRET});
    http.post("/v1/webhooks", &wanted).await.expect(201)
}

fn seqs(events: &[Value]) -> BTreeSet<i64> {
    events.iter().map(|event| event["seq"].as_i64().expect("a number")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_hears_of_everything_that_was_recorded_of_its_task() {
    let env = shared();
    let receiver = Receiver::start().await;
    let rotated = env.http.post("/v1/webhooks/submissions/rotate", &json!({"secret": SECRET, "overlap": 0})).await;
    assert_eq!(rotated.expect(200)["secret"], SECRET);
    let id = env
        .submit_signature(json!({"task": "demo.progress", "args": [3], "labels": {"who": "me"},
            "webhooks": [{"url": receiver.url, "on": ["*"]}]}))
        .await;
    env.finished(&id).await;
    let history =
        env.http.get_with(&format!("/v1/tasks/{id}/events"), &[("accept", "application/json")]).await.expect(200);
    let recorded: Vec<Value> = history["events"].as_array().unwrap().iter().map(|one| one["data"].clone()).collect();
    let wanted = if recorded[0].is_null() { seqs(history["events"].as_array().unwrap()) } else { seqs(&recorded) };
    let told = eventually("everything was told", async || {
        let told = receiver.of_task(&id);
        (told.len() >= wanted.len()).then_some(told)
    })
    .await;
    let payloads: Vec<Value> = told.iter().map(|one| one.json()["data"].clone()).collect();
    assert_eq!(seqs(&payloads), wanted);
    assert_eq!(told.len(), wanted.len(), "each once: {payloads:?}");
    assert!(told.iter().all(|one| one.is_signed_with(SECRET)));
    let end = told.iter().find(|one| one.json()["type"] == "task.succeeded").expect("its end").json();
    assert_eq!((&end["data"]["labels"]["who"], &end["data"]["status"]), (&json!("me"), &json!("SUCCESS")), "{end}");
    assert!(payloads.iter().any(|data| data["status"] == "PROGRESS" && !data["meta"].is_null()), "{payloads:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_is_repeated_with_the_same_id_until_it_is_taken_and_can_be_sent_again() {
    let env = shared();
    let receiver = Receiver::answering(|number| (if number < 2 { 500 } else { 200 }, Duration::ZERO)).await;
    let webhook = register(&env.http, &receiver, &["failure"], "demo.fail").await;
    let path = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
    let id = env.submit("demo.fail", json!(["KeyError", "boom"])).await;
    let list = format!("{path}/deliveries?task_id={id}");
    let delivery = eventually("the delivery was taken", async || {
        let found = env.http.get(&list).await.expect(200)["deliveries"][0].clone();
        (found["state"] == "delivered").then_some(found)
    })
    .await;
    assert_eq!((&delivery["attempts"], &delivery["last_status"]), (&json!(3), &json!(200)), "{delivery}");
    assert_eq!(delivery["payload"]["data"]["error"]["type"], "KeyError", "{delivery}");
    let again =
        env.http.post(&format!("{path}/deliveries/{}/resend", delivery["id"].as_str().unwrap()), &json!({})).await;
    again.expect(202);
    eventually("it came again", async || (receiver.of_task(&id).len() == 4).then_some(())).await;
    assert!(receiver.of_task(&id).iter().all(|one| one.id() == delivery["id"] && one.is_signed_with(SECRET)));
    env.http
        .post(&format!("{path}/deliveries/msg_unknown/resend"), &json!({}))
        .await
        .problem(404, "delivery-not-found");
    let gone = env.http.send(reqwest::Method::DELETE, &path, &[], None).await;
    assert_eq!(gone.status, 204);
    env.http.get(&list).await.problem(404, "webhook-not-found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_replaced_with_an_overlap_and_a_retry_is_told() {
    let env = shared();
    let receiver = Receiver::start().await;
    let webhook = register(&env.http, &receiver, &["retry", "success"], "demo.retry").await;
    let path = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
    assert!(env.http.get(&path).await.expect(200).get("secret").is_none());
    let rotated = env.http.post(&format!("{path}/rotate"), &json!({"overlap": 3600})).await.expect(200);
    let new = rotated["secret"].as_str().unwrap();
    assert!(new != SECRET && rotated["old_secret_until"].is_string(), "{rotated}");
    let id = env.submit("demo.retry", json!([1, 1])).await;
    // The worker has others to serve, one of them for long.
    let told = within(DEADLINE, "a retry and the success were told", async || {
        let told = receiver.of_task(&id);
        (told.len() >= 2).then_some(told)
    })
    .await;
    assert!(told.iter().all(|one| one.is_signed_with(SECRET) && one.is_signed_with(new)));
    let kinds: BTreeSet<String> = told.iter().map(|one| one.json()["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["task.retrying", "task.succeeded"]);
    env.http.post(&format!("{path}/rotate"), &json!({"overlap": 0})).await.expect(200);
    let id = env.submit("demo.retry", json!([0, 0.1])).await;
    let told = eventually("the next success was told", async || receiver.of_task(&id).pop()).await;
    assert!(!told.is_signed_with(SECRET) && !told.is_signed_with(new));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_targets_redirects_and_receivers_that_are_gone_end_a_delivery() {
    let env = shared();
    for url in ["http://169.254.169.254/latest", "http://[::1]/x", "http://2130706434/", "http://10.0.0.1:8080/"] {
        let problem = env.http.post("/v1/webhooks", &json!({"url": url})).await.problem(422, "invalid-request");
        assert_eq!(problem["errors"][0]["pointer"], "/url", "{problem}");
    }
    let (moved, gone) =
        (Receiver::answering(|_| (302, Duration::ZERO)).await, Receiver::answering(|_| (410, Duration::ZERO)).await);
    let webhook = register(&env.http, &gone, &["success"], "demo.mul").await;
    let private =
        json!({"task": "demo.mul", "webhooks": [{"url": moved.url}, {"url": "http://169.254.169.254/latest"}]});
    let problem = env.http.post("/v1/tasks", &private).await.problem(422, "invalid-request");
    assert_eq!(problem["errors"][0]["pointer"], "/webhooks/1/url", "{problem}");
    let hooks = json!([{"url": moved.url}]);
    let id = env.submit_signature(json!({"task": "demo.mul", "args": [2, 3], "webhooks": hooks})).await;
    let deliveries = eventually("it was tried", async || {
        let path = format!("/v1/webhooks/submissions/deliveries?task_id={id}");
        let found = env.http.get(&path).await.expect(200)["deliveries"].as_array().unwrap().clone();
        (found.len() == 1 && found.iter().all(|one| !one["last_error"].is_null())).then_some(found)
    })
    .await;
    let of = |part: &str| deliveries.iter().find(|one| one["url"].as_str().unwrap().contains(part)).unwrap();
    assert!(of("127.0.0.1")["last_error"].as_str().unwrap().contains("redirects"), "{deliveries:?}");
    eventually("the endpoint that is gone was disabled", async || {
        let path = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
        let webhook = env.http.get(&path).await.expect(200);
        (webhook["enabled"] == false).then(|| assert!(webhook["disabled_reason"].as_str().unwrap().contains("410")))
    })
    .await;
    assert_eq!(gone.of_task(&id).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_delays_nobody_else_and_gets_few_at_a_time() {
    let env = shared();
    let slow = Receiver::answering(|_| (200, Duration::from_secs(6))).await;
    let quick = Receiver::start().await;
    register(&env.http, &slow, &["success"], "demo.list").await;
    register(&env.http, &quick, &["success"], "demo.list").await;
    let started = Instant::now();
    let mut last = String::new();
    for _ in 0..12 {
        last = env.submit("demo.list", json!([1])).await;
    }
    env.finished(&last).await;
    eventually("the quick one was told of all", async || (quick.received().len() == 12).then_some(())).await;
    // The slow one takes two at a time for six seconds each: twelve would take more than half a minute.
    assert!(slow.received().len() < 12, "{:?} for {}", started.elapsed(), slow.received().len());
    assert!(slow.most() <= 2, "{}", slow.most());
}

/// The gateway is killed repeatedly while events are recorded and delivered; the webhook is from the catalog.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kills_each_recorded_event_was_told_and_nothing_else() {
    let receiver = Receiver::start().await;
    let entry = format!(
        "[webhooks]\nallow_private = true\nfirst_retry = \"100ms\"\ntimeout = \"1s\"\n\
         [[tasks]]\nname = \"demo.echo\"\nredact = [\"password\"]\nqueue = \"nobody\"\n\
         webhooks = [{{ url = \"{}\", on = [\"accepted\", \"queued\"], secret = \"{SECRET}\" }}]\n",
        receiver.url
    );
    let mut env = Harness::start(&Options { config: entry, without_worker: true, ..Options::default() });
    for _ in 0..3 {
        for _ in 0..30 {
            let kwargs = json!({"password": "geheim"});
            env.submit_signature(json!({"task": "demo.echo", "kwargs": kwargs})).await;
        }
        env.gateway.kill();
        env.gateway.restart();
    }
    let recorded = |sql: &str| postgres::query(&env.database, sql);
    let events = eventually("all were queued", async || {
        let queued = recorded("select count(*) from taskgate.event where phase = 'queued'");
        (queued == "90").then(|| recorded("select count(*) from taskgate.event where phase in ('accepted', 'queued')"))
    })
    .await;
    // Deliveries that a killed gateway had begun are free again when their leases end.
    let told = within(DEADLINE, "all were told", async || {
        let told: BTreeSet<(String, i64)> = receiver
            .received()
            .iter()
            .map(|one| one.json()["data"].clone())
            .map(|data| (data["task_id"].as_str().unwrap().to_owned(), data["seq"].as_i64().unwrap()))
            .collect();
        (told.len().to_string() == events).then_some(told)
    })
    .await;
    assert_eq!(told.len(), 180);
    let ids: BTreeSet<String> = receiver.received().iter().map(|one| one.id().to_owned()).collect();
    assert_eq!(ids.len(), 180, "an id stands for an event");
    assert!(receiver.received().iter().all(|one| one.is_signed_with(SECRET)));
    let rows = recorded("select count(*) from taskgate.webhook_delivery where endpoint_id = 'catalog'");
    assert_eq!(rows, "180");
}

/// SQLite has one connection that writes, which submissions and deliveries share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_that_fail_delay_no_submission_on_sqlite() {
    let (redis, folder) = (Redis::start(RedisOptions::default()), tempfile::tempdir().expect("a folder"));
    let database = format!("sqlite://{}", folder.path().join("ledger.db").display());
    let config = "webhooks.allow_private = true\nsubmit.allow = ['*']";
    let gateway = Gateway::serve(&database, &redis.url(0), &redis.url(1), config);
    let http = gateway.http();
    for url in [format!("http://127.0.0.1:{}/x", ports::free()), "https://nobody.invalid/x".to_owned()] {
        http.post("/v1/webhooks", &json!({"url": url, "on": ["*"]})).await.expect(201);
    }
    let call = json!({"task": "demo.add", "args": [1, 2], "queue": "nobody"});
    for burst in 0..6 {
        let answers = join_all((0..12).map(|_| http.post("/v1/tasks", &call))).await;
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [202; 12], "burst {burst}");
    }
}
