//! Steps that wait and sleep, between unmodified Celery workers: the gateway is the worker of those steps.

use std::ops::Deref;

use reqwest::Method;
use serde_json::{Value, json};

use crate::edge::{Caller, create};
use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::postgres::cluster;
use crate::harness::rabbit::On;
use crate::harness::{Answer, CeleryOptions, Gateway, Http, Redis, RedisOptions, Version, eventually};

/// The open wait of this name, once it is there.
async fn open(http: &Http, name: &str) -> Value {
    eventually(&format!("{name} waits"), async || {
        let listed = http.get("/v1/waits?limit=500").await.expect(200);
        listed["waits"].as_array().expect("waits").iter().find(|wait| wait["name"] == name).cloned()
    })
    .await
}

fn complete(wait: &Value) -> String {
    wait["links"]["complete"].as_str().unwrap_or_else(|| panic!("no link in {wait}")).to_owned()
}

async fn delete(http: &Http, path: &str, body: &Value) -> Answer {
    let headers = [("content-type", "application/json")];
    http.send(Method::DELETE, path, &headers, Some(body.to_string().into_bytes())).await
}

/// A name that no other test has.
fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::now_v7())
}

fn ids(accepted: &Value) -> Vec<String> {
    let id = |child: &Value| child["task_id"].as_str().expect("an id").to_owned();
    accepted["children"].as_array().unwrap_or_else(|| panic!("no children in {accepted}")).iter().map(id).collect()
}

