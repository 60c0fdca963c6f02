//! RabbitMQ as the broker: the messages that the gateway publishes, unmodified Celery workers, and the gateway's answers (row R9).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::celery::root;
use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::rabbit::{On, Rabbit};
use crate::harness::{CeleryOptions, Gateway, Latch, Version, eventually, gateway, process};

fn alone(config: &str) -> Options {
    Options { broker: On::Rabbit, without_worker: true, config: config.into(), ..Options::default() }
}

fn with_worker(version: Version) -> Options {
    let celery = CeleryOptions { version, ..CeleryOptions::default() };
    Options { broker: On::Rabbit, celery, ..Options::default() }
}

fn rabbit(env: &Harness) -> &Rabbit {
    env.rabbit.as_ref().expect("it was asked for")
}

/// The messages of a queue, once there are so many.
async fn messages(env: &Harness, queue: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} messages in {queue}"), async || {
        let messages = rabbit(env).messages(queue);
        (messages.len() == count).then_some(messages)
    })
    .await
}

fn names(object: &Value) -> BTreeSet<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[tokio::test]
async fn a_plain_task_is_written_as_celery_writes_it_to_rabbitmq() {
    let env = Harness::start(&alone(""));
    rabbit(&env).declare("celery", &json!({}));
    let id = env.submit("demo.add", json!([2, 3])).await;
    let ours = &messages(&env, "celery", 1).await[0];
    for version in ["celery-5.7", "celery-5.4"] {
        let path = root().join("tests/vectors").join(version).join("amqp/task_plain.json");
        let vector: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("it is there")).expect("JSON");
        let theirs = &vector["message"];
        let missing: Vec<_> =
            names(&theirs["headers"]).difference(&names(&ours["properties"]["headers"])).copied().collect();
        assert!(missing.is_empty(), "headers that {version} writes and we do not: {missing:?}");
        for name in names(&theirs["properties"]) {
            let kind = |value: &Value| std::mem::discriminant(value);
            assert_eq!(kind(&ours["properties"][name]), kind(&theirs["properties"][name]), "{name} of {version}");
        }
        let body = |text: &Value| serde_json::from_str::<Value>(text.as_str().expect("a text")).expect("JSON");
        assert_eq!(body(&ours["payload"]), body(&theirs["body"]));
        assert_eq!((&ours["exchange"], &ours["routing_key"]), (&json!(""), &json!("celery")));
    }
    let properties = &ours["properties"];
    assert_eq!((&properties["delivery_mode"], &properties["correlation_id"]), (&json!(2), &json!(id)));
    assert_eq!((&properties["headers"]["id"], &properties["headers"]["argsrepr"]), (&json!(id), &json!("(2, 3)")));
}

async fn runs(env: &Lent<Box<Harness>>) {
    let result = env.run("demo.add", json!([2, 3])).await;
    assert_eq!((&result["status"], &result["result"]), (&json!("SUCCESS"), &json!(5)));
    let failed = env.run("demo.fail", json!(["ValueError", "boom"])).await;
    assert_eq!(failed["status"], "FAILURE");
    // Events sent before the gateway listens are lost.
    eventually("events of a task come over celeryev", async || {
        let result = env.run("demo.add", json!([1, 1])).await;
        let history = env.history(result["task_id"].as_str().expect("an id")).await;
        history.iter().any(|event| event["phase"] == "received" || event["phase"] == "running").then_some(())
    })
    .await;
}

#[tokio::test]
async fn celery_of_today_runs_tasks_that_came_over_rabbitmq() {
    runs(&Harness::start(&with_worker(Version::Latest))).await;
}

#[tokio::test]
async fn celery_5_4_runs_tasks_that_came_over_rabbitmq() {
    runs(&Harness::start(&with_worker(Version::Older))).await;
}

