//! A live worker has acknowledged the task and reports no end: `raise Ignore()`, `self.replace()`, a failure set by the task.

use serde_json::{Value, json};

use super::{Counted, rerun, signature};
use crate::harness::{CeleryOptions, Latch, Version};

#[tokio::test]
async fn a_task_that_is_ignored_runs_once_and_ends_as_ignored() {
    let names = ["demo.end_ignored", "demo.end_ignored_late"];
    let world = Counted::usual(&rerun(&names)).await;
    for name in names {
        let id = world.env.submit(name, json!([])).await;
        let result = world.ends(&id).await;
        let expected = json!(["IGNORED", true, false, false]);
        let said = json!([result["status"], result["ready"], result["successful"], result["failed"]]);
        assert_eq!(said, expected, "{result}");
        assert_eq!(world.runs(&id), 1);
        assert_eq!(world.task(&id).await["phase"], "ignored");
        assert!(!world.is_dead_letter(&id).await);
        let sentence = world.explained(&id).await;
        assert!(sentence.contains("acknowledged it and said no more"), "{sentence}");
    }
}

#[tokio::test]
async fn a_task_that_replaces_itself_waits_for_its_replacement_and_runs_once() {
    for version in [Version::Latest, Version::Older] {
        let names = ["demo.replace_chain", "demo.replace_chord"];
        let world = Counted::start(CeleryOptions { version, ..CeleryOptions::default() }, &rerun(&names));
        world.worker_is_known().await;
        for name in names {
            let latch = Latch::closed();
            let id = world.env.submit(name, latch.args(40)).await;
            let task = world.phase(&id, "waiting").await;
            assert!(task["reason"].as_str().is_some_and(|why| why.contains("replaced itself by")), "{task}");
            // Longer than a silent task stays open.
            world.surveys(6).await;
            assert_eq!(world.task(&id).await["phase"], "waiting");
            let sentence = world.explained(&id).await;
            assert!(sentence.contains("replaced itself by demo."), "{sentence}");
            latch.open();
            let result = world.ends(&id).await;
            assert_eq!(
                (&result["status"], &result["result"]),
                (&json!("SUCCESS"), &json!(if name.contains("chain") { 41 } else { 42 }))
            );
            assert_eq!(world.runs(&id), 1, "{name}");
        }
    }
}

#[tokio::test]
async fn a_failure_that_a_task_set_by_hand_is_its_end() {
    let world = Counted::usual(&rerun(&["demo.end_by_hand"])).await;
    let id = world.env.submit("demo.end_by_hand", json!(["no such page"])).await;
    let result = world.ends(&id).await;
    assert_eq!(
        (&result["status"], &result["ready"], &result["failed"]),
        (&json!("FAILURE"), &json!(true), &json!(true))
    );
    assert_eq!(result["error"]["message"], "no such page", "{result}");
    assert_eq!(world.runs(&id), 1);
}

#[tokio::test]
async fn an_exception_that_cannot_be_pickled_is_named_and_others_are_shown_as_python_does() {
    for version in [Version::Latest, Version::Older] {
        let world = Counted::start(CeleryOptions { version, ..CeleryOptions::default() }, "");
        let id = world.env.submit("demo.end_unpickleable", json!([])).await;
        let error = world.ends(&id).await["error"].clone();
        assert_eq!(error["type"], "Unpickleable", "{error}");
        let task = world.task(&id).await;
        assert!(task["reason"].as_str().is_some_and(|why| why.contains("UnpickleableExceptionWrapper")), "{task}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("no such page")), "{error}");
        let id = world.env.submit("demo.end_with_odd_arguments", json!([])).await;
        let error = world.ends(&id).await["error"].clone();
        assert_eq!((&error["type"], &error["message"]), (&json!("ValueError"), &json!("('bad', {1})")), "{error}");
    }
}

#[tokio::test]
async fn an_ignored_member_counts_as_ended_and_the_body_waits_as_celery_lets_it() {
    let world = Counted::usual("[incidents]\nstuck_after = '2s'\n").await;
    let header = json!([signature("demo.add", json!([1, 2])), signature("demo.end_ignored", json!([]))]);
    let accepted =
        world.env.http.post("/chord", &json!({"header": header, "body": {"task": "demo.xsum"}})).await.expect(202);
    let body = accepted["task_id"].as_str().expect("the body's id").to_owned();
    let ignored = accepted["children"][1]["task_id"].as_str().expect("an id").to_owned();
    world.phase(&ignored, "ignored").await;
    let group = world.task(&ignored).await["group_id"].as_str().expect("a group").to_owned();
    let state = world.env.http.get(&format!("/result/{group}")).await.expect(200);
    assert_eq!((&state["completed"], &state["total"]), (&json!(2), &json!(2)), "{state}");
    world.surveys(6).await;
    assert_eq!(world.task(&body).await["phase"], "waiting");
    let sentence = world.explained(&body).await;
    assert!(sentence.contains(&ignored) && sentence.contains("/resolve"), "{sentence}");
    world.incident_opens("canvas_stuck", &body).await;
    let resolved = world.env.http.post(&format!("/v1/tasks/{body}/resolve"), &json!({"as": "lost"})).await.expect(200);
    assert_eq!(resolved["phase"], "lost", "{resolved}");
    assert_eq!(world.ends(&body).await["status"], "FAILURE");
}

/// Another process under the same name is not the one that had the task.
#[tokio::test]
async fn a_worker_that_was_restarted_under_its_name_is_a_dead_one_and_a_new_one() {
    let mut world = Counted::usual("").await;
    let latch = Latch::closed();
    let id = world.env.submit("demo.slow_step", latch.args(1)).await;
    world.env.in_phase(&id, "running").await;
    world.env.celery.as_mut().expect("a worker").restart();
    let result = world.ends(&id).await;
    assert_eq!(result["error"]["type"], "TaskLost", "{result}");
    assert_eq!(world.runs(&id), 1);
}

/// A task that ended as ignored is corrected by later news, once.
#[tokio::test]
async fn what_was_ignored_is_corrected_by_its_real_end() {
    let world = Counted::usual("").await;
    let id = world.env.submit("demo.end_ignored", json!([])).await;
    world.phase(&id, "ignored").await;
    let before = world.task(&id).await["seq"].as_i64().expect("a number");
    let record = json!({"status": "SUCCESS", "result": 7, "traceback": null, "children": [], "task_id": id});
    let key = format!("celery-task-meta-{id}");
    world.env.redis.command::<String>(1, &["SET", &key, &record.to_string()]);
    world.env.redis.command::<i64>(1, &["PUBLISH", &key, &record.to_string()]);
    let task = world.phase(&id, "succeeded").await;
    assert_eq!((&task["corrected"], task["seq"].as_i64()), (&Value::Bool(true), Some(before + 1)), "{task}");
}
