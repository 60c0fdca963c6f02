//! No canvas gets stuck: the tasks that wait for a failed step end too, with the reason.

use std::collections::BTreeMap;
use std::ops::Deref;

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::{CeleryOptions, eventually};

fn id(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no id: {value}")).to_owned()
}

pub(super) async fn a_failed_step_is_named_by_those_after_it<H: Deref<Target = Harness>>(env: &Lent<H>) {
    let steps = json!({"chain": [
        {"task": "demo.fail", "kwargs": {"message": "no rows"}},
        {"task": "demo.identity"},
        {"task": "demo.identity"},
    ]});
    let accepted = env.http.post("/v1/tasks", &steps).await.expect(202);
    let first = id(&accepted["children"][0]["task_id"]);
    for child in accepted["children"].as_array().expect("children").iter().skip(1) {
        let step = id(&child["task_id"]);
        let result = env.finished(&step).await;
        assert_eq!(
            (&result["status"], &result["error"]["message"]),
            (&json!("FAILURE"), &json!("no rows")),
            "{result}"
        );
        eventually("the reason names the failed task", async || {
            let task = env.http.get(&format!("/v1/tasks/{step}")).await.expect(200);
            task["reason"].as_str().is_some_and(|reason| reason.contains(&first)).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_step_is_named_by_those_after_it_with_the_newest_celery() {
    a_failed_step_is_named_by_those_after_it(&Harness::shared()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_step_is_named_by_those_after_it_with_the_older_celery() {
    a_failed_step_is_named_by_those_after_it(&Harness::shared_older()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_revoked_head_or_step_the_rest_is_skipped() {
    let env = Harness::start(&Options { without_worker: true, ..Options::default() });
    let steps = json!({"chain": [{"task": "demo.identity", "args": [1]}, {"task": "demo.identity"}, {"task": "demo.identity"}]});
    for revoked in [0, 1] {
        let accepted = env.http.post("/v1/tasks", &steps).await.expect(202);
        let ids: Vec<String> =
            accepted["children"].as_array().expect("children").iter().map(|child| id(&child["task_id"])).collect();
        env.in_phase(&ids[0], "queued").await;
        let verdict = env.http.post(&format!("/v1/tasks/{}/revoke", ids[revoked]), &json!({})).await.expect(200);
        assert_eq!(verdict["verdict"], "prevented", "{verdict}");
        for step in &ids[revoked + 1..] {
            let task = env.in_phase(step, "skipped").await;
            assert!(task["reason"].as_str().is_some_and(|reason| reason.contains(&ids[revoked])), "{task}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chord_without_a_member_ends() {
    let celery = CeleryOptions { queues: "celery".into(), ..CeleryOptions::default() };
    let env = Harness::start(&Options { celery, ..Options::default() });
    let chord = json!({"chord": {
        "header": [{"task": "demo.add", "args": [1, 1]}, {"task": "demo.add", "args": [2, 2], "queue": "nobody"}],
        "body": {"task": "demo.xsum"},
    }});
    let accepted = env.http.post("/v1/tasks", &chord).await.expect(202);
    let queued = env.http.get("/v1/tasks?queue=nobody").await.expect(200);
    let member = id(&queued["tasks"][0]["task_id"]);
    env.in_phase(&member, "queued").await;
    env.http.post(&format!("/v1/tasks/{member}/revoke"), &json!({})).await.expect(200);
    let body = env.in_phase(&id(&accepted["task_id"]), "skipped").await;
    assert!(body["reason"].as_str().is_some_and(|reason| reason.contains(&member)), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_was_sent_is_queued_and_a_branch_not_taken_is_skipped() {
    let celery = CeleryOptions { queues: "celery".into(), ..CeleryOptions::default() };
    let env = Harness::start(&Options { celery, ..Options::default() });
    let chain = json!({"chain": [{"task": "demo.add", "args": [1, 1]}, {"task": "demo.identity", "queue": "nobody"}]});
    let last = env.submit_signature(chain).await;
    env.in_phase(&last, "queued").await;
    let verdict = env.http.post(&format!("/v1/tasks/{last}/revoke"), &json!({})).await.expect(200);
    assert_eq!(verdict["verdict"], "prevented", "{verdict}");

    let linked = json!({"task": "demo.add", "args": [1, 1], "link_error": [{"task": "demo.on_error"}]});
    let accepted = env.http.post("/v1/tasks", &linked).await.expect(202);
    let errback = id(&accepted["children"][1]["task_id"]);
    env.in_phase(&errback, "skipped").await;
}

/// The body ends as Celery marks it, and the graph shows which task failed.
pub(super) async fn a_failed_header_fails_the_body<H: Deref<Target = Harness>>(env: &Lent<H>) {
    let chord = json!({
        "header": [{"task": "demo.add", "args": [1, 1]}, {"task": "demo.fail", "kwargs": {"message": "no rows"}}],
        "body": {"task": "demo.xsum"},
    });
    let accepted = env.http.post("/chord", &chord).await.expect(202);
    let ids: Vec<String> =
        accepted["children"].as_array().expect("children").iter().map(|child| id(&child["task_id"])).collect();
    let body = id(&accepted["task_id"]);
    let done = env.finished(&body).await;
    assert_eq!((&done["status"], &done["error"]["type"]), (&json!("FAILURE"), &json!("ChordError")), "{done}");
    assert!(done["error"]["message"].as_str().is_some_and(|text| text.contains(&ids[1])), "{done}");
    eventually("the reason names the failed part", async || {
        let task = env.http.get(&format!("/v1/tasks/{body}")).await.expect(200);
        task["reason"].as_str().is_some_and(|reason| reason.contains(&ids[1])).then_some(())
    })
    .await;
    env.in_phase(&ids[0], "succeeded").await;
    let graph = env.http.get(&format!("/v1/tasks/{}/graph", ids[0])).await.expect(200);
    let node = |node: &Value| (id(&node["task_id"]), id(&node["phase"]));
    let phases: BTreeMap<String, String> = graph["nodes"].as_array().expect("nodes").iter().map(node).collect();
    let wanted = [(&ids[0], "succeeded"), (&ids[1], "failed"), (&body, "failed")];
    assert_eq!(phases, wanted.map(|(id, phase)| (id.clone(), phase.to_owned())).into());
    assert_eq!(graph["edges"], json!([[ids[0], body], [ids[1], body]]), "{graph}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_header_fails_the_body_with_the_newest_celery() {
    a_failed_header_fails_the_body(&Harness::shared()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_header_fails_the_body_with_the_older_celery() {
    a_failed_header_fails_the_body(&Harness::shared_older()).await;
}

/// Both branches are nodes: the chosen one ends like its task, the other as skipped.
pub(super) async fn one_branch_is_taken<H: Deref<Target = Harness>>(env: &Lent<H>) {
    let branches = |task: Value| {
        let mut task = task;
        task["link"] = json!([{"task": "demo.add", "args": [10]}]);
        task["link_error"] = json!([{"task": "demo.on_error"}]);
        task
    };
    let mut nodes = Vec::new();
    for task in [json!({"task": "demo.add", "args": [1, 1]}), json!({"task": "demo.fail"})] {
        let accepted = env.http.post("/v1/tasks", &branches(task)).await.expect(202);
        let children = accepted["children"].as_array().expect("children");
        nodes.push(children.iter().map(|child| id(&child["task_id"])).collect::<Vec<_>>());
    }
    assert_eq!(env.finished(&nodes[0][1]).await["result"], 12);
    assert_eq!(env.finished(&nodes[1][2]).await["result"], json!(nodes[1][0]), "the errback gets the failed id");
    for (skipped, cause) in [(&nodes[0][2], &nodes[0][0]), (&nodes[1][1], &nodes[1][0])] {
        let task = env.in_phase(skipped, "skipped").await;
        assert!(task["reason"].as_str().is_some_and(|reason| reason.contains(cause)), "{task}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_branch_is_taken_with_the_newest_celery() {
    one_branch_is_taken(&Harness::shared()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_branch_is_taken_with_the_older_celery() {
    one_branch_is_taken(&Harness::shared_older()).await;
}

/// Celery stores nothing for the steps after such a step.
#[tokio::test(flavor = "multi_thread")]
async fn after_an_expired_step_or_an_ignored_failure_the_rest_is_skipped() {
    let env = Harness::shared();
    for (first, phase) in [
        (json!({"task": "demo.echo", "expires": "2020-01-01T00:00:00Z"}), "expired"),
        (json!({"task": "demo.fail", "ignore_result": true}), "failed"),
    ] {
        let chain = json!({"chain": [first, {"task": "demo.identity"}, {"task": "demo.identity"}]});
        let accepted = env.http.post("/v1/tasks", &chain).await.expect(202);
        let first = id(&accepted["children"][0]["task_id"]);
        let last = id(&accepted["task_id"]);
        let done = env.finished(&last).await;
        assert_eq!(done["status"], "REVOKED", "{done}");
        let task = env.in_phase(&last, "skipped").await;
        assert!(task["reason"].as_str().is_some_and(|reason| reason.contains(&first)), "{task}");
        env.in_phase(&first, phase).await;
    }
}
