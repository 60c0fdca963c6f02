//! The dashboard for different people: a user who may only read, a keyboard user, a Korean reader; and for everybody while the
//! gateway is down.

use serde_json::json;

use super::Screen;
use super::browser::Browser;
use crate::dev::Dev;
use crate::harness::gateway::config;
use crate::harness::postgres::cluster;
use crate::harness::{Gateway, Redis, RedisOptions, ports};
use crate::people::hash;

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_logs_in_and_finds_no_button_that_changes_something() {
    let redis = Redis::start(RedisOptions::default());
    let (database, port) = (cluster().migrated_database(), ports::free());
    let user = |name: &str, scopes: &str| {
        format!("[[users]]\nname = '{name}'\npassword = '{}'\nscopes = [{scopes}]\n", hash("a long one"))
    };
    let extra = format!("auth = 'basic'\n{}{}", user("vera", "'read'"), user("otto", "'read', 'submit', 'control'"));
    let table = config(port, &database, &redis.url(0), &redis.url(1), &extra);
    let mut gateway = Gateway::start(&["serve"], port, Some(&table), &[]);
    gateway.wait_until_ready();
    let browser = Browser::start(1400, 900).await;
    let open = async |hash: &str| {
        browser.open("about:blank").await;
        browser.open(&format!("http://127.0.0.1:{port}/dashboard/#/{hash}")).await;
    };
    let logs_in = async |name: &str| {
        open("tasks").await;
        browser.wait_for("the door is there", "document.querySelector('[name=user]') !== null").await;
        browser.run(&format!("document.querySelector('[name=user]').value = '{name}'; document.querySelector('[name=password]').value = 'a long one'")).await;
        browser.click("form button.main").await;
        browser.wait_for("the list is there", "document.querySelector('main h1')?.textContent === 'Tasks'").await;
    };
    let buttons = "[...document.querySelectorAll('main button')].map((button) => button.textContent.trim())";
    logs_in("otto").await;
    browser.wait_for("who controls may revoke", &format!("{buttons}.includes('Revoke…')")).await;
    browser.keep("door-otto").await;
    browser.click(".side .foot button.link:not([aria-label]):nth-of-type(2)").await;
    logs_in("vera").await;
    browser.settle().await;
    let shown = browser.run(&format!("return {buttons}")).await.to_string();
    assert!(!shown.contains("Revoke") && !shown.contains("Retry"), "{shown}");
    let side = browser.run("return document.querySelector('.side').innerText").await.to_string();
    assert!(side.contains("vera") && !side.contains("Audit") && !side.contains("Submit"), "{side}");
    for hash in ["queues", "dead-letters", "schedules"] {
        open(hash).await;
        browser.wait_for("the page has a title", "document.querySelector('main h1') !== null").await;
        browser.settle().await;
        let shown = browser.run(&format!("return {buttons}")).await.to_string();
        let words = ["Purge", "Pause", "Delete", "New…", "Edit", "Run"];
        assert!(words.iter().all(|word| !shown.contains(word)), "{hash}: {shown}");
    }
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn letters_lead_to_pages_and_along_the_rows() {
    let screen = Screen::start().await;
    for n in 0..3 {
        screen.submit(json!({"task": "tasks.add", "args": [n, 1], "countdown": 3600})).await;
    }
    screen.page("overview").await;
    screen.browser.keys(&["g", "t"]).await;
    screen
        .browser
        .wait_for("the list opens", "location.hash === '#/tasks' && document.querySelectorAll('tbody tr').length === 3")
        .await;
    screen.browser.key("j").await;
    screen.browser.key("j").await;
    screen
        .browser
        .wait_for("the second row is marked", "document.querySelector('tbody tr:nth-child(2).at-keyboard')")
        .await;
    screen.browser.key("k").await;
    screen
        .browser
        .wait_for("the first row is marked", "document.querySelector('tbody tr:nth-child(1).at-keyboard')")
        .await;
    screen.browser.key("?").await;
    screen
        .browser
        .wait_for("the keys are listed", "document.querySelector('dialog')?.innerText.includes('Go anywhere')")
        .await;
    assert_eq!(screen.browser.barriers().await, Vec::<String>::new());
    screen.browser.keep("keys").await;
    screen.browser.key("\u{E00C}").await;
    screen.browser.wait_for("it is closed", "document.querySelector('dialog') === null").await;
    screen.browser.run("dispatchEvent(new KeyboardEvent('keydown', { key: 'k', ctrlKey: true, bubbles: true }))").await;
    screen.browser.wait_for("the palette is open", "document.activeElement.getAttribute('role') === 'combobox'").await;
    screen.browser.key("w").await;
    screen.browser.key("o").await;
    screen
        .browser
        .wait_for("it finds the workers", "document.querySelector('.palette .here')?.textContent === 'Workers'")
        .await;
    screen.browser.key("\u{E007}").await;
    screen.browser.wait_for("their page opens", "location.hash === '#/workers'").await;
    screen.clean_console().await;
}

#[tokio::test]
async fn the_pages_speak_korean_and_english() {
    let screen = Screen { dev: Dev::start(), browser: Browser::start(390, 844).await };
    screen.page("overview").await;
    screen.browser.run("localStorage.setItem('taskgate-language', 'ko')").await;
    for (hash, title) in [("tasks", "작업"), ("queues", "큐"), ("dead-letters", "실패 보관함"), ("audit", "감사 기록")]
    {
        screen.page(hash).await;
        screen.browser.wait_for(title, &format!("document.querySelector('main h1').textContent === '{title}'")).await;
        screen.browser.settle().await;
        let over = screen.browser.run("return document.documentElement.scrollWidth - innerWidth").await;
        assert!(over.as_f64() <= Some(0.0), "{hash} is wider than the phone by {over}");
        assert_eq!(screen.browser.barriers().await, Vec::<String>::new(), "{hash}");
    }
    assert_eq!(screen.browser.run("return document.documentElement.lang").await, "ko");
    screen.clean_console().await;
}

#[tokio::test]
async fn a_page_says_since_when_the_gateway_is_gone_and_keeps_what_it_showed() {
    let mut screen = Screen { dev: Dev::start(), browser: Browser::start(390, 844).await };
    screen.submit(json!({"task": "tasks.add", "args": [1, 2], "queue": "nobody"})).await;
    screen.page("queues").await;
    screen.browser.wait_for("the queue is there", "document.querySelector('main').innerText.includes('nobody')").await;
    screen.dev.gateway.kill();
    let told = "document.querySelector('.down')?.innerText.includes('has not answered since')";
    screen.browser.wait_for("it says since when", told).await;
    screen.browser.keep("phone-down").await;
    let kept = screen.browser.run("return document.querySelector('main').innerText").await.to_string();
    assert!(kept.contains("nobody"), "{kept}");
    let over = screen.browser.run("return document.documentElement.scrollWidth - innerWidth").await;
    assert!(over.as_f64() <= Some(0.0), "wider than the phone by {over}");
    assert_eq!(screen.browser.barriers().await, Vec::<String>::new());
    screen.dev.gateway.restart();
    screen.browser.wait_for("it says so no more", "document.querySelector('.down') === null").await;
}
