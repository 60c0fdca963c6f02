//! How queues and workers stood over time, and the search in arguments, as pages show them.

use serde_json::json;

use super::Screen;
use super::browser::Browser;
use crate::dev::Dev;
use crate::harness::eventually;

/// Labels of charts that are cut off, or stand on another one.
const UNREADABLE: &str = "return [...document.querySelectorAll('svg.chart')].flatMap((chart) => { \
    const box = chart.getBoundingClientRect(); \
    const labels = [...chart.querySelectorAll('text')].map((text) => [text.textContent, text.getBoundingClientRect()]); \
    const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom; \
    return labels.filter(([, one], n) => one.left < box.left - 1 || one.right > box.right + 1 || labels.slice(n + 1).some(([, other]) => meet(one, other))) \
        .map(([text]) => text); })";

impl Screen {
    /// No wider than the screen, and nothing that a screen reader stumbles over.
    async fn fits(&self, what: &str) {
        let over = self.browser.run("return document.documentElement.scrollWidth - innerWidth").await;
        assert!(over.as_f64() <= Some(0.0), "{what} is wider than the screen by {over}");
        assert_eq!(self.browser.run(UNREADABLE).await, json!([]), "labels of {what}");
        assert_eq!(self.browser.barriers().await, Vec::<String>::new(), "{what}");
    }

    async fn draws_chart(&self, title: &str) {
        let chart = format!("document.querySelector(\"svg[aria-label='{title}']\") !== null");
        self.browser.wait_for(&format!("{title} is there"), &chart).await;
    }

    async fn draws(&self, title: &str) {
        let line =
            format!("document.querySelector(\"svg[aria-label='{title}'] path.line\")?.getAttribute('d').length > 8");
        self.browser.wait_for(&format!("{title} is drawn"), &line).await;
    }
}

#[tokio::test]
async fn queues_and_workers_are_drawn_over_time() {
    for (width, height) in [(1400, 900), (390, 844)] {
        let screen = Screen { dev: Dev::start(), browser: Browser::start(width, height).await };
        screen.submit(json!({"task": "tasks.add", "args": [1, 2], "queue": "nobody"})).await;
        let queue = eventually("somebody has looked at the queue", async || {
            let told = screen.dev.http.get("/v1/stats/queues?queue=nobody").await.expect(200);
            let points = told["queues"][0]["points"].as_array().cloned().unwrap_or_default();
            points.into_iter().find(|point| point["waiting"].as_f64() > Some(0.0))
        })
        .await;
        assert!(queue["oldest_seconds"].as_f64() > Some(0.0), "{queue}");
        let worker = eventually("somebody has looked at the worker", async || {
            let told = screen.dev.http.get("/v1/stats/workers").await.expect(200);
            let points = told["workers"][0]["points"].as_array().cloned().unwrap_or_default();
            points.into_iter().find(|point| point["slots"].as_f64() > Some(0.0))
        })
        .await;
        assert!(worker["active"].is_number() && worker["memory_bytes"].as_f64() > Some(1e6), "{worker}");

        screen.page("queues/nobody").await;
        screen.draws("Waiting in queues").await;
        screen.draws("Age of the oldest message").await;
        screen.browser.keep(&format!("queue-over-time-{width}")).await;
        screen.fits("the queue").await;
        screen.page("charts?queue=nobody").await;
        screen.draws("Waiting in queues").await;
        screen.browser.keep(&format!("charts-queue-{width}")).await;
        screen.fits("the charts").await;
        screen.page("workers").await;
        screen.browser.click("main details:nth-of-type(3) summary").await;
        screen.draws("Slots").await;
        screen.draws("Memory").await;
        screen.browser.keep(&format!("worker-over-time-{width}")).await;
        screen.fits("the worker").await;
        screen.clean_console().await;
    }
}

#[tokio::test]
async fn each_turn_of_the_charts_asks_once() {
    let screen = Screen::start().await;
    screen.page("charts").await;
    screen.draws_chart("Tasks per minute").await;
    // A question is counted by when it was asked: one of the page's beginning may still be under way.
    screen.browser.run("window.since = performance.now()").await;
    let asked = |part: &str| {
        format!(
            "performance.getEntriesByType('resource').filter(({{ name, startTime }}) => name.includes('/v1/stats/{part}') && startTime > window.since)"
        )
    };
    screen.browser.wait_for("two turns are over", &format!("{}.length >= 2", asked("throughput"))).await;
    let counts = format!("return [{}.length, {}.length]", asked("throughput"), asked(""));
    let counts: [u64; 2] = serde_json::from_value(screen.browser.run(&counts).await).expect("numbers");
    let [turns, all] = counts;
    // Three charts a turn, and the week once a minute.
    assert!(all <= 3 * turns + 4, "in {turns} turns it asked for statistics {all} times");
    let apart = format!(
        "return {}.map(({{ startTime }}) => startTime).reduce((found, at, n, all) => n ? [...found, at - all[n - 1]] : found, [])",
        asked("throughput")
    );
    let apart: Vec<f64> = serde_json::from_value(screen.browser.run(&apart).await).expect("numbers");
    // A turn comes every 15 seconds; on a busy machine one comes late, and the next in time.
    assert!(apart.iter().all(|pause| *pause > 1_000.0), "it asked again after {apart:?} ms");
    screen.clean_console().await;
}

#[tokio::test]
async fn the_list_is_searched_by_a_part_of_an_argument() {
    let screen = Screen::start().await;
    let id = screen.submit(json!({"task": "tasks.add", "args": [770_123, 1], "countdown": 3600})).await;
    screen.submit(json!({"task": "tasks.add", "args": [2, 1], "countdown": 3600})).await;
    screen.page("tasks").await;
    screen.browser.wait_for("both are there", "document.querySelectorAll('tbody tr').length === 2").await;
    screen.browser.run("document.querySelector('input[name=argument]').value = '770123'").await;
    screen.browser.click("form.filters button.main").await;
    screen.browser.wait_for("its place has it", "location.hash.includes('argument=770123')").await;
    let only = format!("[...document.querySelectorAll('tbody .mono')].map((link) => link.title).join() === '{id}'");
    screen.browser.wait_for("one is left", &only).await;
    screen.browser.keep("tasks-argument").await;
    screen.page("tasks?argument=nothing-like-it").await;
    screen.browser.wait_for("none fits", "document.body.innerText.includes('No task fits')").await;
    screen.fits("the list").await;
    screen.clean_console().await;
}