#[tokio::test]
async fn a_chain_and_a_chord_run_over_rabbitmq_with_results_in_redis() {
    let env = Harness::start(&with_worker(Version::Latest));
    let chain = json!({"tasks": [{"task": "demo.add", "args": [1, 2]}, {"task": "demo.mul", "args": [10]}]});
    let chain = env.http.post_once("/chain", &chain).await.expect(202);
    let result = env.finished(chain["task_id"].as_str().expect("an id")).await;
    assert_eq!(result["result"], 30);
    let header = json!([{"task": "demo.add", "args": [1, 1]}, {"task": "demo.add", "args": [2, 2]}]);
    let chord = json!({"header": header, "body": {"task": "demo.xsum"}});
    let chord = env.http.post_once("/chord", &chord).await.expect(202);
    let result = env.finished(chord["task_id"].as_str().expect("an id")).await;
    assert_eq!(result["result"], 6);
}

#[tokio::test]
async fn the_broker_serves_priority_nine_first_in_a_queue_that_has_priorities() {
    let env = Harness::start(&alone("[queues.celery]\nmax_priority = 9\n"));
    for priority in [0, 9, 5] {
        env.submit_signature(json!({"task": "demo.add", "args": [priority, 0], "priority": priority})).await;
    }
    let served: Vec<Value> =
        messages(&env, "celery", 3).await.iter().map(|one| one["properties"]["priority"].clone()).collect();
    assert_eq!(served, [json!(9), json!(5), json!(0)]);
    assert_eq!(rabbit(&env).queue("celery").expect("taskgate made it")["arguments"]["x-max-priority"], 9);
}

#[tokio::test]
async fn a_queue_that_is_there_with_other_arguments_is_used_as_it_is() {
    let env = Harness::start(&alone("[queues.celery]\nmax_priority = 9\n[queues.quorum]\ntype = 'quorum'\n"));
    let rabbit = rabbit(&env);
    eventually("the quorum queue is made", async || rabbit.queue("quorum")).await;
    assert_eq!(rabbit.queue("quorum").expect("it is there")["type"], "quorum");
    rabbit.delete("celery");
    rabbit.declare("celery", &json!({"x-max-priority": 3}));
    env.submit("demo.add", json!([1, 1])).await;
    messages(&env, "celery", 1).await;
    assert_eq!(rabbit.queue("celery").expect("it is there")["arguments"]["x-max-priority"], 3);
}

#[tokio::test]
async fn a_task_for_a_queue_that_does_not_exist_waits_in_the_ledger_until_it_does() {
    let env = Harness::start(&alone(""));
    let id = env.submit_signature(json!({"task": "demo.add", "args": [1, 2], "queue": "nowhere"})).await;
    let held = env.in_phase(&id, "held").await;
    assert!(held["reason"].as_str().is_some_and(|why| why.contains("has no queue nowhere")), "{held}");
    eventually("an incident names the queue", async || {
        let incidents = env.http.get("/v1/incidents").await.expect(200);
        incidents.to_string().contains("has no queue nowhere").then_some(())
    })
    .await;
    rabbit(&env).declare("nowhere", &json!({}));
    messages(&env, "nowhere", 1).await;
    env.in_phase(&id, "queued").await;
}

#[tokio::test]
async fn a_waiting_task_is_revoked_by_word_and_a_held_one_for_certain() {
    let celery = CeleryOptions { queues: "other".into(), ..CeleryOptions::default() };
    let env = Harness::start(&Options { broker: On::Rabbit, celery, ..Options::default() });
    rabbit(&env).declare("celery", &json!({}));
    let waiting = env.submit("demo.add", json!([1, 2])).await;
    env.in_phase(&waiting, "queued").await;
    let revoked = env.http.post(&format!("/v1/tasks/{waiting}/revoke"), &json!({})).await.expect(200);
    assert_eq!(revoked["verdict"], "signalled", "{revoked}");
    let held = env.submit_signature(json!({"task": "demo.add", "args": [1, 2], "countdown": 3600})).await;
    let revoked = env.http.post(&format!("/v1/tasks/{held}/revoke"), &json!({})).await.expect(200);
    assert_eq!(revoked["verdict"], "prevented", "{revoked}");
    // A worker that was told refuses it when it takes it.
    let serve = json!({"arguments": {"queue": "celery"}, "destination": ["w1@test"]});
    env.http.post("/v1/control/add_consumer", &serve).await.expect(200);
    assert_eq!(env.finished(&waiting).await["status"], "REVOKED");
    messages(&env, "celery", 0).await;
}

