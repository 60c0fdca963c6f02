//! Deliveries that no event reported, because the worker does not send events yet, or never: the history has them all the same.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::wait::within;
use crate::harness::{Celery, CeleryOptions, Latch, eventually, unix};

/// The sweeper declares no worker dead here: redeliveries are Celery's own.
const CONFIG: &str = "[sweeper]\nperiod = '1s'\nworker_lost_after = '10m'\n[broker]\nvisibility_timeout = '4s'\n";
const PATIENCE: Duration = Duration::from_secs(180);

fn settings(more: &Value) -> Value {
    let mut settings = json!({"broker_transport_options":
        {"visibility_timeout": 4, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}});
    for (name, value) in more.as_object().into_iter().flatten() {
        settings[name] = value.clone();
    }
    settings
}

fn worker(hostname: &str, queues: &str, more: &Value) -> CeleryOptions {
    CeleryOptions { hostname: hostname.into(), queues: queues.into(), settings: settings(more), ..Default::default() }
}

#[tokio::test]
async fn a_second_delivery_that_no_worker_announced_is_in_the_history() {
    let celery = CeleryOptions { concurrency: 4, ..worker("w1@test", "celery,crawl", &json!({})) };
    let mut env = Harness::start(&Options { celery, config: CONFIG.into(), ..Options::default() });
    eventually("the worker has said what its pool is", async || {
        let workers = env.http.get("/v1/workers").await.expect(200);
        (workers["workers"][0]["pool"] == "prefork").then_some(())
    })
    .await;
    let submit = async |task: &str, seconds: u32, queue: &str| {
        let id = env.submit_signature(json!({"task": task, "args": [seconds, queue], "queue": queue})).await;
        env.in_phase(&id, "running").await;
        id
    };
    let long = submit("demo.late", 7, "celery").await;
    let short = submit("demo.late_first", 120, "celery").await;
    let deaf = submit("demo.late_first", 120, "crawl").await;
    // A worker that is killed before it is told to send events is never heard.
    let quiet = json!({"worker_enable_remote_control": false});
    let unheard = worker("w0@test", "document_processing", &quiet);
    let mut unheard = Celery::launch(&env.redis.url(0), &env.redis.url(1), unheard);
    let args = json!({"task": "demo.late_first", "args": [120, "crawl"], "queue": "document_processing"});
    let secret = env.submit_signature(args).await;
    eventually("it has it", async || unheard.log().contains(&format!("[{secret}] received")).then_some(())).await;
    unheard.kill();
    env.celery.as_mut().expect("a worker").kill();
    // One may take its first messages before it hears that it should send events, the other one hears nothing at all.
    let both = worker("w2@test", "celery,document_processing", &json!({}));
    let second = Celery::launch(&env.redis.url(0), &env.redis.url(1), both);
    let third = Celery::launch(&env.redis.url(0), &env.redis.url(1), worker("w3@test", "crawl", &quiet));
    for (id, result) in [(&long, "celery"), (&short, "celery"), (&deaf, "crawl"), (&secret, "crawl")] {
        let done = within(PATIENCE, &format!("{id} ends"), async || {
            let answer = env.http.get(&format!("/result/{id}")).await;
            (answer.status == 200).then(|| answer.json())
        })
        .await;
        assert_eq!((&done["status"], &done["result"]), (&json!("SUCCESS"), &json!(result)), "{done}");
        let history = within(PATIENCE, &format!("the history of {id} has its second delivery"), async || {
            let history = env.history(id).await;
            let told = |event: &Value| event["reason"].as_str().is_some_and(|why| why.contains("delivered it again"));
            history.iter().any(told).then_some(history)
        })
        .await;
        let seqs: Vec<i64> = history.iter().filter_map(|event| event["seq"].as_i64()).collect();
        assert_eq!(seqs, (1..=seqs.len() as i64).collect::<Vec<_>>(), "{history:?}");
    }
    let took = |celery: &Celery, id: &str| celery.log().matches(&format!("[{id}] received")).count();
    assert_eq!((took(&second, &long), took(&second, &short), took(&third, &deaf)), (1, 1, 1));
    // The long task is identified by its name.
    let history = env.history(&long).await;
    let named = history.iter().any(|event| {
        event["worker"] == "w2@test" && event["reason"].as_str().is_some_and(|why| why.contains("delivered it again"))
    });
    assert!(named, "{history:?}");
}

