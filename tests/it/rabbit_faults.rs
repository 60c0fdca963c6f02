//! RabbitMQ in trouble: away, cut off, short of memory, its queues deleted. Submissions go on, and nothing is lost.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::rabbit::{On, Rabbit};
use crate::harness::wait::DEADLINE;
use crate::harness::{CeleryOptions, Latch, eventually};

fn own_node() -> Lent<Box<Harness>> {
    let env = Harness::start(&Options { broker: On::OwnRabbit(""), without_worker: true, ..Options::default() });
    rabbit(&env).declare("celery", &json!({}));
    env
}

fn rabbit(env: &Harness) -> &Rabbit {
    env.rabbit.as_ref().expect("it was asked for")
}

fn ids(messages: &[Value]) -> Vec<String> {
    let id = |one: &Value| one["properties"]["correlation_id"].as_str().expect("a task").to_owned();
    messages.iter().map(id).collect()
}

async fn has_arrived(env: &Harness, id: &str) {
    let until = Instant::now() + DEADLINE;
    while !ids(&rabbit(env).messages("celery")).contains(&id.to_owned()) {
        if Instant::now() > until {
            env.gateway.show_log();
            let explained = env.gateway.http().get(&format!("/v1/tasks/{id}/explain")).await.text();
            panic!("{id} is not in the queue within {DEADLINE:?}: {explained}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_is_accepted_while_rabbitmq_is_away_is_published_when_it_is_back() {
    let mut env = own_node();
    let before = env.submit("demo.add", json!([1, 1])).await;
    has_arrived(&env, &before).await;
    // A gateway that has not heard the confirmation publishes once more.
    env.in_phase(&before, "queued").await;
    // RabbitMQ writes the definition of a durable queue to its disk up to two seconds after it has confirmed it.
    rabbit(&env).node().control(&["eval", "mnesia:sync_log()."]);
    env.rabbit.as_mut().expect("it was asked for").node_mut().kill();
    let mut waiting = Vec::new();
    for n in 0..20 {
        waiting.push(env.submit("demo.add", json!([n, n])).await);
    }
    env.rabbit.as_mut().expect("it was asked for").node_mut().restart();
    for id in &waiting {
        has_arrived(&env, id).await;
    }
    let arrived = ids(&rabbit(&env).messages("celery"));
    assert_eq!(arrived[0], before, "a persistent message survives the node");
    assert_eq!(arrived[1..], waiting, "in the order of acceptance, each once");
}

#[tokio::test]
async fn submissions_go_on_while_rabbitmq_is_short_of_memory() {
    go_on_during(&["set_vm_memory_high_watermark", "absolute", "1MB"], &["set_vm_memory_high_watermark", "0.4"]).await;
}

#[tokio::test]
async fn submissions_go_on_while_rabbitmq_is_short_of_disk() {
    go_on_during(&["set_disk_free_limit", "900000GB"], &["set_disk_free_limit", "1MB"]).await;
}

async fn go_on_during(alarm: &[&str], end: &[&str]) {
    let env = own_node();
    let before = env.submit("demo.add", json!([1, 1])).await;
    has_arrived(&env, &before).await;
    rabbit(&env).node().control(alarm);
    let id = env.submit("demo.add", json!([2, 2])).await;
    let task = env.http.get(&format!("/v1/tasks/{id}")).await.expect(200);
    assert_eq!(task["phase"], "accepted", "{task}");
    rabbit(&env).node().control(end);
    has_arrived(&env, &id).await;
}

#[tokio::test]
async fn events_are_heard_again_after_the_connection_was_cut() {
    let mut env = Harness::start(&Options { broker: On::Rabbit, ..Options::default() });
    env.run("demo.add", json!([1, 1])).await;
    rabbit(&env).cut_connections("taskgate listens");
    env.gateway.wait_for_log("worker events cannot be read");
    // Events sent before the new connection exists are lost.
    eventually("events of a task come over the new connection", async || {
        let id = env.submit("demo.add", json!([2, 2])).await;
        env.finished(&id).await;
        let history = env.history(&id).await;
        history.iter().any(|event| event["phase"] == "received" || event["phase"] == "running").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_queue_that_was_deleted_holds_its_tasks_until_it_is_there_again() {
    let env = Harness::start(&Options { broker: On::Rabbit, without_worker: true, ..Options::default() });
    rabbit(&env).declare("celery", &json!({}));
    let before = env.submit("demo.add", json!([1, 1])).await;
    has_arrived(&env, &before).await;
    rabbit(&env).delete("celery");
    let id = env.submit("demo.add", json!([2, 2])).await;
    env.in_phase(&id, "held").await;
    rabbit(&env).declare("celery", &json!({}));
    has_arrived(&env, &id).await;
}

#[tokio::test]
async fn a_crash_after_the_publication_loses_nothing_and_is_in_the_history() {
    let options = Options {
        broker: On::Rabbit,
        without_worker: true,
        environment: &[("TASKGATE_CRASH_AT", "after_push")],
        ..Options::default()
    };
    let mut env = Harness::start(&options);
    rabbit(&env).declare("celery", &json!({}));
    let body = json!({"task": "demo.add", "args": [1, 1]}).to_string().into_bytes();
    let headers = [("content-type", "application/json")];
    // The answer may be lost with the process.
    let _ = env.http.try_send(reqwest::Method::POST, "/v1/tasks", &headers, Some(body)).await;
    eventually("the gateway dies", async || env.gateway.has_ended().then_some(())).await;
    env.gateway.forget_environment();
    env.gateway.restart();
    let listed = env.http.get("/v1/tasks").await.expect(200);
    let id = listed["tasks"][0]["task_id"].as_str().expect("it was committed").to_owned();
    env.in_phase(&id, "queued").await;
    let copies = ids(&rabbit(&env).messages("celery")).iter().filter(|one| **one == id).count();
    assert_eq!(copies, 2, "the broker has no markers");
    eventually("the history says so", async || {
        let history = env.history(&id).await;
        history.iter().any(|event| event.to_string().contains("perhaps for the second time")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_task_that_a_dead_worker_had_acknowledged_is_settled_by_its_recovery_policy() {
    let config = "[sweeper]\nperiod = '500ms'\ngrace = '1s'\nworker_lost_after = '5s'\n\
                  [[tasks]]\nname = 'demo.slow_step'\nrecovery = 'rerun'\n";
    let mut env = Harness::start(&Options { broker: On::Rabbit, config: config.into(), ..Options::default() });
    let latch = Latch::closed();
    let again = env.submit("demo.slow_step", latch.args("again")).await;
    let lost = env.submit("demo.until", json!(["/proc/never"])).await;
    for id in [&again, &lost] {
        env.in_phase(id, "running").await;
    }
    // The heartbeat interval of a worker that was never heard is unknown, so its silence proves little.
    eventually("a heartbeat is heard", async || {
        let workers = env.http.get("/v1/workers").await.expect(200);
        (!workers["workers"][0]["load"].is_null()).then_some(())
    })
    .await;
    env.celery.as_mut().expect("it was started").kill();
    let other = CeleryOptions { hostname: "w2@test".into(), ..CeleryOptions::default() };
    env.start_worker(other);
    env.in_phase(&lost, "lost").await;
    latch.open();
    assert_eq!(env.finished(&again).await["status"], "SUCCESS");
    let history = env.history(&again).await;
    assert!(history.iter().any(|event| event.to_string().contains("recovery policy is rerun")), "{history:?}");
}

#[tokio::test]
async fn with_repairs_switched_off_a_dead_workers_task_is_an_incident_and_does_not_run_again() {
    let config = "[recovery]\nenabled = false\n[sweeper]\nperiod = '500ms'\ngrace = '1s'\nworker_lost_after = '5s'\n\
                  [[tasks]]\nname = 'demo.slow_step'\nrecovery = 'rerun'\n";
    let mut env = Harness::start(&Options { broker: On::Rabbit, config: config.into(), ..Options::default() });
    let latch = Latch::closed();
    let id = env.submit("demo.slow_step", latch.args("once")).await;
    env.in_phase(&id, "running").await;
    eventually("a heartbeat is heard", async || {
        let workers = env.http.get("/v1/workers").await.expect(200);
        (!workers["workers"][0]["load"].is_null()).then_some(())
    })
    .await;
    env.celery.as_mut().expect("it was started").kill();
    env.start_worker(CeleryOptions { hostname: "w2@test".into(), ..CeleryOptions::default() });
    let incident = eventually("the task is told", async || {
        let incidents = env.http.get("/v1/incidents").await.expect(200);
        let all = incidents["incidents"].as_array().expect("incidents").clone();
        all.into_iter().find(|incident| incident["kind"] == "undecided" && incident["subject"] == id)
    })
    .await;
    assert!(incident["detail"].as_str().is_some_and(|text| text.contains("repairs are switched off")), "{incident}");
    let history = env.history(&id).await;
    assert!(!history.iter().any(|event| event.to_string().contains("queued again")), "{history:?}");
    env.http.post(&format!("/v1/tasks/{id}/resolve"), &json!({"as": "lost"})).await.expect(200);
    env.in_phase(&id, "lost").await;
}

#[tokio::test]
async fn what_a_dead_worker_had_not_acknowledged_is_delivered_again_by_rabbitmq() {
    let settings = json!({"task_acks_late": true, "task_reject_on_worker_lost": true});
    let celery = CeleryOptions { settings: settings.clone(), ..CeleryOptions::default() };
    let mut env = Harness::start(&Options { broker: On::Rabbit, celery, ..Options::default() });
    let latch = Latch::closed();
    let id = env.submit("demo.until", latch.args(())).await;
    env.in_phase(&id, "running").await;
    env.celery.as_mut().expect("it was started").kill();
    env.start_worker(CeleryOptions { hostname: "w2@test".into(), settings, ..CeleryOptions::default() });
    latch.open();
    assert_eq!(env.finished(&id).await["status"], "SUCCESS");
}

#[tokio::test]
async fn a_persistent_result_over_rpc_survives_a_restart_of_rabbitmq() {
    let celery = CeleryOptions { settings: json!({"result_persistent": true}), ..CeleryOptions::default() };
    let mut env = Harness::start(&Options { broker: On::OwnRabbit(""), rpc: true, celery, ..Options::default() });
    let latch = Latch::closed();
    let id = env.submit("demo.until", latch.args(3)).await;
    env.in_phase(&id, "running").await;
    env.gateway.kill();
    latch.open();
    eventually("the result waits in the reply queue", async || {
        let records = rabbit(&env).messages("taskgate.results");
        records.iter().any(|one| one["payload"].to_string().contains("SUCCESS")).then_some(())
    })
    .await;
    // Celery does not wait for confirmations, so a node that is killed may lose what it has not written yet.
    for word in ["stop_app", "start_app"] {
        rabbit(&env).node().control(&[word]);
    }
    rabbit(&env).node().wait_until_ready();
    env.gateway.restart();
    let result = env.finished(&id).await;
    assert_eq!((&result["status"], &result["result"]), (&json!("SUCCESS"), &json!(3)), "{result}");
}
