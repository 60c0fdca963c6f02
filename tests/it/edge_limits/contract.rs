//! The contract under schemathesis: for any generated request, no 5xx, and no status or body that the document lacks.
//!
//! Here in a short form; `make contract` runs all phases with 200 examples for each operation.

use std::process::Command;

use serde_json::json;

use crate::harness::celery::root;
use crate::harness::environment::{Harness, Options};
use crate::harness::turns;

/// Examples for each operation, when nobody says otherwise.
const EXAMPLES: &str = "3";
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
                      response_headers_conformance";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_keeps_its_contract_whatever_it_is_asked() {
    let long = std::env::var("TASKGATE_CONTRACT_EXAMPLES").ok();
    let _turn = turns::heavy();
    let env = Harness::start(&Options { without_worker: true, ..Options::default() });
    let mut known = Vec::new();
    for signature in [
        json!({"task": "demo.add", "args": [1, 2], "countdown": 3_600}),
        json!({"task": "demo.add", "args": [1, 2], "queue": "nobody"}),
        json!({"chain": [{"task": "demo.add", "args": [1, 2]}, {"task": "demo.add", "args": [3]}]}),
    ] {
        known.push(env.submit_signature(signature).await);
    }
    let group = json!({"tasks": [{"task": "demo.add", "args": [1, 2]}, {"task": "demo.add", "args": [3, 4]}]});
    let group = env.http.post("/group", &group).await.expect(202);
    known.push(group["group_id"].as_str().expect("an id").to_owned());
    env.http.post(&format!("/v1/tasks/{}/revoke", known[0]), &json!({})).await.expect(200);
    let mut command = Command::new(root().join(".venv/schemathesis/bin/schemathesis"));
    command
        .args(["run", &format!("{}/openapi.json", env.http.base), "--checks", CHECKS, "--no-color"])
        // The stream of all events has no end.
        .args(["--exclude-path", "/v1/events", "--request-timeout", "60", "--continue-on-failure"])
        .args([
            "--phases",
            if long.is_some() { "examples,coverage,fuzzing,stateful" } else { "examples,fuzzing,stateful" },
        ])
        .args(["--max-examples", long.as_deref().unwrap_or(EXAMPLES)])
        .current_dir(env.gateway.directory())
        .env("PYTHONPATH", root().join("tests/contract"))
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("TASKGATE_KNOWN_IDS", known.join(" "));
    if long.is_none() {
        command.args(["--seed", "1"]);
    }
    let done = tokio::task::spawn_blocking(move || command.output()).await.expect("it does not panic");
    let done = done.expect("tests/setup.sh installs schemathesis");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    if long.is_some() {
        println!("{said}");
    }
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    assert!(said.contains("passed"), "{said}");
    let log = env.gateway.log();
    assert!(!log.contains("panicked"), "{log}");
}
