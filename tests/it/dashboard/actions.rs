//! Actions in the dashboard on more than one task: bulk operations, kinds of failures, queues, workers; by keyboard, on a phone.

use serde_json::{Value, json};

use super::Screen;
use super::browser::Browser;
use crate::dev::Dev;
use crate::harness::eventually;

impl Screen {
    /// Tasks that the API lists for a query.
    async fn listed(&self, path: &str) -> Vec<Value> {
        let found = self.dev.http.get(path).await.expect(200);
        found["tasks"].as_array().expect("a list").clone()
    }

    async fn says(&self, text: &str) {
        self.browser.wait_for(text, &format!("document.body.innerText.includes({})", json!(text))).await;
    }

    async fn fail(&self, body: Value) {
        let id = self.submit(body).await;
        self.dev.finished(&id).await;
    }
}

#[tokio::test]
async fn many_tasks_are_retried_and_revoked_after_a_count() {
    let screen = Screen::start().await;
    for n in 0..3 {
        screen.fail(json!({"task": "tasks.unknown", "args": [n]})).await;
        screen.submit(json!({"task": "tasks.add", "args": [n, 1], "countdown": 3600, "labels": {"batch": "7"}})).await;
    }
    screen.page("tasks?phase=failed,lost").await;
    screen.browser.wait_for("the rows are there", "document.querySelectorAll('tbody tr').length === 3").await;
    screen.browser.click(".bulk button").await;
    screen.says("Retry 3 tasks?").await;
    screen.browser.wait_for("Cancel has the focus", "document.activeElement.textContent === 'Cancel'").await;
    screen.browser.click("dialog button.main").await;
    screen.says("Retry: 3 done").await;
    screen.says("3 of 3").await;
    for task in screen.listed("/v1/tasks?phase=failed&limit=500").await {
        let (old, new) = (&task["retried_as"], &task["retry_of"]);
        assert!(old.is_string() || new.is_string(), "{task}");
    }

    // Only the selected ones of the tasks that a label finds.
    screen.page("tasks?label=batch:7").await;
    screen.browser.wait_for("the held ones are there", "document.querySelectorAll('tbody tr').length === 3").await;
    screen.browser.click("tbody tr:nth-child(1) input").await;
    screen.browser.click("tbody tr:nth-child(2) input").await;
    screen.browser.click(".bulk button.danger").await;
    screen.says("Revoke 2 tasks?").await;
    screen.browser.keep("bulk").await;
    screen.browser.click("dialog button.danger").await;
    screen.says("Revoke: 2 done").await;
    assert_eq!(screen.listed("/v1/tasks?label=batch:7&phase=revoked").await.len(), 2);
    assert_eq!(screen.listed("/v1/tasks?label=batch:7&phase=held").await.len(), 1);
    screen.clean_console().await;
}

#[tokio::test]
async fn failures_of_one_kind_are_run_again_and_others_are_not() {
    let screen = Screen::start().await;
    for n in 0..2 {
        screen.fail(json!({"task": "tasks.unknown", "args": [n]})).await;
        screen.fail(json!({"task": "tasks.multiply", "args": ["x", n]})).await;
    }
    screen.page("errors").await;
    let shown = "document.querySelector('main tbody').innerText";
    screen.browser.wait_for("both kinds are there", "document.querySelectorAll('main tbody tr').length === 2").await;
    screen.browser.click("main tbody tr:has([aria-label='Re-queue TypeError of tasks.multiply']) summary").await;
    screen.browser.wait_for("the trace is shown", &format!("{shown}.includes('in tasks.multiply')")).await;
    screen.browser.keep("errors-trace").await;
    assert_eq!(screen.browser.barriers().await, Vec::<String>::new());
    screen.browser.click("[aria-label='2 tasks with TypeError']").await;
    screen
        .browser
        .wait_for(
            "the tasks are listed",
            "location.hash.startsWith('#/tasks?') && document.querySelectorAll('main tbody tr').length === 2",
        )
        .await;
    screen.page("errors").await;
    let group = "[aria-label='Re-queue TypeError of tasks.multiply']";
    screen.browser.click(group).await;
    screen.says("2 dead letters of this kind").await;
    screen.browser.keep("errors-requeue").await;
    screen.browser.click("dialog button.main").await;
    screen.says("2 re-queued").await;
    let again = eventually("they ran again", async || {
        let failed = screen.listed("/v1/tasks?task=tasks.multiply&phase=failed").await;
        (failed.len() == 4).then_some(failed)
    })
    .await;
    assert_eq!(again.iter().filter(|task| task["retry_of"].is_string()).count(), 2);
    let unknown = screen.listed("/v1/dead-letters?task=tasks.unknown").await;
    assert_eq!(unknown.len(), 2, "the other kind is left alone");

    screen.page("dead-letters?task=tasks.unknown").await;
    screen.browser.click(&format!("[aria-label='Delete {}']", unknown[0]["task_id"].as_str().expect("an id"))).await;
    screen.says("Delete this dead letter?").await;
    screen.browser.click("dialog button.danger").await;
    screen.browser.wait_for("one is left", "document.querySelectorAll('tbody tr').length === 1").await;
    assert_eq!(screen.listed("/v1/dead-letters?task=tasks.unknown").await.len(), 1);
    screen.clean_console().await;
}

