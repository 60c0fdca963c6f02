//! Queues: depth, age, contents, purge, pause and resume.

use serde_json::{Value, json};

use crate::harness::celery::client;
use crate::harness::environment::{Harness, Options};
use crate::harness::{CeleryOptions, Http, Version, eventually};

async fn queue(http: &Http, name: &str) -> Value {
    let list = http.get("/v1/queues").await.expect(200);
    let queues = list["queues"].as_array().expect("a list");
    queues.iter().find(|queue| queue["name"] == name).cloned().unwrap_or(Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_shows_its_depth_by_priority_its_age_and_its_contents() {
    let env = Harness::start(&Options { without_worker: true, ..Options::default() });
    let mut ids = Vec::new();
    for (n, priority) in [(0, 6), (1, 0), (2, 0)] {
        let signature =
            json!({"task": "demo.echo", "args": [n], "kwargs": {"k": "v"}, "queue": "side", "priority": priority});
        let id = env.submit_signature(signature).await;
        env.in_phase(&id, "queued").await;
        ids.push(id);
    }
    env.redis.command::<i64>(0, &["LPUSH", "side", "no message at all"]);
    let side = queue(&env.http, "side").await;
    assert_eq!(side["waiting"], 4, "{side}");
    assert_eq!(side["priorities"], json!({"0": 3, "3": 0, "6": 1, "9": 0}));
    assert_eq!((&side["consumers"], &side["paused"]), (&json!(0), &json!(false)));
    assert!(side["oldest_seconds"].as_f64().is_some_and(|age| (0.0..20.0).contains(&age)), "{side}");

    let first = env.http.get("/v1/queues/side/messages?limit=3").await.expect(200);
    let order: Vec<&Value> = first["messages"].as_array().expect("a list").iter().map(|one| &one["task_id"]).collect();
    assert_eq!(order, [&json!(ids[1]), &json!(ids[2]), &Value::Null]);
    assert_eq!(first["messages"][0]["args"], json!([1]));
    assert_eq!(first["messages"][0]["kwargs"], json!({"k": "v"}));
    assert!(first["messages"][2]["error"].as_str().is_some(), "{first}");
    let next = first["next"].as_str().expect("another page");
    let second = env.http.get(&format!("/v1/queues/side/messages?limit=3&cursor={next}")).await.expect(200);
    assert_eq!((&second["messages"][0]["task_id"], &second["next"]), (&json!(ids[0]), &Value::Null));
    env.http.get("/v1/queues/side/messages?cursor=no").await.problem(400, "invalid-cursor");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_counts_and_its_tasks_end_revoked() {
    let env = Harness::start(&Options { without_worker: true, ..Options::default() });
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(env.submit_signature(json!({"task": "demo.echo", "args": [n], "queue": "side", "priority": n})).await);
    }
    let (broker, backend) = (env.redis.url(0), env.redis.url(1));
    let program = "print(app.send_task('demo.echo', queue='side').id)";
    let printed =
        tokio::task::spawn_blocking(move || client(Version::Latest, &broker, &backend, program)).await.expect("it ran");
    for id in &ids {
        env.in_phase(id, "queued").await;
    }
    let purged = env.http.post("/v1/queues/side/purge", &json!({})).await.expect(200);
    assert_eq!(purged["purged"], 6, "{purged}");
    for id in ids.iter().map(String::as_str).chain([printed.trim()]) {
        let task = env.in_phase(id, "revoked").await;
        assert_eq!(task["reason"], "queue side was purged");
    }
    assert_eq!(env.http.get("/v1/queues/side/messages").await.expect(200)["messages"], json!([]));
}

async fn a_paused_queue_rests_until_it_is_resumed(version: Version) {
    let celery = CeleryOptions { version, queues: "celery,side".into(), ..CeleryOptions::default() };
    let mut env = Harness::start(&Options { celery, ..Options::default() });
    eventually("the worker serves side", async || (queue(&env.http, "side").await["consumers"] == 1).then_some(()))
        .await;
    let paused = env.http.post("/v1/queues/side/pause", &json!({})).await.expect(200);
    assert_eq!(paused["replies"]["w1@test"]["ok"], "no longer consuming from side", "{paused}");
    let held = env.submit_signature(json!({"task": "demo.echo", "args": [1], "queue": "side"})).await;
    env.in_phase(&held, "held").await;
    let other = env.run("demo.add", json!([1, 2])).await;
    assert_eq!(other["result"], 3);
    assert_eq!(queue(&env.http, "side").await["held"], 1);

    // A worker that starts meanwhile is told not to consume it, too.
    env.celery.as_mut().expect("a worker").restart();
    eventually("the new worker leaves side alone", async || {
        let queues = env.http.get("/v1/inspect/active_queues").await.expect(200);
        let names: Vec<&Value> = queues["replies"]["w1@test"].as_array()?.iter().map(|queue| &queue["name"]).collect();
        (!names.is_empty() && !names.contains(&&json!("side"))).then_some(())
    })
    .await;
    let task = env.http.get(&format!("/v1/tasks/{held}")).await.expect(200);
    assert_eq!(task["phase"], "held", "{task}");

    let resumed = env.http.post("/v1/queues/side/resume", &json!({})).await.expect(200);
    assert_eq!(resumed["replies"]["w1@test"]["ok"], "add consumer side", "{resumed}");
    assert_eq!(env.finished(&held).await["result"]["args"], json!([1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_rests_until_it_is_resumed_with_the_newest_celery() {
    a_paused_queue_rests_until_it_is_resumed(Version::Latest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_rests_until_it_is_resumed_with_the_older_celery() {
    a_paused_queue_rests_until_it_is_resumed(Version::Older).await;
}
