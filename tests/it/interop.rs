//! Every kind of end that an unmodified Celery worker can give a task, on the newest Celery and on 5.4 (rows W1, S6, T1–T5, T8).

use serde_json::{Value, json};

use crate::harness::environment::Harness;
use crate::harness::{Shared, eventually};

/// One test per case and Celery version, all on the environment shared by that version's tests.
macro_rules! on_both_versions {
    ($($name:ident),+ $(,)?) => {
        mod newest {
            $(#[tokio::test] async fn $name() { super::$name(super::Harness::shared()).await; })+
        }
        mod older {
            $(#[tokio::test] async fn $name() { super::$name(super::Harness::shared_older()).await; })+
        }
    };
}

on_both_versions!(
    a_return_value_comes_back,
    null_a_list_a_number_and_unicode_come_back,
    a_mebibyte_goes_and_comes_back,
    keyword_arguments_arrive,
    a_failure_has_type_message_and_traceback,
    a_failure_written_by_the_task_itself_keeps_its_meta,
    a_result_that_is_not_json_is_a_failure,
    retries_are_counted_and_end_in_success,
    exhausted_retries_end_in_the_last_error,
    ignored_results_are_settled_by_events,
    ignored_failures_are_settled_by_events,
    an_unknown_task_fails,
    limits_of_the_message_are_kept,
    a_killed_pool_process_is_a_failure,
    what_expired_unstarted_is_expired,
    the_worker_sees_the_ids_that_were_answered,
    tasks_sent_by_a_task_are_its_children,
    custom_headers_arrive,
);

async fn a_return_value_comes_back(env: Shared) {
    let done = env.run("demo.add", json!([2, 3])).await;
    assert_eq!(done["status"], "SUCCESS", "{done}");
    assert_eq!(done["result"], 5, "{done}");
    assert_eq!(done["task"], "demo.add", "{done}");
    assert_eq!(
        (&done["ready"], &done["successful"], &done["failed"]),
        (&json!(true), &json!(true), &json!(false)),
        "{done}"
    );
    assert_eq!(
        (&done["error"], &done["traceback"], &done["retries"]),
        (&json!(null), &json!(null), &json!(0)),
        "{done}"
    );
    assert!(done["date_done"].is_string(), "{done}");
}

async fn null_a_list_a_number_and_unicode_come_back(env: Shared) {
    assert_eq!(env.run("demo.null", json!([])).await["result"], Value::Null);
    assert_eq!(env.run("demo.list", json!([3])).await["result"], json!([0, 1, 2]));
    assert_eq!(env.run("demo.identity", json!([1.5])).await["result"], json!(1.5));
    assert_eq!(env.run("demo.identity", json!([false])).await["result"], json!(false));
    let text = env.run("demo.unicode", json!([])).await["result"].clone();
    assert_eq!(text, "héllo ☃ 안녕하세요 \u{1f680} \u{0} \u{2028}");
    let there_and_back = "\u{1f680} 안녕 \u{7f} \u{0}\"\\/";
    assert_eq!(env.run("demo.identity", json!([there_and_back])).await["result"], there_and_back);
}

async fn a_mebibyte_goes_and_comes_back(env: Shared) {
    let text = "m".repeat(1 << 20);
    let done = env.run("demo.identity", json!([text])).await;
    assert_eq!(done["status"], "SUCCESS");
    assert!(done["result"] == text.as_str(), "another text came back");
}

async fn keyword_arguments_arrive(env: Shared) {
    let signature = json!({"task": "demo.echo", "args": [1, {"a": [null]}], "kwargs": {"이름": "값", "n": 1e3}});
    let id = env.submit_signature(signature).await;
    let done = env.finished(&id).await;
    assert_eq!(done["result"], json!({"args": [1, {"a": [null]}], "kwargs": {"이름": "값", "n": 1000.0}}), "{done}");
}

async fn a_failure_has_type_message_and_traceback(env: Shared) {
    let done = env.run("demo.fail", json!(["ValueError", "böse"])).await;
    assert_eq!(done["status"], "FAILURE", "{done}");
    assert_eq!(done["failed"], true, "{done}");
    assert_eq!(done["result"], Value::Null, "{done}");
    assert_eq!(done["error"], json!({"type": "ValueError", "message": "böse"}), "{done}");
    let traceback = done["traceback"].as_str().expect("a text");
    assert!(traceback.contains("Traceback") && traceback.contains("ValueError: böse"), "{traceback}");
}

/// Such a record contains no exception, so it counts only after a while without other news.
async fn a_failure_written_by_the_task_itself_keeps_its_meta(env: Shared) {
    let done = env.run("demo.fail_custom_meta", json!([{"code": 7, "message": "by hand"}])).await;
    assert_eq!(done["status"], "FAILURE", "{done}");
    assert_eq!(done["error"]["message"], "by hand", "{done}");
    assert_eq!(done["progress"]["code"], 7, "{done}");
}

async fn a_result_that_is_not_json_is_a_failure(env: Shared) {
    let done = env.run("demo.unserialisable", json!([])).await;
    assert_eq!(done["error"]["type"], "EncodeError", "{done}");
}

/// The announcement of the last attempt may be heard after the record of its end.
async fn with_retries(env: &Shared, done: &Value, count: i64) -> Value {
    let path = format!("/result/{}", done["task_id"].as_str().expect("an id"));
    eventually(&format!("{count} retries are counted"), async || {
        let done = env.http.get(&path).await.expect(200);
        (done["retries"] == count).then_some(done)
    })
    .await
}

async fn retries_are_counted_and_end_in_success(env: Shared) {
    // Celery stores no retry of an attempt when the next one has ended by then: a second is enough to store it.
    let done = env.run("demo.retry", json!([2, 1])).await;
    let done = with_retries(&env, &done, 2).await;
    assert_eq!((&done["status"], &done["result"]), (&json!("SUCCESS"), &json!(2)), "{done}");
    let path = format!("/v1/tasks/{}/events", done["task_id"].as_str().expect("an id"));
    let history = env.http.get_with(&path, &[("Accept", "application/json"), ("Last-Event-ID", "0")]).await.json();
    let events = history["events"].as_array().expect("a list");
    let retried: Vec<&Value> = events.iter().filter(|event| event["status"] == "RETRY").collect();
    let attempts: Vec<&Value> = retried.iter().map(|event| &event["retries"]).collect();
    assert_eq!(attempts, [&json!(0), &json!(1)], "each attempt is visible: {history}");
}

async fn exhausted_retries_end_in_the_last_error(env: Shared) {
    let done = env.run("demo.retry_exhausted", json!([0.1])).await;
    let done = with_retries(&env, &done, 1).await;
    assert_eq!(done["status"], "FAILURE", "{done}");
    assert_eq!(done["error"], json!({"type": "Flaky", "message": "attempt 1"}), "{done}");
}

async fn ignored_results_are_settled_by_events(env: Shared) {
    let by_task = env.run("demo.ignore", json!([1])).await;
    assert_eq!((&by_task["status"], &by_task["result"]), (&json!("SUCCESS"), &Value::Null), "{by_task}");
    let id = env.submit_signature(json!({"task": "demo.add", "args": [1, 1], "ignore_result": true})).await;
    assert_eq!(env.finished(&id).await["status"], "SUCCESS");
    let key = format!("celery-task-meta-{id}");
    assert_eq!(env.redis.command::<u32>(1, &["EXISTS", &key]), 0, "something is kept in Redis");
}

async fn ignored_failures_are_settled_by_events(env: Shared) {
    let done = env.run("demo.ignore_fail", json!([])).await;
    assert_eq!(done["status"], "FAILURE", "{done}");
    assert_eq!(done["error"]["type"], "ValueError", "{done}");
}

async fn an_unknown_task_fails(env: Shared) {
    let done = env.run("demo.no_such_task", json!([])).await;
    assert_eq!(done["error"]["type"], "NotRegistered", "{done}");
}

async fn limits_of_the_message_are_kept(env: Shared) {
    let id = env.submit_signature(json!({"task": "demo.sleep", "args": [600], "soft_time_limit": 1})).await;
    assert_eq!(env.finished(&id).await["error"]["type"], "SoftTimeLimitExceeded");
    let id = env.submit_signature(json!({"task": "demo.sleep", "args": [600], "time_limit": 1})).await;
    assert_eq!(env.finished(&id).await["error"]["type"], "TimeLimitExceeded");
}

async fn a_killed_pool_process_is_a_failure(env: Shared) {
    let done = env.run("demo.kill_self", json!([])).await;
    assert_eq!(done["error"]["type"], "WorkerLostError", "{done}");
}

async fn what_expired_unstarted_is_expired(env: Shared) {
    let id = env.submit_signature(json!({"task": "demo.add", "args": [1, 1], "expires": "2020-01-01T00:00:00Z"})).await;
    assert_eq!(env.finished(&id).await["status"], "REVOKED");
    assert_eq!(env.in_phase(&id, "expired").await["status"], "REVOKED");
}

async fn the_worker_sees_the_ids_that_were_answered(env: Shared) {
    let signature = json!({"task": "demo.request_info", "args": [1], "kwargs": {"k": "v"}, "priority": 3});
    let id = env.submit_signature(signature).await;
    let done = env.finished(&id).await;
    let seen = &done["result"];
    assert_eq!(seen["id"], id.as_str(), "{done}");
    assert_eq!(seen["root_id"], id.as_str(), "{done}");
    assert_eq!(
        (&seen["parent_id"], &seen["group"], &seen["retries"]),
        (&json!(null), &json!(null), &json!(0)),
        "{done}"
    );
    assert_eq!((&seen["args"], &seen["kwargs"]), (&json!([1]), &json!({"k": "v"})), "{done}");
    assert_eq!(seen["delivery_info"]["priority"], 3, "{done}");
}

async fn tasks_sent_by_a_task_are_its_children(env: Shared) {
    let done = env.run("demo.children", json!([2])).await;
    let children = done["children"].to_string();
    for child in done["result"].as_array().expect("ids") {
        let child = child.as_str().expect("an id");
        assert!(children.contains(child), "{child} is missing in {children}");
    }
}

async fn custom_headers_arrive(env: Shared) {
    let signature = json!({"task": "demo.headers", "headers": {"x-tenant": "a1"}});
    let id = env.submit_signature(signature).await;
    let done = env.finished(&id).await;
    assert_eq!(done["result"]["x-tenant"], "a1", "{done}");
}
