//! Pages of the dashboard beside the tasks: incidents, limits, steps that wait, charts, schedules as a form and on a calendar; and the
//! languages.

use serde_json::{Value, json};
use taskgate::tell::incidents::Kind;

use super::Screen;
use crate::harness::eventually;

const INCIDENTS_PAGE: &str = include_str!("../../../dashboard/app/pages/incidents.js");

impl Screen {
    async fn shows(&self, text: &str) {
        self.browser
            .wait_for(text, &format!("document.querySelector('main').innerText.includes({})", json!(text)))
            .await;
    }

    /// Types into a field as a user does.
    async fn write(&self, selector: &str, text: &str) {
        let field = format!("document.querySelector({})", json!(selector));
        self.browser.wait_for(selector, &format!("{field} !== null")).await;
        let write = format!(
            "const field = {field}; field.value = {}; field.dispatchEvent(new Event('input', {{ bubbles: true }})); \
             field.dispatchEvent(new Event('change', {{ bubbles: true }}))",
            json!(text)
        );
        self.browser.run(&write).await;
    }

    async fn speaks(&self, language: &str) {
        self.page("overview").await;
        self.browser.run(&format!("localStorage.setItem('taskgate-language', '{language}')")).await;
    }
}

#[test]
fn every_kind_of_incident_has_words() {
    for kind in Kind::ALL {
        let (bare, quoted) = (format!("{}: '", kind.as_str()), format!("'{}': '", kind.as_str()));
        assert!(INCIDENTS_PAGE.contains(&bare) || INCIDENTS_PAGE.contains(&quoted), "{} has no words", kind.as_str());
    }
}

#[tokio::test]
async fn an_incident_is_acknowledged_muted_and_found_in_the_history() {
    let screen = Screen::start().await;
    screen.submit(json!({"task": "tasks.add", "args": [1, 2], "queue": "nobody"})).await;
    screen.page("incidents").await;
    screen.browser.click("[aria-label='Acknowledge nobody']").await;
    screen.shows("looked after by").await;
    screen.browser.click("[aria-label='Mute… nobody']").await;
    screen.browser.keep("incident-mute").await;
    screen.browser.click("dialog button.main").await;
    screen.shows("muted until").await;
    let listed = screen.dev.http.get("/v1/incidents").await.expect(200);
    let one = listed["incidents"].as_array().expect("a list").iter().find(|one| one["subject"] == "nobody").cloned();
    let one = one.unwrap_or_else(|| panic!("{listed}"));
    assert!(one["acknowledged_by"] == "anybody" && one["muted_until"].is_string(), "{one}");
    screen.browser.keep("incidents-marked").await;
    screen.browser.click("[aria-label='Unmute nobody']").await;
    screen
        .browser
        .wait_for("it can be muted", "document.querySelector(\"[aria-label='Mute… nobody']\") !== null")
        .await;
    screen.dev.http.post("/v1/queues/nobody/purge", &json!({})).await.expect(200);
    screen.page("incidents?show=past").await;
    screen.shows("nobody").await;
    assert_eq!(screen.browser.barriers().await, Vec::<String>::new());
    screen.clean_console().await;
}

#[tokio::test]
async fn a_step_that_waits_is_answered_by_the_form_of_its_schema() {
    let screen = Screen::start().await;
    let schema = json!({"type": "object", "required": ["ok"], "properties": {"ok": {"type": "boolean"}, "why": {"type": "string"}}});
    let wait = json!({"wait": {"name": "approve", "timeout": 600, "schema": schema}});
    screen.dev.http.post("/v1/tasks", &wait).await.expect(202);
    screen.page("waits").await;
    screen.shows("approve").await;
    screen.browser.keep("waits-form").await;
    assert_eq!(screen.browser.barriers().await, Vec::<String>::new());
    screen.write("main form [name='body.ok']", "true").await;
    screen.write("main form [name='body.why']", "because").await;
    screen.browser.click("main form button.main").await;
    screen.shows("Nothing waits for an answer").await;
    screen.clean_console().await;
}