#[tokio::test]
async fn a_queue_is_looked_into_paused_and_purged_and_a_worker_is_asked() {
    let screen = Screen::start().await;
    let id = screen.submit(json!({"task": "tasks.add", "args": [1, 2], "queue": "nobody"})).await;
    screen.page("queues/nobody").await;
    screen.browser.wait_for("its message is there", &format!("document.querySelector('[title=\"{id}\"]')")).await;
    screen.browser.click("[aria-label='Pause nobody']").await;
    screen.browser.wait_for("it can be resumed", "document.querySelector(\"[aria-label='Resume nobody']\")").await;
    screen.browser.click("[aria-label='Resume nobody']").await;
    screen.browser.click("[aria-label='Purge nobody']").await;
    screen.browser.click("dialog button.danger").await;
    screen.says("1 messages taken out of nobody").await;
    assert_eq!(screen.dev.http.get(&format!("/v1/tasks/{id}")).await.expect(200)["phase"], "revoked");

    screen.page(&format!("tasks/{id}")).await;
    screen.browser.click("#tab-message").await;
    screen.says("\"task\": \"tasks.add\"").await;

    screen.page("workers").await;
    screen.browser.click("main details summary").await;
    screen.says("It runs nothing.").await;
    screen.browser.click("main details:nth-of-type(2) summary").await;
    let set = "const n = document.querySelector('input[name=n]'); n.value = '1'; \
        n.dispatchEvent(new Event('input', { bubbles: true }))";
    screen.browser.wait_for("the form is open", "document.querySelector('input[name=n]') !== null").await;
    screen.browser.run(set).await;
    screen.browser.click("main form button").await;
    screen.says("pool_grow: ").await;
    screen.clean_console().await;
}

#[tokio::test]
async fn the_keyboard_reaches_everything_and_a_phone_scrolls_one_way_only() {
    let screen = Screen { dev: Dev::start(), browser: Browser::start(390, 844).await };
    screen.fail(json!({"task": "tasks.a_name_that_is_much_longer_than_a_phone_is_wide_and_has_no_break"})).await;
    let long = screen.submit(json!({"task": "tasks.multiply", "args": ["x".repeat(300), 1], "labels": {"a-long-key-of-a-label": "y".repeat(80)}})).await;
    screen.dev.finished(&long).await;
    let task = format!("tasks/{long}");
    for hash in [
        "overview",
        "tasks",
        &task,
        "submit",
        "errors",
        "dead-letters",
        "queues/celery",
        "workers",
        "schedules?name=college-job",
        "incidents",
        "incidents?show=past",
        "charts?before=1&range=custom",
        "limits",
        "waits",
        "schedules?calendar=1",
        "inboxes",
        "tokens",
        "audit",
    ] {
        screen.page(hash).await;
        screen.browser.settle().await;
        let over = screen.browser.run("return document.documentElement.scrollWidth - innerWidth").await;
        assert!(over.as_f64() <= Some(0.0), "{hash} is wider than the phone by {over}");
        let name = hash.split(['/', '?']).next().unwrap_or(hash);
        screen.browser.keep(&format!("phone-{}", if hash == task { "task" } else { name })).await;
    }

    // The first tab stop skips the navigation; arrow keys move between tabs.
    screen.page(&task).await;
    screen.browser.key("\u{E004}").await;
    let first = screen.browser.run("return document.activeElement.textContent").await;
    assert_eq!(first, "Skip to the content");
    screen.browser.key("\u{E007}").await;
    screen.browser.wait_for("the content has the focus", "document.activeElement.id === 'main'").await;
    screen.browser.run("document.querySelector('[role=tab][aria-selected=true]').focus()").await;
    screen.browser.key("\u{E014}").await;
    screen.browser.wait_for("the next tab is chosen", "document.activeElement.id === 'tab-message'").await;
    screen.says("\"task\": \"tasks.multiply\"").await;
    screen.clean_console().await;
}