/// Surveys are too late for this test: a new sweeper reads all lists for some seconds, and then not for ten minutes.
const UNSEEN: &str = "[sweeper]\nperiod = '10m'\n[log]\nfilter = 'info,taskgate::reconcile::sweeper=debug'\n";
const BEGUN: &str = "the next survey of the sweeper is in 600 s";

/// It puts nothing back unless it stops.
fn patient(hostname: &str, settings: Value) -> CeleryOptions {
    CeleryOptions { hostname: hostname.into(), queues: "crawl".into(), settings, ..CeleryOptions::default() }
}

/// A worker that sends no events.
fn deaf(hostname: &str) -> CeleryOptions {
    let settings = json!({"worker_enable_remote_control": false, "worker_send_task_events": false});
    let environment = vec![("DEMO_LOG_LEVEL".to_owned(), "DEBUG".to_owned())];
    CeleryOptions { environment, ..patient(hostname, settings) }
}

fn is_told_again(event: &&Value) -> bool {
    event["reason"].as_str().is_some_and(|why| why.contains("delivered it again"))
}

/// A worker that sends no events has taken the task. When its main process is told to quit, it puts its messages back.
async fn taken_unheard(env: &Lent<Box<Harness>>, latch: &Latch) -> (Celery, String) {
    let mut worker = Celery::launch(&env.redis.url(0), &env.redis.url(1), deaf("w0@test"));
    eventually("the next look is far away", async || env.gateway.log().contains(BEGUN).then_some(())).await;
    let task = json!({"task": "demo.until_late", "args": latch.args("done"), "queue": "crawl"});
    let id = env.submit_signature(task).await;
    // A worker that quits before it knows that a task has begun lets it run to its end first, and waits for that.
    worker.wait_for_a_start();
    (worker, id)
}

async fn quits(mut worker: Celery) {
    unix::kill(worker.id(), libc::SIGQUIT);
    eventually("it is gone", async || worker.has_ended().then_some(())).await;
}

/// Its message is in the queue only for a moment: the mark shows the redelivery when the second worker is heard.
#[tokio::test]
async fn a_first_announcement_of_a_marked_message_is_a_further_delivery() {
    let env = Harness::start(&Options { without_worker: true, config: UNSEEN.into(), ..Options::default() });
    let latch = Latch::closed();
    let (first, id) = taken_unheard(&env, &latch).await;
    let heard = patient("w1@test", json!({"worker_send_task_events": true}));
    let mut second = Celery::launch(&env.redis.url(0), &env.redis.url(1), heard);
    second.wait_until_ready();
    quits(first).await;
    let again = within(PATIENCE, "its history says that it was delivered before", async || {
        env.history(&id).await.iter().find(is_told_again).cloned()
    })
    .await;
    assert_eq!((&again["worker"], &again["reason"]), (&json!("w1@test"), &json!("the broker delivered it again")));
    latch.open();
    env.finished(&id).await;
}

/// Neither worker is heard: the marked message in the queue is seen in between.
#[tokio::test]
async fn what_a_worker_gave_back_is_in_the_history_before_the_next_one_comes() {
    let env = Harness::start(&Options { without_worker: true, config: UNSEEN.into(), ..Options::default() });
    let latch = Latch::closed();
    let (first, id) = taken_unheard(&env, &latch).await;
    quits(first).await;
    let back = within(PATIENCE, "its history says that it is back", async || {
        env.history(&id).await.iter().find(is_told_again).cloned()
    })
    .await;
    assert_eq!((&back["phase"], &back["worker"]), (&json!("queued"), &Value::Null), "{back}");
    let _second = Celery::launch(&env.redis.url(0), &env.redis.url(1), deaf("w1@test"));
    latch.open();
    assert_eq!(env.finished(&id).await["result"], "done");
    let history = env.history(&id).await;
    assert_eq!(history.iter().filter(is_told_again).count(), 1, "{history:?}");
}