#[tokio::test]
async fn a_schedule_is_written_with_a_form_that_shows_when_it_runs() {
    let screen = Screen::start().await;
    screen.page("schedules").await;
    screen.browser.click("main .head button.main").await;
    let field = |place: usize| format!("main form .fields:first-child .field:nth-child({place}) input");
    screen.write(&field(1), "from-a-form").await;
    screen.write(&field(2), "tasks.add").await;
    screen.write("main form textarea", "[1, 2]").await;
    screen.write("main form input.mono", "0 */22 * * *").await;
    screen.shows("of every 22nd hour").await;
    screen.browser.wait_for("ten times", "document.querySelectorAll('ol.ticks li').length === 10").await;
    screen.browser.keep("schedule-form").await;
    screen.write("main form input.mono", "0 99 * * *").await;
    screen.shows("/cron").await;
    screen.write("main form input.mono", "30 6 * * *").await;
    screen.browser.wait_for("ten times again", "document.querySelectorAll('ol.ticks li').length === 10").await;
    screen.browser.click("main form button.main").await;
    let made = eventually("it is written", async || {
        let answer = screen.dev.http.get("/v1/schedules/from-a-form").await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!((&made["cron"], &made["args"]), (&json!("30 6 * * *"), &json!([1, 2])), "{made}");
    screen.page("schedules?calendar=1").await;
    screen.shows("from-a-form").await;
    screen.browser.keep("schedule-calendar").await;
    let over = screen.browser.run("return document.documentElement.scrollWidth - innerWidth").await;
    assert!(over.as_f64() <= Some(0.0), "the calendar is too wide by {over}");
}

#[tokio::test]
async fn charts_compare_with_the_day_before_and_a_limit_is_changed() {
    let screen = Screen::start().await;
    let task = json!({"task": "tasks.add", "args": [1, 2], "limits": [{"key": "user-7", "max": 1}]});
    let id = screen.submit(task).await;
    screen.dev.finished(&id).await;
    screen.page("charts?range=1h&before=1").await;
    screen.shows("accepted the day before").await;
    screen.browser.wait_for("the week is drawn", "document.querySelectorAll('.heat tbody tr').length >= 7").await;
    screen.browser.click("main .segments button:last-child").await;
    screen.browser.wait_for("a range is asked for", "document.querySelector('input[name=from]')?.value !== ''").await;
    screen.browser.keep("charts-range").await;

    screen
        .dev
        .http
        .send(
            reqwest::Method::PUT,
            "/v1/limits/user-7",
            &[("content-type", "application/json")],
            Some(b"{\"max\":3}".to_vec()),
        )
        .await
        .expect(200);
    screen.page("limits").await;
    screen.browser.click("[aria-label='Change… user-7']").await;
    screen.write("dialog input[type=number]", "5").await;
    screen.browser.click("dialog button.main").await;
    let change = async || {
        let limits = screen.dev.http.get("/v1/limits").await.expect(200);
        (limits["limits"][0]["max"] == 5).then_some(())
    };
    eventually("the limit is changed", change).await;
    screen.clean_console().await;
}

/// A task may have a name that the pages use as a word, or that every JavaScript object has as a member.
#[tokio::test]
async fn names_are_the_same_in_every_language_and_ordinals_are_right() {
    let screen = Screen::start().await;
    screen.speaks("ko").await;
    for name in ["Search", "constructor", "Retry"] {
        let id = screen.submit(json!({"task": name, "queue": "Tasks"})).await;
        screen.page(&format!("tasks?task={name}")).await;
        screen
            .browser
            .wait_for("its row is there", &format!("document.querySelector('[title=\"{id}\"]') !== null"))
            .await;
        screen
            .browser
            .wait_for(name, &format!("document.querySelector('tbody .plain-link')?.textContent === '{name}'"))
            .await;
        let queue = screen.browser.run("return document.querySelector('tbody td[data-name]').textContent").await;
        assert_eq!(queue, "Tasks");
    }
    screen.browser.wait_for("the page speaks Korean", "document.querySelector('main h1').textContent === '작업'").await;
    let ordinals = "return import('./app/parts/timetable_words.js').then(({ ordinal }) => [1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 101, 111].map(ordinal).join(' '))";
    let told = screen.browser.run(ordinals).await;
    assert_eq!(told, Value::from("1st 2nd 3rd 4th 11th 12th 13th 21st 22nd 23rd 101st 111th"));
    screen.clean_console().await;
}
