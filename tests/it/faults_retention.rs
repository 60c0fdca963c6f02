//! The end of history, over HTTP: first the arguments go, then the task, and its tombstone says when.

use serde_json::json;

use crate::harness::environment::{Harness, Options};
use crate::harness::{Latch, eventually};

#[tokio::test]
async fn a_pruned_task_is_gone_and_says_when() {
    let config = "[ledger]\nkeep = '4s'\nkeep_payload = '1s'\n";
    let env = Harness::start(&Options { config: config.into(), ..Options::default() });
    let id = env.submit("demo.add", json!([1, 2])).await;
    let running = env.submit("demo.until", Latch::closed().args(())).await;
    assert_eq!(env.finished(&id).await["result"], 3);
    let gone = eventually("it is pruned", async || {
        let answer = env.http.get(&format!("/result/{id}")).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    let problem = gone.problem(410, "task-pruned");
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(&id) && detail.contains("T") && detail.contains("Z"), "it says when: {problem}");
    env.http.get(&format!("/v1/tasks/{id}")).await.problem(410, "task-pruned");
    env.http.get(&format!("/v1/tasks/{id}/events")).await.problem(410, "task-pruned");
    assert_eq!(env.http.get(&format!("/result/{running}")).await.status, 202, "what runs is never pruned");
    let metrics = env.http.get("/metrics").await.text();
    assert!(metrics.contains("taskgate_tasks_pruned_total"), "{metrics}");
}
