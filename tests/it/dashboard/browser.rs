//! A real browser, driven over the WebDriver protocol: chromium and its driver, a profile of its own, nothing in the background.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};

use crate::harness::process::Process;
use crate::harness::{celery, eventually, http, ports, turns};

/// The key under which WebDriver returns an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
];
/// The same browser without a user interface, where the system has it; `headless.sh` starts it.
const SHELL: &str = "/usr/lib/chromium/chromium-headless-shell";
/// A window cannot be narrower; below this the browser emulates a phone.
const PHONE: u32 = 500;
/// A page load on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const AXE: &str = include_str!("../../vectors/axe/axe.min.js");

pub struct Browser {
    client: reqwest::Client,
    session: String,
    // Dropped in this order: the driver (with its browser), then the profile.
    _driver: Process,
    _profile: tempfile::TempDir,
    _turn: turns::Turn,
}

impl Browser {
    /// # Panics
    /// When chromium or its driver is missing; `tests/setup.sh` installs them.
    pub async fn start(width: u32, height: u32) -> Self {
        Self::launch(turns::heavy(), 0, width, height).await
    }

    /// As [`Browser::start`], for measurements: no other test with a browser runs meanwhile, and this process gets a higher priority
    /// if the system allows it.
    pub async fn start_alone(width: u32, height: u32) -> Self {
        Self::launch(turns::alone(), -15, width, height).await
    }

    async fn launch(turn: turns::Turn, niceness: i32, width: u32, height: u32) -> Self {
        let port = ports::free();
        let profile = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new("nice");
        command.args(["-n", &niceness.to_string(), "chromedriver", &format!("--port={port}")]);
        let driver = Process::start("chromedriver", command);
        let client = http::client().timeout(PATIENCE).build().expect("a client without TLS roots");
        let address = format!("http://127.0.0.1:{port}");
        eventually("chromedriver is ready", async || client.get(format!("{address}/status")).send().await.ok()).await;
        let mut flags: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
        flags.push(format!("--user-data-dir={}", profile.path().display()));
        flags.push(format!("--window-size={width},{height}"));
        let mut options = json!({"args": flags});
        // It starts with a quarter of the processor time of the whole browser.
        if Path::new(SHELL).exists() {
            options["binary"] = json!(celery::root().join("tests/it/dashboard/headless.sh"));
        }
        if width < PHONE {
            options["mobileEmulation"] =
                json!({"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1.0}});
        }
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}});
        let opened = call(client.post(format!("{address}/session")).json(&wanted)).await;
        let id = opened["sessionId"].as_str().expect("a session");
        let session = format!("{address}/session/{id}");
        Self { client, session, _driver: driver, _profile: profile, _turn: turn }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        call(self.client.post(format!("{}/{path}", self.session)).json(&body)).await
    }

    pub async fn open(&self, url: &str) {
        self.post("url", json!({"url": url})).await;
    }

    /// The value that the script returns.
    pub async fn run(&self, script: &str) -> Value {
        self.post("execute/sync", json!({"script": script, "args": []})).await
    }

    /// Waits until the expression is neither false nor empty; answers with it.
    pub async fn wait_for(&self, what: &str, expression: &str) -> Value {
        let script = format!("return {expression};");
        eventually(what, async || {
            let value = self.run(&script).await;
            (!matches!(value, Value::Null | Value::Bool(false))).then_some(value)
        })
        .await
    }

    /// Waits for the element and clicks it as a mouse would. If the page replaces the element meanwhile, it is searched again.
    pub async fn click(&self, selector: &str) {
        eventually(&format!("{selector} is clicked"), async || {
            let body = json!({"using": "css selector", "value": selector});
            let found = self.ask("element", &body).await?;
            let id = found[ELEMENT].as_str()?;
            self.ask(&format!("element/{id}/click"), &json!({})).await
        })
        .await;
    }

    /// `None` if the browser refuses the command.
    async fn ask(&self, path: &str, body: &Value) -> Option<Value> {
        let request = self.client.post(format!("{}/{path}", self.session)).json(body);
        let answer: Value = request.send().await.ok()?.json().await.ok()?;
        answer["value"]["error"].is_null().then(|| answer["value"].clone())
    }

    /// Waits until nothing has been loaded for a while.
    pub async fn settle(&self) {
        let idle = "performance.getEntriesByType('resource').at(-1)?.responseEnd < performance.now() - 300";
        self.wait_for("everything is loaded", idle).await;
    }

    /// Presses and releases one key, by its WebDriver code.
    pub async fn key(&self, key: &str) {
        self.keys(&[key]).await;
    }

    /// Presses keys one after the other, as fast as the browser takes them: between two calls a busy machine may pause for seconds.
    pub async fn keys(&self, keys: &[&str]) {
        let press = |key: &&str| [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})];
        let presses: Vec<Value> = keys.iter().flat_map(press).collect();
        self.post("actions", json!({"actions": [{"type": "key", "id": "keyboard", "actions": presses}]})).await;
    }

    pub async fn text(&self) -> String {
        self.run("return document.body.innerText").await.as_str().expect("a text").to_owned()
    }

    /// Saves a screenshot under `target/screenshots/`.
    pub async fn keep(&self, name: &str) {
        let shot = call(self.client.get(format!("{}/screenshot", self.session))).await;
        let bytes = base64::engine::general_purpose::STANDARD.decode(shot.as_str().expect("a picture"));
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        std::fs::create_dir_all(&folder).expect("target/ is writable");
        std::fs::write(folder.join(format!("{name}.png")), bytes.expect("base64")).expect("target/ is writable");
    }

    /// Errors and warnings of the console since the last call.
    pub async fn complaints(&self) -> Vec<String> {
        let entries = self.post("se/log", json!({"type": "browser"})).await;
        let entries = entries.as_array().expect("a list").iter();
        let loud = entries.filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING");
        loud.map(|entry| entry["message"].to_string()).collect()
    }

    /// The violations that axe-core finds.
    pub async fn barriers(&self) -> Vec<String> {
        self.run(AXE).await;
        self.found_by_axe(json!({})).await
    }

    /// The same for colour contrast only, on a page that was checked in other colours before.
    pub async fn poor_contrasts(&self) -> Vec<String> {
        self.found_by_axe(json!({"runOnly": ["color-contrast"]})).await
    }

    async fn found_by_axe(&self, options: Value) -> Vec<String> {
        let script = "const [options, done] = arguments; axe.run(options).then(({ violations }) => done(violations \
            .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).slice(0, 3).join(' ')}`)))";
        let found = self.post("execute/async", json!({"script": script, "args": [options]})).await;
        serde_json::from_value(found).expect("texts")
    }
}

async fn call(request: reqwest::RequestBuilder) -> Value {
    let answer: Value = request.send().await.expect("chromedriver answers").json().await.expect("JSON");
    let value = answer["value"].clone();
    assert!(value["error"].is_null(), "the browser says {value}");
    value
}
