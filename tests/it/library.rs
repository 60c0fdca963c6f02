//! The library behind the binary: `App::build` as `main` calls it, without HTTP, against the real peers.

use std::time::Duration;

use celery::task::signature::Limits;
use celery::task::{Phase, Submission, TaskId};
use runtime::lifecycle::Tasks;
use taskgate::app::{self, App};
use taskgate::config::{Config, Role};
use taskgate::usecase::submit::SubmitRequest;

use crate::harness::{Celery, CeleryOptions, Redis, RedisOptions, postgres};

/// Longer than a worker needs to boot.
const PATIENCE: Duration = crate::harness::wait::DEADLINE;

async fn run(app: &App, text: &str) -> ledger::Task {
    let submission = Submission::parse(text, Limits::default()).expect("a signature");
    let submitted = app.gateway.submit(SubmitRequest::new(submission)).await.expect("accepted");
    let id: TaskId = submitted.task_id.expect("one task");
    app.gateway.watcher().wait(&id, PATIENCE).await.expect("ledger").expect("known")
}

async fn runs_real_tasks(database: &str) {
    let redis = Redis::start(RedisOptions::default());
    let _celery = Celery::launch(&redis.url(0), &redis.url(1), CeleryOptions::default());
    let config = format!(
        "auth = \"none\"\n[database]\nurl = {database:?}\n[broker]\nurl = {:?}\n[backend]\nurl = {:?}\n[submit]\nallow = [\"*\"]\n",
        redis.url(0),
        redis.url(1)
    );
    let config = Config::parse(Role::Serve, &config).expect("a configuration");
    let tasks = Tasks::default();
    let ledger = app::claim_ledger(&config, tasks.stop_token()).expect("a ledger");
    let app = App::build(&config, ledger, tasks.clone()).expect("an app");

    let sum = run(&app, r#"{"task": "demo.add", "args": [2, 123456789012345678901234567890]}"#).await;
    assert_eq!(sum.phase, Phase::Succeeded, "{sum:?}");
    assert_eq!(sum.result.expect("a result").get(), "123456789012345678901234567892");

    let chain =
        run(&app, r#"{"chain": [{"task": "demo.add", "args": [2, 3]}, {"task": "demo.mul", "args": [10]}]}"#).await;
    assert_eq!(chain.result.expect("a result").get(), "50");

    let chord = r#"{"chord": {"header": [{"task": "demo.add", "args": [1, 1]}, {"task": "demo.add", "args": [2, 2]}],
                   "body": {"task": "demo.xsum"}}}"#;
    assert_eq!(run(&app, chord).await.result.expect("a result").get(), "6");

    let late = run(&app, r#"{"task": "demo.add", "args": [1, 1], "countdown": 0.3}"#).await;
    // A quick worker's event may arrive before the publication is recorded.
    let queued_at = crate::harness::eventually("its publication is written down", async || {
        app.gateway.task(&late.id).await.expect("ledger").expect("known").queued_at
    })
    .await;
    let held = queued_at.since(late.submitted_at);
    assert!(held >= Duration::from_millis(300), "published {held:?} after its submission");

    let failed = run(&app, r#"{"task": "demo.fail", "args": ["ValueError", "boom"]}"#).await;
    assert_eq!(failed.failure.expect("a failure").message, "boom");
    let events = app.gateway.events(&failed.id, 0).await.expect("events");
    let seqs: Vec<i64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=failed.seq).collect::<Vec<_>>(), "no gap: {events:?}");
    tasks.shut_down(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_on_postgresql_runs_real_tasks() {
    let database = postgres::cluster().empty_database();
    runs_real_tasks(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_on_sqlite_runs_real_tasks() {
    let directory = tempfile::tempdir().expect("a directory");
    runs_real_tasks(&format!("sqlite://{}", directory.path().join("ledger.db").display())).await;
}
