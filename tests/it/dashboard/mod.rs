//! The dashboard in a real browser, on a `dev` of its own (issue rows O1, O2, O7).

mod actions;
pub mod browser;
mod loading;
mod pages;
mod people;
mod site;
mod standings;

use std::time::Duration;

use serde_json::{Value, json};

use self::browser::Browser;
use crate::dev::Dev;
use crate::harness::eventually;

/// The longest allowed task of the page's main thread, in milliseconds.
const LONGEST_TASK: f64 = 200.0;

/// Pause between two of the twenty groups of 500: more than ten thousand a minute, but not all at once.
const PACE: Duration = Duration::from_millis(500);

struct Screen {
    dev: Dev,
    browser: Browser,
}

impl Screen {
    async fn start() -> Self {
        Self { dev: Dev::start(), browser: Browser::start(1400, 900).await }
    }

    /// Loads a page of the dashboard anew.
    async fn page(&self, hash: &str) {
        self.browser.open("about:blank").await;
        self.browser.open(&format!("http://127.0.0.1:{}/dashboard/#/{hash}", self.dev.gateway.port)).await;
        self.browser.wait_for("the page has a title", "document.querySelector('main h1') !== null").await;
    }

    async fn submit(&self, body: Value) -> String {
        self.dev.post("/v1/tasks", body).await
    }

    /// Submits a group.
    async fn accepted(&self, group: &Value) {
        self.dev.http.post_once("/group", group).await.expect(202);
    }

    /// The phase that a task's page shows.
    async fn shows_phase(&self, phase: &str) {
        let expression = format!("document.querySelector('.head .phase')?.textContent.startsWith('{phase}')");
        self.browser.wait_for(&format!("the page shows {phase}"), &expression).await;
    }

    /// Changes the colours by the button in the page's head, as a user does.
    async fn wears(&self, scheme: &str) {
        let worn = "document.documentElement.dataset.scheme";
        for _ in 0..3 {
            if self.browser.run(&format!("return {worn}")).await == scheme {
                return;
            }
            self.browser.run("document.querySelector(\"[aria-label^='Colours']\").click()").await;
        }
        self.browser.wait_for(scheme, &format!("{worn} === '{scheme}'")).await;
    }

