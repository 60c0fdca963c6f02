//! The TypeScript client in a real browser, on a page of another origin that the gateway allows.

use std::process::Command;

use serde_json::json;

use crate::clients_contract::{node, succeeds};
use crate::dashboard::browser::Browser;
use crate::harness::environment::{Harness, Options};
use crate::harness::process::{self, Process};
use crate::harness::{Version, celery, ports, wait};

const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>page</title><script type="module">
import { Client } from "./dist/index.js";
try {
  const client = new Client({ url: new URLSearchParams(location.search).get("gateway") });
  const task = await client.submit("demo.progress", { args: [3] });
  const kinds = [];
  for await (const event of client.stream(task, { lastEventId: "0" })) kinds.push(event.kind);
  const refused = await client.submit("not.allowed").catch((error) => error.slug);
  window.outcome = { progress: kinds.filter((kind) => kind === "progress").length, last: kinds.at(-1), result: await client.wait(task), refused };
} catch (error) {
  window.outcome = { error: String(error) };
}
</script>"#;

#[tokio::test]
async fn the_typescript_client_follows_a_task_in_a_browser() {
    let (page, _server) = site();
    let env = Harness::start(&Options { config: format!("http.origins = ['{page}']"), ..Options::default() });
    let browser = Browser::start(800, 600).await;
    browser.open(&format!("{page}/?gateway=http://127.0.0.1:{}", env.gateway.port)).await;
    let outcome = browser.wait_for("the page is through", "window.outcome").await;
    let expected = json!({"progress": 3, "last": "end", "result": {"steps": 3}, "refused": "task-not-allowed"});
    assert_eq!(outcome, expected);
}

/// A site with the page and the built client: its origin, and the process that serves it.
fn site() -> (String, Process) {
    let folder = process::folder("site");
    let client = celery::root().join("clients/typescript");
    succeeds(node("typescript", "tsc").arg("-p").arg(client).arg("--outDir").arg(folder.join("dist")));
    std::fs::write(folder.join("index.html"), PAGE).expect("the folder is ours");
    let port = ports::free();
    let mut command = Command::new(Version::Latest.python());
    command.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]).current_dir(folder);
    let mut server = Process::start("site", command);
    server.wait_for_log("Serving HTTP", wait::DEADLINE);
    (format!("http://127.0.0.1:{port}"), server)
}
