//! No canvas is stuck: what waits for a step that ended badly ends too, and says why.

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Options};
use crate::harness::{CeleryOptions, Version, eventually};

fn id(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no id: {value}")).to_owned()
}

async fn a_failed_step_is_named_by_those_after_it(version: Version) {
    let env = if version == Version::Latest { Harness::shared() } else { Harness::shared_older() };
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
    a_failed_step_is_named_by_those_after_it(Version::Latest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_step_is_named_by_those_after_it_with_the_older_celery() {
    a_failed_step_is_named_by_those_after_it(Version::Older).await;
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