#[tokio::test]
async fn workers_are_asked_and_told_over_rabbitmq() {
    let env = Harness::start(&with_worker(Version::Latest));
    let active = env.http.get("/v1/inspect/active_queues?destination=w1@test&timeout=30").await.expect(200);
    assert!(active["replies"]["w1@test"].to_string().contains("\"crawl\""), "{active}");
    let pong = env.http.get("/v1/inspect/ping?destination=w1@test&timeout=30").await.expect(200);
    assert_eq!(pong["replies"]["w1@test"], json!({"ok": "pong"}));
    eventually("the worker is known", async || {
        let workers = env.http.get("/v1/workers").await.expect(200);
        let worker = workers["workers"].as_array().and_then(|all| all.first()).cloned()?;
        (worker["status"] == "online" && worker["concurrency"] == 2).then_some(())
    })
    .await;
    let id = env.submit("demo.sleep", json!([60])).await;
    env.in_phase(&id, "running").await;
    let revoked = env.http.post(&format!("/v1/tasks/{id}/revoke"), &json!({"terminate": true})).await.expect(200);
    assert_eq!((&revoked["verdict"], &revoked["confirmed"]), (&json!("signalled"), &json!(true)), "{revoked}");
}

#[tokio::test]
async fn depth_and_purge_are_the_brokers_and_contents_are_refused_with_the_reason() {
    let env = Harness::start(&alone(""));
    rabbit(&env).declare("celery", &json!({}));
    let ids = [env.submit("demo.add", json!([1, 1])).await, env.submit("demo.add", json!([1, 2])).await];
    messages(&env, "celery", 2).await;
    for id in &ids {
        env.in_phase(id, "queued").await;
    }
    let queues = env.http.get("/v1/queues").await.expect(200);
    let celery = queues["queues"].as_array().and_then(|all| all.iter().find(|one| one["name"] == "celery")).cloned();
    assert_eq!(celery.expect("the queue is listed")["waiting"], 2);
    let refused = env.http.get("/v1/queues/celery/messages").await.expect(501);
    assert_eq!(refused["type"], "/problems/unable");
    let purged = env.http.post("/v1/queues/celery/purge", &json!({})).await.expect(200);
    assert_eq!(purged["purged"], 2, "{purged}");
    messages(&env, "celery", 0).await;
    for id in &ids {
        assert_eq!(env.finished(id).await["status"], "REVOKED");
    }
    let can = env.http.get("/v1/capabilities").await.expect(200);
    assert_eq!((&can["broker"], &can["revoke_waiting"]), (&json!("rabbitmq"), &json!(false)));
}

fn over_rpc(version: Version) -> Options {
    Options { rpc: true, ..with_worker(version) }
}

async fn come_back(env: &Lent<Box<Harness>>) {
    let result = env.run("demo.add", json!([2, 3])).await;
    assert_eq!((&result["status"], &result["result"]), (&json!("SUCCESS"), &json!(5)));
    let failed = env.run("demo.fail", json!(["ValueError", "boom"])).await;
    assert_eq!((&failed["status"], &failed["error"]["type"]), (&json!("FAILURE"), &json!("ValueError")), "{failed}");
    assert!(failed["traceback"].as_str().is_some_and(|text| text.contains("boom")), "{failed}");
    let chain = json!({"tasks": [{"task": "demo.add", "args": [1, 2]}, {"task": "demo.mul", "args": [10]}]});
    let chain = env.http.post_once("/chain", &chain).await.expect(202);
    assert_eq!(env.finished(chain["task_id"].as_str().expect("an id")).await["result"], 30);
    let group = json!({"tasks": [{"task": "demo.add", "args": [1, 1]}, {"task": "demo.add", "args": [2, 2]}]});
    let group = env.http.post_once("/group", &group).await.expect(202);
    assert_eq!(env.finished(group["group_id"].as_str().expect("an id")).await["result"], json!([2, 4]));
}

