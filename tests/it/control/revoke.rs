//! P8: the verdict of a revoke is true.

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::{CeleryOptions, Latch, Version, eventually};

async fn revoke(env: &Lent<Box<Harness>>, id: &str, body: Value) -> Value {
    env.http.post(&format!("/v1/tasks/{id}/revoke"), &body).await.expect(200)
}

fn options(version: Version, pool: &'static str) -> Options {
    Options {
        celery: CeleryOptions { version, pool, concurrency: 1, ..CeleryOptions::default() },
        ..Options::default()
    }
}

/// The ids of `demo.echo` runs that the worker logged.
fn ran(env: &Harness, id: &str) -> bool {
    env.celery.as_ref().is_some_and(|celery| celery.log().contains(&format!("Task demo.echo[{id}] succeeded")))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_or_queued_is_prevented_and_never_runs() {
    let env = Harness::start(&options(Version::Latest, "prefork"));
    let held = env.submit_signature(json!({"task": "demo.echo", "args": [1], "countdown": 3600})).await;
    let verdict = revoke(&env, &held, json!({"reason": "not needed"})).await;
    assert_eq!((&verdict["verdict"], &verdict["confirmed"]), (&json!("prevented"), &json!(true)), "{verdict}");
    let task = env.in_phase(&held, "revoked").await;
    assert_eq!(task["reason"], "not needed");
    assert_eq!(task["status"], "REVOKED");

    // One process with a prefetch of four: later messages wait in the list.
    let latch = Latch::closed();
    let busy: Vec<String> = {
        let mut busy = Vec::new();
        for _ in 0..6 {
            busy.push(env.submit("demo.until", latch.args(())).await);
        }
        busy
    };
    env.in_phase(&busy[0], "running").await;
    let queued = env.submit("demo.echo", json!(["never"])).await;
    env.in_phase(&queued, "queued").await;
    let verdict = revoke(&env, &queued, json!({})).await;
    assert_eq!(verdict["verdict"], "prevented", "{verdict}");
    latch.open();
    let after = env.submit("demo.echo", json!(["after"])).await;
    env.finished(&after).await;
    assert!(ran(&env, &after) && !ran(&env, &queued));
    let late = revoke(&env, &after, json!({})).await;
    assert_eq!(late["verdict"], "too_late", "{late}");
    assert_eq!(env.http.get(&format!("/result/{queued}")).await.expect(200)["status"], "REVOKED");
}

async fn a_running_task_is_signalled_and_confirmed(version: Version) {
    let env = Harness::start(&options(version, "prefork"));
    let id = env.submit("demo.sleep", json!([60])).await;
    env.in_phase(&id, "running").await;
    let verdict = revoke(&env, &id, json!({"terminate": true, "signal": "SIGKILL"})).await;
    assert_eq!((&verdict["verdict"], &verdict["confirmed"]), (&json!("signalled"), &json!(true)), "{verdict}");
    env.in_phase(&id, "revoked").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_task_is_signalled_and_confirmed_by_the_newest_celery() {
    a_running_task_is_signalled_and_confirmed(Version::Latest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_task_is_signalled_and_confirmed_by_the_older_celery() {
    a_running_task_is_signalled_and_confirmed(Version::Older).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_terminate_a_running_task_goes_on_and_is_not_called_prevented() {
    let env = Harness::start(&options(Version::Latest, "threads"));
    let latch = Latch::closed();
    let id = env.submit("demo.until", latch.args("done")).await;
    env.is_active(&id).await;
    let verdict = revoke(&env, &id, json!({})).await;
    assert_eq!((&verdict["verdict"], &verdict["confirmed"]), (&json!("signalled"), &json!(false)), "{verdict}");
    latch.open();
    assert_eq!(env.finished(&id).await["result"], "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefetched_task_is_signalled_and_discarded_by_its_worker() {
    let env = Harness::start(&options(Version::Latest, "prefork"));
    let latch = Latch::closed();
    let busy = env.submit("demo.until", latch.args(())).await;
    env.in_phase(&busy, "running").await;
    let prefetched = env.submit("demo.echo", json!(["never"])).await;
    env.in_phase(&prefetched, "received").await;
    let verdict = revoke(&env, &prefetched, json!({})).await;
    assert_eq!(verdict["verdict"], "signalled", "{verdict}");
    latch.open();
    env.in_phase(&prefetched, "revoked").await;
    assert!(!ran(&env, &prefetched));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_reaches_a_worker_that_comes_online_later() {
    let mut env = Harness::start(&options(Version::Latest, "prefork"));
    let first = json!({"task": "demo.until", "args": Latch::closed().args(())});
    let id = env.submit_signature(json!({"chain": [first, {"task": "demo.echo"}]})).await;
    eventually("the first step runs", async || {
        let list = env.http.get("/v1/tasks?phase=running").await.expect(200);
        (list["tasks"].as_array().is_some_and(|tasks| tasks.len() == 1)).then_some(())
    })
    .await;
    let verdict = revoke(&env, &id, json!({})).await;
    assert_eq!(verdict["verdict"], "prevented", "{verdict}");
    env.celery.as_mut().expect("a worker").restart();
    eventually("the new worker knows the revoked id", async || {
        let replies = env.http.get("/v1/inspect/revoked").await.expect(200);
        replies["replies"]["w1@test"].as_array()?.contains(&json!(id)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_redis_down_what_is_held_is_prevented_and_the_rest_is_remembered() {
    let mut env = Harness::start(&Options { without_worker: true, ..Options::default() });
    let held = env.submit_signature(json!({"task": "demo.echo", "countdown": 3600})).await;
    let queued = env.submit("demo.echo", json!([1])).await;
    env.in_phase(&queued, "queued").await;
    env.redis.kill();
    assert_eq!(revoke(&env, &held, json!({})).await["verdict"], "prevented");
    env.http.post(&format!("/v1/tasks/{queued}/revoke"), &json!({})).await.problem(503, "redis-unavailable");
    env.redis.restart();
    // Redis lost the message; the task must not be queued again.
    env.in_phase(&queued, "revoked").await;
    assert_eq!(env.redis.command::<i64>(0, &["LLEN", "celery"]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_revokes_are_refused_by_name() {
    let env = Harness::start(&Options { without_worker: true, ..Options::default() });
    let id = env.submit("demo.echo", json!([1])).await;
    let path = format!("/v1/tasks/{id}/revoke");
    let problem = env.http.post(&path, &json!({"terminate": "yes", "signal": "SIGNONE", "extra": 1})).await;
    let errors = problem.problem(422, "invalid-request")["errors"].clone();
    let pointers: Vec<&str> =
        errors.as_array().expect("a list").iter().filter_map(|one| one["pointer"].as_str()).collect();
    assert_eq!(pointers, ["/extra", "/terminate", "/signal"]);
    env.http.post("/v1/tasks/unknown/revoke", &json!({})).await.problem(404, "task-not-found");
}

/// A push may be in flight during the revoke: a task with the verdict `prevented` never runs, whichever is first.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_that_races_with_the_push_keeps_its_word() {
    let env = Harness::start(&options(Version::Latest, "threads"));
    let mut verdicts = Vec::new();
    for n in 0..60 {
        // No worker serves the second queue, so messages there are always found.
        let queue = if n % 2 == 0 { "celery" } else { "nobody" };
        let id = env.submit_signature(json!({"task": "demo.echo", "args": [n], "queue": queue})).await;
        let verdict = revoke(&env, &id, json!({})).await;
        verdicts.push((id, verdict["verdict"].as_str().expect("a verdict").to_owned()));
    }
    for (id, _) in &verdicts {
        env.finished(id).await;
    }
    let last = env.submit("demo.echo", json!(["last"])).await;
    env.finished(&last).await;
    let prevented: Vec<&String> = verdicts.iter().filter(|(_, said)| said == "prevented").map(|(id, _)| id).collect();
    assert!(prevented.len() >= 30, "{verdicts:?}");
    assert_eq!(env.redis.command::<i64>(0, &["LLEN", "nobody"]), 0);
    for id in prevented {
        assert!(!ran(&env, id), "{id} ran after all");
        env.in_phase(id, "revoked").await;
    }
}

/// A worker that does not have the task writes REVOKED for it. That does not end it while another worker runs it.
#[tokio::test(flavor = "multi_thread")]
async fn a_bystander_s_word_does_not_end_a_running_task() {
    let env = Harness::start(&options(Version::Latest, "prefork"));
    // Longer than the ten seconds after which an uncertain end counts otherwise.
    let id = env.submit("demo.sleep", json!([13, "done"])).await;
    env.in_phase(&id, "running").await;
    let record = json!({
        "status": "REVOKED",
        "result": {"exc_type": "TaskRevokedError", "exc_message": ["revoked"], "exc_module": "celery.exceptions"},
        "traceback": null, "children": [], "task_id": id,
    })
    .to_string();
    let key = format!("celery-task-meta-{id}");
    env.redis.command::<String>(1, &["SET", &key, &record]);
    env.redis.command::<i64>(1, &["PUBLISH", &key, &record]);
    assert_eq!(env.finished(&id).await["result"], "done");
    let history = env
        .http
        .get_with(&format!("/v1/tasks/{id}/events"), &[("Accept", "application/json"), ("Last-Event-ID", "0")])
        .await
        .json();
    let events = history["events"].as_array().expect("a list");
    assert!(events.iter().all(|event| event["phase"] != "revoked"), "{history}");
}
