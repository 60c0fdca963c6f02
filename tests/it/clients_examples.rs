//! The examples for web frameworks, each started by its single command.

use std::process::Command;

use serde_json::{Value, json};

use crate::clients_contract::{environment, node, succeeds, with_path};
use crate::dev::Dev;
use crate::harness::process::{self, Process};
use crate::harness::{Http, celery, eventually, ports};

#[tokio::test]
async fn the_fastapi_example_packs_an_order() {
    let example = Example::start("fastapi", "fastapi");
    let order = example.http.post("/orders", &json!({"item": "tea", "quantity": 2})).await.expect(202);
    let done = example.finished(&order, "SUCCESS").await;
    assert_eq!(done["result"], json!({"item": "tea", "pieces": 2}));
    let stream = example.http.get(&format!("/orders/{}/events", order["id"].as_str().expect("an id"))).await;
    assert!(stream.text().contains("event: end"), "{}", stream.text());
    let order = example.http.post("/paid-orders?price=2.5", &json!({"item": "tea", "quantity": 2})).await.expect(202);
    assert_eq!(example.finished(&order, "SUCCESS").await["result"], 5.0);
}

#[tokio::test]
async fn the_django_example_packs_an_order() {
    let newest = if environment("django6").exists() { "django6" } else { "django" };
    let example = Example::start("django", newest);
    let order = example.http.post("/orders", &json!({"item": "tea", "quantity": 2})).await.expect(202);
    let done = example.finished(&order, "SUCCESSFUL").await;
    assert_eq!(done["result"], json!({"item": "tea", "pieces": 2}));
}

/// Next.js itself is not installed for it: its routes are functions of a request, compiled and called as Next.js would.
#[tokio::test]
async fn the_routes_of_the_next_js_example_start_and_relay_a_crawl() {
    let dev = Dev::start();
    let out = process::folder("nextjs");
    let package = out.join("node_modules/taskgate");
    std::fs::create_dir_all(&package).expect("the folder is ours");
    let client = celery::root().join("clients/typescript");
    std::fs::copy(client.join("package.json"), package.join("package.json")).expect("the client has it");
    succeeds(node("typescript", "tsc").arg("-p").arg(&client).arg("--outDir").arg(package.join("dist")));
    let flags = ["--noCheck", "--module", "commonjs", "--target", "ES2022", "--rootDir", "examples/nextjs"];
    let routes = ["app/api/crawls/route.ts", "app/api/crawls/[id]/events/route.ts"]
        .map(|route| format!("examples/nextjs/{route}"));
    succeeds(node("typescript", "tsc").args(flags).arg("--outDir").arg(out.join("js")).args(routes));
    let mut command = Command::new("node");
    command
        .args(["--test", "examples/nextjs/test/"])
        .env("PATH", with_path(environment("node").join("bin")))
        .env("ROUTES", out.join("js"))
        .env("TASKGATE_URL", &dev.http.base);
    tokio::task::spawn_blocking(move || succeeds(&mut command)).await.expect("the routes pass their tests");
}

/// `examples/start.py NAME`, ready.
struct Example {
    _process: Process,
    http: Http,
}

impl Example {
    fn start(name: &str, environment_name: &str) -> Self {
        let (port, gateway) = (ports::free(), ports::free());
        let mut command = Command::new("python3");
        command
            .arg(celery::root().join("examples/start.py"))
            .arg(name)
            .env("PYTHON", environment(environment_name).join("bin/python"))
            .env("PYTHONPATH", celery::root().join("clients/python/src"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            .env("C_FORCE_ROOT", "1")
            .env("TASKGATE", env!("CARGO_BIN_EXE_taskgate"))
            .env("TASKGATE_PORT", gateway.to_string())
            .env("PORT", port.to_string());
        let mut process = Process::start(name, command);
        process.wait_for_log("dashboard: http", crate::harness::wait::DEADLINE);
        Self { _process: process, http: Http::new(format!("http://127.0.0.1:{port}")) }
    }

    /// The text of this order's page when it has this status.
    async fn finished(&self, order: &Value, status: &str) -> Value {
        let path = format!("/orders/{}", order["id"].as_str().expect("an id"));
        eventually(&format!("{path} is {status}"), async || {
            let found = self.http.get(&path).await.expect(200);
            (found["status"] == status).then_some(found)
        })
        .await
    }
}