    async fn clean_console(&self) {
        assert_eq!(self.browser.complaints().await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_task_is_submitted_by_form_and_its_bar_moves() {
    let browser = Browser::start(1400, 900).await;
    let site = site::Site::start().await;
    let screen = Screen { dev: Dev::with(&[("SAMPLE_SITE_URL", &site.url)]), browser };
    screen.page("submit?form=POST+%2Frun-crawler%2F%7Bcategory%7D").await;
    // Records every position of the bar, so that a slow test misses none.
    screen
        .browser
        .run(
            "window.seen = []; new MutationObserver(() => { \
             const bar = document.querySelector('[role=progressbar]'); if (!bar) return; \
             const now = Number(bar.getAttribute('aria-valuenow')); if (seen.at(-1) !== now) seen.push(now); \
             }).observe(document, { subtree: true, childList: true, attributes: true })",
        )
        .await;
    screen.browser.click("option[value=job]").await;
    screen.browser.click("main form button.main").await;
    screen.browser.wait_for("the task's page opens", "location.hash.startsWith('#/tasks/')").await;
    // The site serves the next page only when the bar shows the previous one, so that the test sees each step.
    for position in [33, 67, 100] {
        site.gives_a_page();
        let bar = "document.querySelector('[role=progressbar]')?.getAttribute('aria-valuenow')";
        screen.browser.wait_for(&format!("the bar is at {position}"), &format!("{bar} === '{position}'")).await;
    }
    screen.shows_phase("succeeded").await;
    let seen = screen.browser.wait_for("the bar is full", "window.seen.at(-1) === 100 && window.seen").await;
    let seen: Vec<u32> = serde_json::from_value(seen).expect("numbers");
    assert!(seen.len() >= 3 && seen.is_sorted(), "the bar was seen at {seen:?}");
    screen.browser.keep("task").await;
    screen.clean_console().await;
}

#[tokio::test]
async fn below_a_base_path_the_pages_and_their_streams_are_found() {
    let dev = Dev::with(&[("TASKGATE_HTTP__BASE_PATH", "/tasks/")]);
    let browser = Browser::start(1400, 900).await;
    browser.open(&format!("http://127.0.0.1:{}/tasks/dashboard/#/tasks", dev.gateway.port)).await;
    browser.wait_for("the list is live", "document.querySelector('.head .sub')?.textContent === 'live'").await;
    let id = dev.post("/tasks/v1/tasks", json!({"task": "tasks.add", "args": [20, 3]})).await;
    browser.wait_for("it is counted", "document.querySelector('#fresh')?.textContent.includes('1')").await;
    browser.open(&format!("http://127.0.0.1:{}/tasks/dashboard/#/tasks/{id}", dev.gateway.port)).await;
    browser.wait_for("its page shows its result", "document.querySelector('main').innerText.includes('23')").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_waiting_task_is_revoked_and_a_failed_one_is_retried() {
    let screen = Screen::start().await;
    let held = screen.submit(json!({"task": "tasks.add", "args": [1, 2], "countdown": 3600})).await;
    screen.page(&format!("tasks/{held}")).await;
    screen.shows_phase("held").await;
    screen.browser.click("#revoke").await;
    screen.browser.click("dialog button.danger").await;
    screen.shows_phase("revoked").await;
    assert_eq!(screen.dev.http.get(&format!("/v1/tasks/{held}")).await.expect(200)["phase"], "revoked");

    let failed = screen.submit(json!({"task": "tasks.unknown"})).await;
    screen.dev.finished(&failed).await;
    screen.page(&format!("tasks/{failed}")).await;
    screen.shows_phase("failed").await;
    screen.browser.click("#retry").await;
    let other = format!("location.hash.startsWith('#/tasks/') && !location.hash.endsWith('{failed}')");
    screen.browser.wait_for("the new task's page opens", &other).await;
    screen.browser.wait_for("it names the old one", "document.body.innerText.includes('Retry of')").await;
    let old = screen.dev.http.get(&format!("/v1/tasks/{failed}")).await.expect(200);
    let hash = screen.browser.run("return location.hash").await;
    assert_eq!(hash.as_str(), old["retried_as"].as_str().map(|id| format!("#/tasks/{id}")).as_deref());
    screen.clean_console().await;
}

#[tokio::test]
async fn the_list_is_filtered_by_its_address_and_counts_what_is_new() {
    let screen = Screen::start().await;
    let failed = screen.submit(json!({"task": "tasks.unknown"})).await;
    let labelled = screen.submit(json!({"task": "tasks.add", "args": [1, 2], "labels": {"tenant": "kim"}})).await;
    for id in [&failed, &labelled] {
        screen.dev.finished(id).await;
    }
    let ids = "[...document.querySelectorAll('tbody .mono')].map((link) => link.title)";
    for (query, id) in [("phase=failed,lost", &failed), ("label=tenant:kim", &labelled), ("q=unknown", &failed)] {
        screen.page(&format!("tasks?{query}")).await;
        screen.browser.wait_for(query, &format!("{ids}.join() === '{id}'")).await;
    }
    screen.page("tasks").await;
    screen.browser.wait_for("the list is live", "document.querySelector('.head .sub')?.textContent === 'live'").await;
    let mut new = Vec::new();
    for n in 0..3 {
        new.push(screen.submit(json!({"task": "tasks.add", "args": [n, 2]})).await);
    }
    screen.browser.wait_for("three are new", "document.querySelector('#fresh')?.textContent.trim() === '3 new'").await;
    assert!(!screen.browser.run(&format!("return {ids}")).await.to_string().contains(&new[0]), "rows do not jump");
    screen.browser.click("#fresh").await;
    let wanted = format!("['{}'].every((id) => {ids}.includes(id))", new.join("', '"));
    screen.browser.wait_for("the new ones are shown", &wanted).await;
    screen.clean_console().await;
}

#[tokio::test]
async fn a_schedule_is_paused_and_edited() {
    let screen = Screen::start().await;
    let path = "/v1/schedules/daily-report";
    eventually("the schedules are seeded", async || (screen.dev.http.get(path).await.status == 200).then_some(()))
        .await;
    screen.page("schedules").await;
    screen.browser.click("[aria-label='Pause daily-report']").await;
    screen
        .browser
        .wait_for("it can be resumed", "document.querySelector(\"[aria-label='Resume daily-report']\")")
        .await;
    assert_eq!(screen.dev.http.get(path).await.expect(200)["paused"], true);

    screen.browser.click("[aria-label='Edit daily-report']").await;
    let write = "const area = document.querySelector('textarea[name=document]'); \
        const body = JSON.parse(area.value); body.cron = '30 6 * * *'; area.value = JSON.stringify(body); \
        area.dispatchEvent(new Event('input', { bubbles: true }))";
    screen.browser.wait_for("the editor is open", "document.querySelector('textarea') !== null").await;
    screen.browser.run(write).await;
    screen.browser.click("form button.main").await;
    screen
        .browser
        .wait_for(
            "it is saved",
            "document.body.innerText.includes('30 6 * * *') && !document.querySelector('textarea')",
        )
        .await;
    assert_eq!(screen.dev.http.get(path).await.expect(200)["cron"], "30 6 * * *");
    screen.clean_console().await;
}

#[tokio::test]
async fn every_page_is_accessible_in_both_schemes_and_says_nothing_to_the_console() {
    let screen = Screen::start().await;
    let chain = json!({"tasks": [{"task": "tasks.add", "args": [1, 2]}, {"task": "tasks.add", "args": [4]}]});
    let canvas = screen.dev.post("/chain", chain).await;
    let failed = screen.submit(json!({"task": "tasks.unknown"})).await;
    screen.submit(json!({"task": "tasks.add", "args": [1, 2], "queue": "nobody"})).await;
    for id in [&canvas, &failed] {
        screen.dev.finished(id).await;
    }
    let (canvas, failed) = (format!("tasks/{canvas}"), format!("tasks/{failed}"));
    let pages = [
        ("overview", "overview"),
        ("tasks", "tasks"),
        ("canvas", &canvas),
        ("failed", &failed),
        ("submit", "submit"),
        ("errors", "errors"),
        ("dead-letters", "dead-letters"),
        ("queues", "queues/nobody"),
        ("workers", "workers"),
        ("schedules", "schedules?name=college-job"),
        ("incidents", "incidents"),
        ("incidents-past", "incidents?show=past"),
        ("charts", "charts?before=1"),
        ("limits", "limits"),
        ("waits", "waits"),
        ("calendar", "schedules?calendar=1"),
        ("inboxes", "inboxes"),
        ("tokens", "tokens"),
        ("webhooks", "webhooks"),
        ("audit", "audit"),
    ];
    screen.page("overview").await;
    for (name, hash) in pages {
        screen.wears("light").await;
        screen.page(hash).await;
        screen.browser.settle().await;
        screen.browser.keep(&format!("{name}-light")).await;
        assert_eq!(screen.browser.barriers().await, Vec::<String>::new(), "{name}, light");
        screen.wears("dark").await;
        screen.browser.keep(&format!("{name}-dark")).await;
        assert_eq!(screen.browser.poor_contrasts().await, Vec::<String>::new(), "{name}, dark");
        assert_eq!(screen.browser.complaints().await, Vec::<String>::new(), "{name}");
        assert!(!screen.browser.text().await.contains("This gateway has no"), "{name} lacks an endpoint");
    }
}

#[tokio::test]
async fn ten_thousand_new_tasks_do_not_freeze_the_list() {
    let browser = Browser::start_alone(1400, 900).await;
    let screen = Screen { dev: Dev::start(), browser };
    let group: Vec<Value> = (0..500).map(|n| json!({"task": "tasks.add", "args": [n, 1]})).collect();
    // Other work on the machine slows the page down, so one fast round of three is enough.
    let mut longest = f64::MAX;
    for _ in 0..3 {
        screen.page("tasks").await;
        screen
            .browser
            .wait_for("the list is live", "document.querySelector('.head .sub')?.textContent === 'live'")
            .await;
        let watch = "window.long = 0; new PerformanceObserver((list) => { \
            for (const { duration } of list.getEntries()) window.long = Math.max(window.long, duration); \
            }).observe({ type: 'longtask' })";
        screen.browser.run(watch).await;
        for _ in 0..20 {
            screen.accepted(&json!({"tasks": group})).await;
            tokio::time::sleep(PACE).await;
        }
        let counted = "Number(document.querySelector('#fresh')?.textContent.replace(/[^0-9]/g, '')) >= 9999";
        screen.browser.wait_for("they are counted", counted).await;
        longest = longest.min(screen.browser.run("return window.long").await.as_f64().expect("milliseconds"));
        if longest <= LONGEST_TASK {
            break;
        }
    }
    println!("the longest task of the page took {longest} ms");
    assert!(longest <= LONGEST_TASK, "the page was busy for {longest} ms at a stretch");
}