#[tokio::test]
async fn results_of_celery_of_today_come_back_over_rabbitmq() {
    come_back(&Harness::start(&over_rpc(Version::Latest))).await;
}

#[tokio::test]
async fn results_of_celery_5_4_come_back_over_rabbitmq() {
    come_back(&Harness::start(&over_rpc(Version::Older))).await;
}

#[tokio::test]
async fn a_result_that_came_while_no_gateway_ran_is_there_afterwards() {
    let mut env = Harness::start(&over_rpc(Version::Latest));
    let latch = Latch::closed();
    let id = env.submit("demo.until", latch.args(())).await;
    env.in_phase(&id, "running").await;
    env.gateway.kill();
    latch.open();
    eventually("the result waits in the reply queue", async || {
        let records = rabbit(&env).messages("taskgate.results");
        records.iter().any(|one| one["payload"].to_string().contains("SUCCESS")).then_some(())
    })
    .await;
    env.gateway.restart();
    assert_eq!(env.finished(&id).await["status"], "SUCCESS");
    messages(&env, "taskgate.results", 0).await;
}

#[tokio::test]
async fn of_several_replicas_one_reads_the_results_and_another_goes_on_after_its_death() {
    let mut env = Harness::start(&over_rpc(Version::Latest));
    let other = Gateway::serve(&env.database, &env.broker_url(), "rpc://", "");
    let latch = Latch::closed();
    let ids = [env.submit("demo.until", latch.args(1)).await, env.submit("demo.until", latch.args(2)).await];
    for id in &ids {
        env.in_phase(id, "running").await;
    }
    env.gateway.kill();
    latch.open();
    for (id, value) in ids.iter().zip([1, 2]) {
        let result = eventually("the other replica has the result", async || {
            let answer = other.http().get(&format!("/result/{id}")).await;
            (answer.status == 200).then(|| answer.json())
        })
        .await;
        assert_eq!((&result["status"], &result["result"]), (&json!("SUCCESS"), &json!(value)), "{result}");
    }
    messages(&env, "taskgate.results", 0).await;
}

#[tokio::test]
async fn a_chord_is_refused_where_results_come_back_over_the_broker() {
    let env = Harness::start(&Options { rpc: true, ..alone("") });
    let chord = json!({"header": [{"task": "demo.add", "args": [1, 1]}], "body": {"task": "demo.xsum"}});
    let refused = env.http.post_once("/chord", &chord).await.expect(422);
    assert!(refused["errors"].to_string().contains("rpc://"), "{refused}");
}

#[test]
fn check_says_what_rabbitmq_says_of_a_queue_with_other_arguments() {
    let rabbit = Rabbit::shared();
    rabbit.declare("mail", &json!({"x-max-priority": 3}));
    let (url, file) = (rabbit.url(), process::folder("check").join("taskgate.toml"));
    std::fs::write(&file, "[queues.mail]\nmax_priority = 9\n").expect("the folder is ours");
    let said = [
        ("TASKGATE_CONFIG", file.to_str().expect("a path")),
        ("CELERY_BROKER_URL", url.as_str()),
        ("CELERY_RESULT_BACKEND", "rpc://"),
    ];
    let done = gateway::run(&["check"], &said);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(text.contains("the queue mail is not as [queues.mail] says") && text.contains("x-max-priority"), "{text}");
    assert_eq!(rabbit.queue("mail").expect("it is there")["arguments"]["x-max-priority"], 3);
}
