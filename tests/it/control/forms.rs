//! Every form of canvas on real workers, and what is refused before anything is published (rows S3, S5, S6).

use std::collections::HashSet;
use std::ops::Deref;

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::{CeleryOptions, Version, eventually};

fn add(args: Value) -> Value {
    json!({"task": "demo.add", "args": args})
}

async fn result<H: Deref<Target = Harness>>(env: &Lent<H>, signature: Value) -> Value {
    let accepted = env.http.post("/v1/tasks", &signature).await.expect(202);
    let id = accepted["task_id"].as_str().or(accepted["group_id"].as_str()).expect("an id").to_owned();
    // All nodes are in the ledger when the answer is sent.
    for child in accepted["children"].as_array().into_iter().flatten() {
        env.http.get(&format!("/v1/tasks/{}", child["task_id"].as_str().expect("an id"))).await.expect(200);
    }
    let done = env.finished(&id).await;
    assert_eq!(done["status"], "SUCCESS", "{signature}: {done}");
    done["result"].clone()
}

pub(super) async fn every_form_runs<H: Deref<Target = Harness>>(env: &Lent<H>) {
    let (one, two) = (add(json!([1, 1])), add(json!([2, 2])));
    let sum = json!({"task": "demo.xsum"});
    let plus = |n: i64| add(json!([n]));
    let forms = [
        (json!({"chain": [one, plus(10), plus(100)]}), json!(112)),
        (json!({"group": [one, two]}), json!([2, 4])),
        (json!({"chord": {"header": [one, two], "body": sum}}), json!(6)),
        (json!({"chain": [{"group": [one, two]}, sum, plus(1)]}), json!(7)),
        (json!({"chain": [one, {"chord": {"header": [plus(1), plus(2)], "body": sum}}, plus(100)]}), json!(107)),
        (json!({"chord": {"header": [{"chain": [one, plus(1)]}, two], "body": sum}}), json!(7)),
        (json!({"group": [{"chain": [one, plus(1)]}, {"chain": [two, plus(1)]}]}), json!([3, 5])),
        (json!({"chord": {"header": [one, two], "body": {"chain": [sum, plus(10)]}}}), json!(16)),
        (json!({"chain": [one, {"group": [plus(1), plus(2)]}]}), json!([3, 4])),
        (json!({"group": []}), json!([])),
        (json!({"group": [one]}), json!([2])),
        (json!({"chain": [one]}), json!(2)),
        (json!({"chord": {"header": [], "body": sum}}), json!(0)),
        (json!({"chain": [one, {"task": "demo.add", "args": [5, 5], "immutable": true}]}), json!(10)),
    ];
    for (signature, expected) in forms {
        assert_eq!(result(env, signature.clone()).await, expected, "{signature}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_runs_with_the_newest_celery() {
    every_form_runs(&Harness::shared()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_runs_with_the_older_celery() {
    every_form_runs(&Harness::shared_older()).await;
}

pub(super) async fn groups_are_followed_to_their_end<H: Deref<Target = Harness>>(env: &Lent<H>) {
    let slow = |seconds: f64| json!({"task": "demo.sleep", "args": [seconds, 1]});
    let accepted = env.http.post("/group", &json!({"tasks": [slow(0.1), slow(0.3), slow(0.5)]})).await.expect(202);
    assert_eq!(accepted["count"], 3, "{accepted}");
    let group = accepted["group_id"].as_str().expect("a group");
    env.finished(group).await;
    let path = format!("/v1/tasks/{group}/events");
    let mut events = env.http.events(&path, &[("Last-Event-ID", "0")]).await;
    for completed in [1, 2] {
        let event = events.next().await.expect("a step");
        assert_eq!((event.event.as_str(), &event.json()["completed"]), ("progress", &json!(completed)));
        assert_eq!(event.json()["total"], 3);
    }
    assert_eq!(events.next().await.expect("the end").event, "end");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_followed_to_their_end_with_the_newest_celery() {
    groups_are_followed_to_their_end(&Harness::shared()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_followed_to_their_end_with_the_older_celery() {
    groups_are_followed_to_their_end(&Harness::shared_older()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canvas_that_cannot_be_is_refused_with_its_place_and_nothing_is_published() {
    let config = "limits.depth = 8\nlimits.tasks = 20\n";
    let env = Harness::start(&Options { without_worker: true, config: config.into(), ..Options::default() });
    let id = "0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c42";
    let mut deep = add(json!([1, 1]));
    for _ in 0..12 {
        deep = json!({"chain": [deep]});
    }
    let wide: Vec<Value> = (0..21).map(|n| add(json!([n, n]))).collect();
    let same = json!({"task": "demo.add", "args": [1, 1], "task_id": id});
    let mut cycle = same.clone();
    cycle["link"] = json!([same]);
    let too_deep = env.http.post("/v1/tasks", &deep).await.problem(400, "invalid-json");
    assert_eq!(too_deep["errors"][0]["pointer"], "/chain/0".repeat(4), "{too_deep}");
    for (canvas, pointer) in [
        (json!({"group": wide}), "/group"),
        (json!({"group": [same, same]}), "/group/1/task_id"),
        (cycle, "/link/0/task_id"),
    ] {
        let problem = env.http.post("/v1/tasks", &canvas).await.problem(422, "invalid-request");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    assert_eq!(env.http.get("/v1/tasks").await.expect(200)["tasks"], json!([]));
    assert_eq!(env.redis.command::<i64>(0, &["LLEN", "celery"]), 0);
    env.http.post("/v1/tasks", &same).await.expect(202);
    let again = env.http.post("/v1/tasks", &json!({"group": [add(json!([1, 1])), same]})).await;
    let problem = again.problem(409, "id-taken");
    assert_eq!(problem["errors"][0]["pointer"], "/group/1/task_id", "{problem}");
    assert_eq!(env.http.get("/v1/tasks").await.expect(200)["tasks"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_of_a_python_task_makes_new_tasks_and_is_refused_in_a_canvas() {
    let env = Harness::start(&Options::default());
    let failing = json!({"task": "demo.fail", "retry": {"max": 2, "delay": 0.2}});
    let mut id = env.submit_signature(failing.clone()).await;
    let mut seen = HashSet::new();
    for _ in 0..2 {
        assert_eq!(env.finished(&id).await["status"], "FAILURE");
        assert!(seen.insert(id.clone()), "{id} follows itself");
        let next = eventually("it is retried", async || {
            let task = env.http.get(&format!("/v1/tasks/{id}")).await.expect(200);
            task["retried_as"].as_str().map(str::to_owned)
        })
        .await;
        assert_eq!(env.http.get(&format!("/v1/tasks/{next}")).await.expect(200)["retry_of"], id);
        id = next;
    }
    assert_eq!(env.finished(&id).await["status"], "FAILURE");
    let letters = env.http.get("/v1/dead-letters").await.expect(200);
    let ids: Vec<&Value> = letters["tasks"].as_array().expect("a list").iter().map(|one| &one["task_id"]).collect();
    assert_eq!(ids, [&json!(id)], "only what failed for good is a dead letter");

    eventually("the worker's queues are known", async || {
        let list = env.http.get("/v1/workers").await.expect(200);
        list["workers"][0]["queues"].as_array().is_some_and(|queues| !queues.is_empty()).then_some(())
    })
    .await;
    for (path, body, pointer) in [
        ("/v1/tasks", json!({"chain": [add(json!([1, 1])), failing]}), "/chain/1/retry"),
        ("/chain", json!({"tasks": [failing, add(json!([1]))]}), "/tasks/0/retry"),
    ] {
        let problem = env.http.post(path, &body).await.problem(422, "invalid-request");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
}

/// A chord whose keys are changed before its header runs, so that no worker sends the body.
async fn abandoned(version: Version, tamper: impl Fn(&crate::harness::Redis, &str)) -> (Abandoned, String) {
    let config = "[sweeper]\nperiod = 1\ngrace = 1\n".to_owned();
    let env = Harness::start(&Options { without_worker: true, config, ..Options::default() });
    // A sweeper that has just started restores the keys of chords; after some seconds it takes them as they are.
    let settled = env.submit_signature(json!({"task": "demo.null", "countdown": 6, "queue": "nobody"})).await;
    env.in_phase(&settled, "queued").await;
    let chord = json!({"header": [add(json!([1, 1])), add(json!([2, 2]))], "body": {"task": "demo.xsum"}});
    let accepted = env.http.post("/chord", &chord).await.expect(202);
    let member = accepted["children"][0]["task_id"].as_str().expect("an id").to_owned();
    env.in_phase(&member, "queued").await;
    let message: String = env.redis.command(0, &["LINDEX", "celery", "0"]);
    let message: Value = serde_json::from_str(&message).expect("an envelope");
    tamper(&env.redis, &format!("celery-taskset-meta-{}", message["headers"]["group"].as_str().expect("a group")));
    let options = CeleryOptions { version, ..CeleryOptions::default() };
    let celery = crate::harness::Celery::start(&env.redis, options);
    let body = accepted["task_id"].as_str().expect("an id").to_owned();
    (Abandoned { env, _celery: celery }, body)
}

struct Abandoned {
    env: crate::harness::environment::Lent<Box<Harness>>,
    _celery: crate::harness::Celery,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_nobody_sent_is_released_once() {
    // The finisher that counted the last part holds the claim and dies.
    let (chord, body) = abandoned(Version::Latest, |redis, base| {
        redis.command::<String>(1, &["SET", &format!("{base}.c"), "of a dead worker", "EX", "8"]);
    })
    .await;
    let env = &chord.env;
    let done = crate::harness::wait::within(crate::harness::wait::DEADLINE, "the body runs", async || {
        let answer = env.http.get(&format!("/result/{body}")).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!(done["result"], 6, "{done}");
    eventually("its worker has said that it ran", async || {
        let task = env.http.get(&format!("/v1/tasks/{body}")).await.expect(200);
        (task["worker"].is_string() && task["received_at"].is_string()).then_some(())
    })
    .await;
    let history = env
        .http
        .get_with(&format!("/v1/tasks/{body}/events"), &[("Accept", "application/json"), ("Last-Event-ID", "0")])
        .await
        .json();
    let received = history["events"].as_array().expect("a list").iter().filter(|one| one["phase"] == "received");
    assert_eq!(received.count(), 1, "{history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_cannot_be_claimed_is_made_again_or_is_an_incident() {
    // Celery 5.4 has no claims; with a wrong size it waits for a part that never comes.
    let (chord, body) = abandoned(Version::Older, |redis, base| {
        redis.command::<String>(1, &["SET", &format!("{base}.s"), "3"]);
    })
    .await;
    let http = &chord.env.http;
    crate::harness::wait::within(std::time::Duration::from_secs(100), "it is made or reported", async || {
        let answer = http.get(&format!("/result/{body}")).await;
        if answer.status == 200 {
            assert_eq!(answer.json()["result"], 6, "{}", answer.text());
            return Some(());
        }
        let list = http.get("/v1/incidents").await.expect(200);
        let is_it = |one: &Value| one["kind"] == "canvas_stuck" && one["subject"] == json!(body);
        list["incidents"].as_array()?.iter().any(is_it).then_some(())
    })
    .await;
}
