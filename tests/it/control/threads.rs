//! Workers with a thread pool run canvases like those with processes, but cannot stop a running task.

use serde_json::json;

use super::{canvas, forms};
use crate::harness::environment::{Harness, Options};
use crate::harness::{CeleryOptions, Latch, Version};

async fn threads_are_as_good_as_processes(version: Version) {
    let celery = CeleryOptions { version, pool: "threads", concurrency: 4, ..CeleryOptions::default() };
    let env = Harness::start(&Options { celery, ..Options::default() });
    tokio::join!(
        forms::every_form_runs(&env),
        forms::groups_are_followed_to_their_end(&env),
        canvas::a_failed_step_is_named_by_those_after_it(&env),
        canvas::a_failed_header_fails_the_body(&env),
        canvas::one_branch_is_taken(&env),
    );
    // A thread cannot be killed, so the verdict must not claim that it was.
    let latch = Latch::closed();
    let id = env.submit("demo.until", latch.args("done")).await;
    env.is_active(&id).await;
    let verdict = env.http.post(&format!("/v1/tasks/{id}/revoke"), &json!({"terminate": true})).await.expect(200);
    assert_eq!((&verdict["verdict"], &verdict["confirmed"]), (&json!("signalled"), &json!(false)), "{verdict}");
    latch.open();
    let done = env.finished(&id).await;
    assert_eq!((&done["status"], &done["result"]), (&json!("SUCCESS"), &json!("done")), "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_are_as_good_as_processes_with_the_newest_celery() {
    threads_are_as_good_as_processes(Version::Latest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_are_as_good_as_processes_with_the_older_celery() {
    threads_are_as_good_as_processes(Version::Older).await;
}
