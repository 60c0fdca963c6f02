//! The OpenAPI document works with other tools: linters find no error in it, and generators build clients from it.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::harness::{celery, process};

const CONTRACT: &str = "openapi/openapi.json";

#[test]
fn spectral_finds_no_error_in_the_contract() {
    let ruleset = ["--ruleset", "tests/contract/spectral.yaml", "--fail-severity", "error"];
    succeeds(node("contract-linters", "spectral").arg("lint").args(ruleset).arg(CONTRACT));
}

#[test]
fn redocly_finds_no_error_in_the_contract() {
    succeeds(node("contract-linters", "redocly").args(["lint", CONTRACT]).env("REDOCLY_TELEMETRY", "off"));
}

#[test]
fn a_python_client_is_generated_without_a_warning() {
    let bin = environment("generator").join("bin");
    let out = process::folder("generated").join("client");
    let mut command = Command::new(bin.join("openapi-python-client"));
    command.args(["generate", "--path", CONTRACT, "--meta", "none", "--fail-on-warning", "--output-path"]).arg(&out);
    succeeds(command.env("PATH", with_path(bin)));
    assert!(out.join("models").join("signature.py").exists() || out.join("models").join("task_signature.py").exists());
}

#[test]
fn the_types_of_the_typescript_client_are_those_of_the_contract() {
    let out = process::folder("generated").join("schema.ts");
    succeeds(node("typescript", "openapi-typescript").args([CONTRACT, "--output"]).arg(&out));
    let read = |path: PathBuf| std::fs::read_to_string(path).expect("it is there");
    let committed = read(celery::root().join("clients/typescript/src/schema.ts"));
    assert!(read(out) == committed, "clients/typescript/src/schema.ts is stale: run `make openapi`");
}

/// A program of the npm packages in an environment of `tests/setup.sh`.
pub fn node(environment_name: &str, program: &str) -> Command {
    let mut command = Command::new(environment(environment_name).join("node_modules/.bin").join(program));
    command.current_dir(celery::root()).env("PATH", with_path(environment("node").join("bin"))).env("NO_COLOR", "1");
    command
}

/// `PATH` with this folder first.
pub fn with_path(first: PathBuf) -> std::ffi::OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths([first].into_iter().chain(std::env::split_paths(&rest))).expect("no path here has a colon")
}

pub fn environment(name: &str) -> PathBuf {
    celery::root().join(".venv").join(name)
}

/// # Panics
/// With its output, when it fails.
pub fn succeeds(command: &mut Command) -> Output {
    let done = command.current_dir(celery::root()).output().expect("run tests/setup.sh first");
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}\n{said}");
    done
}
