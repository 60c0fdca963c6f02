//! The Rust worker under RabbitMQ's `consumer_timeout`: the channel is closed, the message is delivered again, and the task runs once.

use serde_json::json;

use super::process::launch;
use crate::harness::environment::{Harness, Options};
use crate::harness::process::folder;
use crate::harness::rabbit::On;
use crate::harness::wait::DEADLINE;
use crate::harness::{Latch, eventually};

#[tokio::test]
async fn a_late_task_that_outlasts_it_goes_on_alone_and_runs_once() {
    let config = "[submit]\nallow = ['rs.*']\n".into();
    let broker = On::OwnRabbit("consumer_timeout = 3000\n");
    let env = Harness::start(&Options { broker, rpc: true, without_worker: true, config, ..Options::default() });
    let url = env.rabbit.as_ref().expect("it was asked for").url();
    let journal = folder("journal").join("journal");
    let path = journal.to_str().expect("a path");
    let said = [("QUEUES", "celery"), ("CONCURRENCY", "1"), ("PREFETCH", "4"), ("DEMO_JOURNAL", path)];
    let said: Vec<_> = said.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let mut worker = launch(&url, "rpc://", &said);
    let latch = Latch::closed();
    let late = env.submit("rs.until_late", json!([latch.args(())[0]])).await;
    env.in_phase(&late, "running").await;
    let behind = env.submit("rs.work_late", json!([])).await;
    worker.wait_for_log("1 had not started", DEADLINE);
    worker.wait_for_log("runs here, its message was delivered again", DEADLINE);
    worker.wait_for_log("taking messages again", DEADLINE);
    latch.open();
    for id in [&late, &behind] {
        assert_eq!(env.finished(id).await["status"], "SUCCESS");
    }
    let history = env.history(&late).await;
    let runs = history.iter().filter(|event| event["phase"] == "running").count();
    assert_eq!(runs, 1, "{history:?}");
    let journal = std::fs::read_to_string(&journal).expect("it was written");
    assert_eq!(journal.matches(&format!("start {behind}")).count(), 1, "{journal}");
    eventually("all messages are acknowledged", async || {
        let queue = env.rabbit.as_ref()?.queue("celery")?;
        (queue["messages"] == 0 && queue["messages_unacknowledged"] == 0).then_some(())
    })
    .await;
}
