//! What pages ask for: a search that nobody waits for any more ends, no chart shows the figures of something else, and a calendar asks
//! for the part of the time that it shows.

use serde_json::json;

use super::Screen;

/// Keeps the calls that contain `part`, as `{url, ended}`, in `window.asked`. They get `answer` (JSON text), or none until they are aborted.
fn kept(part: &str, answer: Option<&str>) -> String {
    let settle = match answer {
        Some(json) => format!("Promise.resolve(new Response({json:?}, {{ headers: {{ 'Content-Type': 'application/json' }} }}))"),
        None => "new Promise((_, fail) => options.signal.addEventListener('abort', () => { call.ended = true; fail(options.signal.reason); }))".to_owned(),
    };
    format!(
        "const real = window.fetch; window.asked = []; window.fetch = (url, options = {{}}) => {{ \
         if (!String(url).includes('{part}') || String(url).includes('/events') || String(url).includes('/outcomes')) return real(url, options); \
         const call = {{ url: String(url), ended: false }}; window.asked.push(call); return {settle}; }}"
    )
}

impl Screen {
    /// Opens another place of the same page, as a link does.
    async fn turn_to(&self, hash: &str) {
        self.browser.run(&format!("location.hash = '#/{hash}'")).await;
    }

    async fn has_rows(&self, count: usize) {
        let rows = format!("document.querySelectorAll('main tbody tr').length === {count}");
        self.browser.wait_for(&format!("{count} rows"), &rows).await;
    }
}

#[tokio::test]
async fn a_search_ends_when_something_else_is_asked_for() {
    let screen = Screen::start().await;
    screen.submit(json!({"task": "tasks.add", "args": [1, 2], "countdown": 3600})).await;
    screen.page("tasks").await;
    screen.has_rows(1).await;
    screen.browser.run(&kept("argument=endless", None)).await;
    screen.turn_to("tasks?argument=endless").await;
    screen.browser.wait_for("it is searched", "window.asked.length === 1 && !window.asked[0].ended").await;
    screen.turn_to("tasks?task=tasks.add").await;
    screen.browser.wait_for("the search has ended", "window.asked[0].ended").await;
    screen.has_rows(1).await;
    assert_eq!(screen.browser.run("return window.asked.length").await, 1, "it is not asked for again");
    screen.clean_console().await;
}

#[tokio::test]
async fn only_a_search_in_arguments_passes_empty_pages_by() {
    let screen = Screen::start().await;
    screen.page("tasks").await;
    screen.browser.run(&kept("limit=100", Some(r#"{"tasks": [], "next": "further"}"#))).await;
    for (filter, pages) in [("q=nothing", 1), ("argument=nothing", 13)] {
        screen.browser.run("window.asked.length = 0").await;
        screen.turn_to(&format!("tasks?{filter}")).await;
        let further =
            "[...document.querySelectorAll('main button')].some((one) => one.textContent === 'Look further back')";
        let done = format!("{further} && window.asked.length === {pages}");
        screen.browser.wait_for(&format!("{filter} was asked for {pages} times"), &done).await;
        screen.browser.settle().await;
        assert_eq!(screen.browser.run("return window.asked.length").await, pages, "{filter}");
    }
    screen.clean_console().await;
}

#[tokio::test]
async fn no_chart_shows_the_figures_of_another_queue() {
    let screen = Screen::start().await;
    screen.page("charts?queue=nobody").await;
    let drawn = "document.querySelector(\"svg[aria-label='Tasks per minute']\") !== null";
    screen.browser.wait_for("the queue is drawn", drawn).await;
    screen.browser.run(&kept("queue=other", None)).await;
    screen.turn_to("charts?queue=other").await;
    screen.browser.wait_for("nothing of the other queue is drawn yet", &format!("!({drawn})")).await;
    screen.turn_to("charts?queue=nobody").await;
    screen.browser.wait_for("the queue is drawn again", drawn).await;
    let ended = "window.asked.length >= 2 && window.asked.every(({ ended }) => ended)";
    screen.browser.wait_for("what was asked of the other one has ended", ended).await;
    screen.clean_console().await;
}

#[tokio::test]
async fn a_calendar_asks_for_the_part_of_the_time_that_it_shows() {
    let screen = Screen::start().await;
    let daily = json!({"name": "daily", "task": "tasks.add", "args": [1, 2], "every": 86_400});
    screen.dev.http.post("/v1/schedules", &daily).await.expect(201);
    screen.page("schedules?calendar=1").await;
    screen.browser.wait_for("it is on the calendar", "document.querySelector('.calendar .phase') !== null").await;
    screen.browser.run(&kept("/v1/schedules/daily/", None)).await;
    let button = |place: usize| format!("section[aria-label=Calendar] .row button:nth-of-type({place})");
    let asked = "window.asked.map(({ url }) => /daily\\/(\\w+)/.exec(url)[1]).join()";
    for (place, part) in [(3, "preview"), (2, "runs")] {
        screen.browser.run("window.asked.length = 0").await;
        screen.browser.click(&button(place)).await;
        screen.browser.wait_for(&format!("{part} are asked for"), &format!("{asked} === '{part}'")).await;
    }
    screen.browser.run("window.before = window.asked[0]; window.asked.length = 0").await;
    screen.browser.click(&button(1)).await;
    screen.browser.wait_for("the week before asks for what it shows", &format!("{asked} === 'runs'")).await;
    screen.browser.wait_for("the other week's question has ended", "window.before.ended").await;
    screen.clean_console().await;
}