async fn the_answer_goes_on_to_the_next_step<H: Deref<Target = Harness>>(env: &Lent<H>) {
    let name = unique("approve");
    let canvas = json!({"chain": [
        {"task": "demo.add", "args": [2, 3]},
        {"wait": {"name": name, "timeout": 600, "schema": {"type": "integer"}}},
        {"task": "demo.mul", "args": [2]},
    ]});
    let accepted = env.http.post("/v1/tasks", &canvas).await.expect(202);
    let wait = open(&env.http, &name).await;
    assert_eq!((&wait["input"], &wait["schema"]), (&json!(5), &json!({"type": "integer"})), "{wait}");
    assert_eq!(wait["task_id"], accepted["children"][1]["task_id"]);
    let link = complete(&wait);
    let wrong = env.http.post(&link, &json!("many")).await.problem(422, "invalid-request");
    assert_eq!(wrong["errors"][0]["pointer"], "");
    // A worker runs the next step, and could not decode this value.
    let unreadable = json!([{"__type__": "nosuch", "__value__": 1}]);
    let wrong = env.http.post(&link, &unreadable).await.problem(422, "invalid-request");
    assert_eq!(wrong["errors"][0]["pointer"], "/0", "{wrong}");
    let taken = env.http.post(&link, &json!(21)).await.expect(200);
    assert_eq!((&taken["state"], &taken["answer"]), (&json!("answered"), &json!(21)));
    let again = env.http.post(&link, &json!(7)).await.problem(409, "wait-over");
    assert_eq!(again["answer"], 21, "{again}");
    let result = env.finished(accepted["task_id"].as_str().expect("an id")).await;
    assert_eq!(result["result"], 42, "{result}");
    let step = env.finished(wait["task_id"].as_str().expect("an id")).await;
    assert_eq!((&step["status"], &step["result"]), (&json!("SUCCESS"), &json!(21)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_goes_on_to_the_next_step_with_the_newest_celery() {
    the_answer_goes_on_to_the_next_step(&Harness::shared()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_goes_on_to_the_next_step_with_the_older_celery() {
    the_answer_goes_on_to_the_next_step(&Harness::shared_older()).await;
}

async fn a_chord_counts_a_wait_in_its_header<H: Deref<Target = Harness>>(env: &Lent<H>) {
    let (one, two) = (unique("one"), unique("two"));
    let canvas = json!({"chord": {
        "header": [
            {"task": "demo.add", "args": [1, 1]},
            {"wait": {"name": one}},
            {"chain": [{"task": "demo.add", "args": [2, 2]}, {"wait": {"name": two}}]},
        ],
        "body": {"task": "demo.xsum"},
    }});
    let accepted = env.http.post("/v1/tasks", &canvas).await.expect(202);
    for (name, answer) in [(&two, 30), (&one, 10)] {
        let wait = open(&env.http, name).await;
        env.http.post(&complete(&wait), &json!(answer)).await.expect(200);
    }
    let result = env.finished(accepted["task_id"].as_str().expect("an id")).await;
    assert_eq!(result["result"], 42, "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chord_counts_a_wait_in_its_header_with_the_newest_celery() {
    a_chord_counts_a_wait_in_its_header(&Harness::shared()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chord_counts_a_wait_in_its_header_with_the_older_celery() {
    a_chord_counts_a_wait_in_its_header(&Harness::shared_older()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_is_the_body_of_a_chord_and_the_whole_of_a_submission() {
    let env = Harness::shared();
    let name = unique("body");
    let header = json!([{"task": "demo.add", "args": [1, 1]}, {"task": "demo.add", "args": [2, 2]}]);
    let canvas = json!({"chain": [{"group": header}, {"wait": {"name": name}}, {"task": "demo.xsum"}]});
    let accepted = env.http.post("/v1/tasks", &canvas).await.expect(202);
    let wait = open(&env.http, &name).await;
    assert_eq!(wait["input"], json!([2, 4]), "{wait}");
    env.http.post(&complete(&wait), &json!([2, 4, 36])).await.expect(200);
    let result = env.finished(accepted["task_id"].as_str().expect("an id")).await;
    assert_eq!(result["result"], 42, "{result}");

    let name = unique("alone");
    let accepted = env.http.post("/v1/tasks", &json!({"wait": {"name": name}})).await.expect(202);
    let id = accepted["task_id"].as_str().expect("an id");
    open(&env.http, &name).await;
    env.http.post(&format!("/v1/tasks/{id}/complete"), &json!({"a": [1, null]})).await.expect(200);
    let result = env.finished(id).await;
    assert_eq!(result["result"], json!({"a": [1, null]}), "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleep_passes_on_what_it_was_given() {
    let env = Harness::shared();
    let canvas = json!({"chain": [
        {"sleep": 0.2},
        {"task": "demo.add", "args": [2, 3]},
        {"sleep": 0.3},
        {"task": "demo.mul", "args": [4]},
    ]});
    let accepted = env.http.post("/v1/tasks", &canvas).await.expect(202);
    let result = env.finished(accepted["task_id"].as_str().expect("an id")).await;
    assert_eq!(result["result"], 20, "{result}");
    let listed = env.http.get("/v1/waits?limit=500").await.expect(200);
    assert!(!listed.to_string().contains("\"sleep\""), "a sleep takes no answer: {listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_nobody_answers_fails_or_is_skipped() {
    let env = Harness::shared();
    let canvas = |name: &str, on_timeout: &str| {
        json!({"chain": [
            {"task": "demo.add", "args": [2, 3]},
            {"wait": {"name": name, "timeout": 0.3, "on_timeout": on_timeout}},
            {"task": "demo.mul", "args": [4]},
        ]})
    };
    let skipped = env.http.post("/v1/tasks", &canvas(&unique("skip"), "skip")).await.expect(202);
    let failed = env.http.post("/v1/tasks", &canvas(&unique("fail"), "fail")).await.expect(202);
    let result = env.finished(skipped["task_id"].as_str().expect("an id")).await;
    assert_eq!(result["result"], 20, "{result}");
    let ids = ids(&failed);
    let step = env.finished(&ids[1]).await;
    assert_eq!((&step["status"], &step["error"]["type"]), (&json!("FAILURE"), &json!("TimeoutError")), "{step}");
    let after = env.finished(&ids[2]).await;
    assert_eq!((&after["status"], &after["error"]["type"]), (&json!("FAILURE"), &json!("TimeoutError")), "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_wait_fails_and_calls_its_errback() {
    let env = Harness::shared();
    let name = unique("refuse");
    let errback = uuid::Uuid::now_v7().to_string();
    let canvas = json!({"chain": [
        {"wait": {"name": name}, "link_error": [{"task": "demo.echo", "task_id": errback}]},
        {"task": "demo.identity"},
    ]});
    let accepted = env.http.post("/v1/tasks", &canvas).await.expect(202);
    let link = complete(&open(&env.http, &name).await);
    delete(&env.http, &link, &json!({"why": 1})).await.problem(422, "invalid-request");
    let refused = delete(&env.http, &link, &json!({"reason": "too expensive"})).await.expect(200);
    assert_eq!(refused["state"], "refused");
    env.http.post(&link, &json!(1)).await.problem(409, "wait-over");
    let step = env.finished(&ids(&accepted)[0]).await;
    assert_eq!(step["error"], json!({"type": "WaitRefused", "message": "too expensive"}), "{step}");
    let called = env.finished(&errback).await;
    assert_eq!(called["status"], "SUCCESS", "{called}");
    let after = env.finished(accepted["task_id"].as_str().expect("an id")).await;
    assert_eq!(after["error"]["type"], "WaitRefused", "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_wait_ends_and_what_follows_never_runs() {
    let env = Harness::shared();
    let name = unique("revoke");
    let canvas = json!({"chain": [{"wait": {"name": name}}, {"task": "demo.identity"}]});
    let accepted = env.http.post("/v1/tasks", &canvas).await.expect(202);
    let ids = ids(&accepted);
    let link = complete(&open(&env.http, &name).await);
    // The wait is listed a moment before its task is `running`.
    eventually("the wait is explained", async || {
        let explained = env.http.get(&format!("/v1/tasks/{}/explain", ids[0])).await.expect(200);
        explained["sentence"].as_str().expect("a sentence").contains(&name).then_some(())
    })
    .await;
    let verdict = env.http.post(&format!("/v1/tasks/{}/revoke", ids[0]), &json!({})).await.expect(200);
    assert_eq!((&verdict["verdict"], &verdict["confirmed"]), (&json!("signalled"), &json!(true)), "{verdict}");
    env.http.post(&link, &json!(1)).await.problem(409, "wait-over");
    env.in_phase(&ids[0], "revoked").await;
    env.in_phase(&ids[1], "skipped").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_wait_survives_the_loss_of_everything_but_the_ledger() {
    let mut env = Harness::start(&Options {
        config: "[sweeper]\nperiod = '1s'\ngrace = '500ms'\nworker_lost_after = '3s'\n".into(),
        ..Options::default()
    });
    let canvas = json!({"chain": [
        {"group": [
            {"chain": [{"task": "demo.add", "args": [2, 3]}, {"wait": {"name": "late"}}]},
            {"task": "demo.add", "args": [1, 1]},
        ]},
        {"task": "demo.xsum"},
        {"wait": {"name": "last"}},
        {"task": "demo.mul", "args": [2]},
    ]});
    let accepted = env.http.post("/v1/tasks", &canvas).await.expect(202);
    let before = open(&env.http, "late").await;
    eventually("the other member has ended", async || {
        let listed = env.http.get("/v1/tasks?status=SUCCESS").await.expect(200);
        (listed["tasks"].as_array().expect("tasks").len() == 2).then_some(())
    })
    .await;
    env.gateway.kill();
    env.redis.kill();
    env.celery.as_mut().expect("a worker").kill();
    env.redis.restart();
    let _: () = env.redis.command(0, &["FLUSHALL"]);
    env.celery.as_mut().expect("a worker").restart();
    env.gateway.restart();
    let after = open(&env.http, "late").await;
    assert_eq!(before, after);
    env.http.post(&complete(&after), &json!(19)).await.expect(200);
    let last = open(&env.http, "last").await;
    assert_eq!(last["input"], 21, "{last}");
    env.gateway.restart();
    env.http.post(&complete(&last), &json!(21)).await.expect(200);
    let result = env.finished(accepted["task_id"].as_str().expect("an id")).await;
    assert_eq!(result["result"], 42, "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_settles_what_one_took_and_each_step_is_sent_once() {
    let mut env = Harness::start(&Options::default());
    let other = env.replica("");
    let accepted = env
        .http
        .post("/v1/tasks", &json!({"chain": [{"wait": {"name": "w", "timeout": 600}}, {"task": "demo.identity"}]}))
        .await
        .expect(202);
    let wait = open(&env.http, "w").await;
    env.gateway.kill();
    let http = other.http();
    let answers = futures_util::future::join_all((0..8).map(|n| {
        let (http, link) = (&http, complete(&wait));
        async move { http.post(&link, &json!(n)).await.status }
    }))
    .await;
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 1, "{answers:?}");
    let id = accepted["task_id"].as_str().expect("an id");
    let result = eventually("it is finished", async || {
        let answer = http.get(&format!("/result/{id}")).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!(result["status"], "SUCCESS");
    let log = env.celery.as_ref().expect("a worker").log();
    assert_eq!(log.matches(&format!("[{id}] received")).count(), 1, "{log}");
    assert_eq!(log.matches(&format!("[{id}] succeeded")).count(), 1, "{log}");
    let path = format!("/v1/tasks/{id}/events");
    let history = http.get_with(&path, &[("accept", "application/json")]).await.expect(200);
    let ends = history["events"].as_array().expect("events").iter().filter(|event| event["phase"] == "succeeded");
    assert_eq!(ends.count(), 1, "{history}");
    let settled =
        history["events"].as_array().expect("events").iter().filter(|event| event["delivery"].as_i64() > Some(1));
    assert_eq!(settled.count(), 0, "{history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_wait_is_refused_by_its_place() {
    let env = Harness::shared();
    let refused = async |body: Value, pointer: &str| {
        let problem = env.http.post("/v1/tasks", &body).await.problem(422, "invalid-request");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    };
    refused(json!({"wait": {}}), "/wait/name").await;
    refused(json!({"chain": [{"wait": {"name": "a", "timeout": 99_999_999}}]}), "/chain/0/wait/timeout").await;
    refused(json!({"chain": [{"wait": {"name": "a", "schema": {"type": "what"}}}]}), "/chain/0/wait/schema").await;
    refused(json!({"wait": {"name": "a", "on_timeout": "retry"}}), "/wait/on_timeout").await;
    refused(json!({"wait": {"name": "a"}, "queue": "mine"}), "/queue").await;
    refused(json!({"sleep": 0}), "/sleep").await;
    refused(json!({"sleep": "a while"}), "/sleep").await;
    refused(json!({"task": "taskgate.other"}), "/task").await;
    refused(json!({"task": "demo.add", "queue": "taskgate.waits"}), "/queue").await;
    env.http.post("/v1/waits/guessed", &json!(1)).await.problem(404, "wait-not-found");
    env.http.get("/v1/waits?cursor=x").await.problem(400, "invalid-cursor");
}

#[tokio::test]
async fn a_link_needs_no_token_and_a_limited_token_sees_its_own_waits() {
    let redis = Redis::start(RedisOptions::default());
    let database = cluster().migrated_database();
    let token = |options: &[&str]| format!("Bearer {}", create(&database, options));
    let one = token(&["--name", "one", "--scope", "submit,read", "--tasks", "demo.*"]);
    let two = token(&["--name", "two", "--scope", "submit,read,control", "--tasks", "demo.*"]);
    let gateway = Gateway::serve(&database, &redis.url(0), &redis.url(1), "auth = 'token'\nsubmit.allow = ['*']");
    let caller = |token: &str| Caller { http: gateway.http(), token: token.to_owned() };
    let (one, two) = (caller(&one), caller(&two));
    let call = async |caller: &Caller, method: Method, path: &str, body: &Value| {
        let headers = [("authorization", caller.token.as_str()), ("content-type", "application/json")];
        caller.http.send(method, path, &headers, Some(body.to_string().into_bytes())).await
    };
    let accepted = call(&one, Method::POST, "/v1/tasks", &json!({"wait": {"name": "mine"}})).await.expect(202);
    let id = accepted["task_id"].as_str().expect("an id");
    let mine = eventually("its wait is listed", async || {
        let listed = call(&one, Method::GET, "/v1/waits", &json!({})).await.expect(200);
        listed["waits"].as_array().expect("waits").first().cloned()
    })
    .await;
    let foreign = call(&two, Method::GET, "/v1/waits", &json!({})).await.expect(200);
    assert_eq!(foreign["waits"], json!([]));
    let path = format!("/v1/tasks/{id}/complete");
    assert_eq!(call(&one, Method::POST, &path, &json!(1)).await.status, 403);
    assert_eq!(call(&two, Method::POST, &path, &json!(1)).await.status, 404);
    gateway.http().post(&complete(&mine), &json!(1)).await.expect(200);
}

async fn a_wait_in_a_chain_goes_on(version: Version) {
    let celery = CeleryOptions { version, ..CeleryOptions::default() };
    let env = Harness::start(&Options { broker: On::Rabbit, celery, ..Options::default() });
    let canvas = json!({"chain": [
        {"wait": {"name": "first"}},
        {"task": "demo.add", "args": [2]},
        {"wait": {"name": "second"}},
        {"task": "demo.mul", "args": [2]},
    ]});
    let accepted = env.http.post("/v1/tasks", &canvas).await.expect(202);
    for (name, answer) in [("first", 1), ("second", 21)] {
        let wait = open(&env.http, name).await;
        env.http.post(&complete(&wait), &json!(answer)).await.expect(200);
    }
    let result = env.finished(accepted["task_id"].as_str().expect("an id")).await;
    assert_eq!(result["result"], 42, "{result}");
}

#[tokio::test]
async fn a_wait_in_a_chain_goes_on_over_rabbitmq() {
    a_wait_in_a_chain_goes_on(Version::Latest).await;
}

#[tokio::test]
async fn a_wait_in_a_chain_goes_on_over_rabbitmq_with_the_older_celery() {
    a_wait_in_a_chain_goes_on(Version::Older).await;
}
