//! RabbitMQ's `consumer_timeout`: it closes the channel of a worker that runs a late-acknowledged task for longer, and delivers the
//! message again. Nothing is lost, and the history has both runs.

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::rabbit::{On, Rabbit};
use crate::harness::{Celery, CeleryOptions, Latch, Version, eventually, gateway, process};

/// Of channels that are opened before [`are_patient`]; in milliseconds.
const IMPATIENT: &str = "consumer_timeout = 4000\n";

fn rabbit(env: &Harness) -> &Rabbit {
    env.rabbit.as_ref().expect("it was asked for")
}

/// Channels that are opened from now on have RabbitMQ's default again.
fn are_patient(env: &Harness) {
    rabbit(env).node().control(&["eval", "application:set_env(rabbit, consumer_timeout, 1800000)."]);
}

fn start(version: Version, concurrency: u32, settings: Value) -> Lent<Box<Harness>> {
    let celery = CeleryOptions { version, concurrency, settings, ..CeleryOptions::default() };
    Harness::start(&Options { broker: On::OwnRabbit(IMPATIENT), celery, ..Options::default() })
}

async fn logs(env: &Harness, text: &str) {
    let celery = env.celery.as_ref().expect("it was started");
    eventually(&format!("the worker logs {text:?}"), async || celery.log().contains(text).then_some(())).await;
}

/// Waits until the history has another delivery, run by `worker`.
async fn runs_again(env: &Lent<Box<Harness>>, id: &str, worker: &str) {
    eventually(&format!("the history of {id} has a second run"), async || {
        let history = env.history(id).await;
        let again = |event: &&Value| event["reason"].as_str().is_some_and(|why| why.contains("delivered it again"));
        let again = history.iter().position(|event| again(&event))?;
        let run = |event: &Value| event["phase"] == "running" && event["worker"] == worker;
        history[again..].iter().any(run).then_some(())
    })
    .await;
}

async fn nothing_is_left(env: &Harness) {
    eventually("all messages are acknowledged", async || {
        let queue = rabbit(env).queue("celery")?;
        (queue["messages"] == 0 && queue["messages_unacknowledged"] == 0).then_some(())
    })
    .await;
}

/// As Celery is set up by default: its worker ends when RabbitMQ closes its channel, after the task that it runs.
async fn another_worker_runs_it_again(version: Version) {
    let env = start(version, 1, json!({}));
    let latch = Latch::closed();
    let late = env.submit("demo.until_late", latch.args(7)).await;
    env.in_phase(&late, "running").await;
    let behind = env.submit("demo.work_late", json!([])).await;
    are_patient(&env);
    logs(&env, "PreconditionFailed").await;
    // It takes the task before the gateway could ask it for events.
    let settings = json!({"worker_send_task_events": true});
    let other = CeleryOptions { version, hostname: "w2@test".into(), settings, ..CeleryOptions::default() };
    let _other = Celery::start_at(&env.broker_url(), &env.redis.url(1), other);
    runs_again(&env, &late, "w2@test").await;
    latch.open();
    let result = env.finished(&late).await;
    assert_eq!((&result["status"], &result["result"]), (&json!("SUCCESS"), &json!(7)), "{result}");
    assert_eq!(env.finished(&behind).await["status"], "SUCCESS", "what the worker had not begun is not lost");
    nothing_is_left(&env).await;
}

#[tokio::test]
async fn a_late_task_that_outlasts_it_runs_again_at_another_worker() {
    another_worker_runs_it_again(Version::Latest).await;
}

#[tokio::test]
async fn a_late_task_that_outlasts_it_runs_again_with_celery_5_4() {
    another_worker_runs_it_again(Version::Older).await;
}

#[tokio::test]
async fn a_worker_that_goes_on_runs_it_twice_at_the_same_time() {
    let env = start(Version::Latest, 2, json!({"broker_channel_error_retry": true}));
    let latch = Latch::closed();
    let late = env.submit("demo.until_late", latch.args(7)).await;
    env.in_phase(&late, "running").await;
    are_patient(&env);
    logs(&env, "PreconditionFailed").await;
    runs_again(&env, &late, "w1@test").await;
    latch.open();
    let result = env.finished(&late).await;
    assert_eq!((&result["status"], &result["result"]), (&json!("SUCCESS"), &json!(7)), "{result}");
    nothing_is_left(&env).await;
}

#[test]
fn check_warns_of_tasks_that_may_outlast_it_with_the_numbers() {
    let rabbit = Rabbit::shared();
    let mut celery = Celery::launch(&rabbit.url(), "rpc://", CeleryOptions::default());
    celery.wait_until_ready();
    let file = process::folder("check").join("taskgate.toml");
    let tasks = "[[tasks]]\nname = 'demo.late'\ntime_limit = 7200\n\
                 [[tasks]]\nname = 'demo.add'\nqueue = 'crawl'\ntime_limit = 60\n\
                 [queues.crawl.arguments]\nx-consumer-timeout = 30000\n";
    std::fs::write(&file, tasks).expect("the folder is ours");
    let url = rabbit.url();
    let said = [
        ("TASKGATE_CONFIG", file.to_str().expect("a path")),
        ("CELERY_BROKER_URL", url.as_str()),
        ("CELERY_RESULT_BACKEND", "rpc://"),
    ];
    let text = String::from_utf8_lossy(&gateway::run(&["check"], &said).stdout).into_owned();
    assert!(text.contains("demo.late may run 7200 s, longer than RabbitMQ's consumer_timeout of 1800 s"), "{text}");
    assert!(
        text.contains("demo.add may run 60 s, longer than the x-consumer-timeout of 30 s of its queue crawl"),
        "{text}"
    );
}
