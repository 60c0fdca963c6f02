//! The files around the code: no compiler reads them, so tests check that their consumers accept them.

mod chart;
mod image;
mod package;
mod release;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::celery::root;

/// The documents of a YAML file as JSON, read by the YAML parser that the test environment brings.
fn yaml(path: &Path) -> Vec<Value> {
    let program = "import sys, json, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let python = root().join(".venv/celery-latest/bin/python");
    let done = Command::new(python).args(["-c", program]).arg(path).output().expect("run tests/setup.sh first");
    assert!(done.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).expect("printed as JSON")
}

/// A program of the environment `.venv/packaging`, in the root of the repository.
fn tool(name: &str) -> Command {
    let mut command = Command::new(root().join(".venv/packaging/bin").join(name));
    command.current_dir(root());
    command
}

/// Its output, both kinds.
///
/// # Panics
/// With the output, when it fails.
fn done(mut command: Command) -> String {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run tests/setup.sh"));
    let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{command:?}: {}\n{text}", done.status);
    text
}

fn compose() -> Value {
    yaml(&root().join("docker-compose.yml")).remove(0)
}

#[test]
fn compose_has_the_five_services_and_waits_for_health() {
    let compose = compose();
    for service in ["gateway", "rust-worker", "python-worker", "redis", "postgres"] {
        assert!(compose["services"][service].is_object(), "{service} is missing");
    }
    for service in ["gateway", "redis", "postgres"] {
        assert!(compose["services"][service]["healthcheck"].is_object(), "{service} has no health check");
    }
    assert_eq!(compose["services"]["gateway"]["depends_on"]["postgres"]["condition"], "service_healthy");
    for (volume, _) in compose["volumes"].as_object().expect("volumes are declared") {
        let used = compose["services"].as_object().expect("services").values().any(|service| {
            let mounts = service["volumes"].as_array().map(Vec::as_slice).unwrap_or_default();
            mounts.iter().any(|mount| mount.as_str().is_some_and(|text| text.starts_with(&format!("{volume}:"))))
        });
        assert!(used, "nobody uses the volume {volume}");
    }
}

#[test]
fn files_that_compose_and_the_images_mention_exist() {
    let compose = compose();
    for service in compose["services"].as_object().expect("services").values() {
        if let Some(context) = service["build"]["context"].as_str().or(service["build"].as_str()) {
            assert!(root().join(context).join("Dockerfile").exists(), "{context} has no Dockerfile");
        }
        for mount in service["volumes"].as_array().into_iter().flatten() {
            let source = mount.as_str().and_then(|text| text.split(':').next()).unwrap_or_default();
            if source.starts_with("./") {
                assert!(root().join(source).exists(), "{source} is missing");
            }
        }
    }
    for dockerfile in ["Dockerfile", "examples/celery-python/Dockerfile"] {
        let folder = root().join(dockerfile).parent().expect("it has one").to_owned();
        let text = std::fs::read_to_string(root().join(dockerfile)).expect("it exists");
        for line in text.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from")) {
            let words: Vec<_> = line.split_whitespace().skip(1).filter(|word| !word.contains('*')).collect();
            for source in &words[..words.len() - 1] {
                assert!(folder.join(source).exists(), "{dockerfile}: {line}");
            }
        }
        assert!(text.contains("\nUSER "), "{dockerfile} runs as root");
    }
}

#[test]
fn the_sample_configuration_is_toml_with_the_sample_endpoints() {
    let text = std::fs::read_to_string(root().join("examples/compose/taskgate.toml")).expect("it exists");
    let understood = taskgate::config::Config::parse(taskgate::config::Role::Worker, &text);
    assert!(understood.is_ok(), "{:?}", understood.err());
    let config: toml::Table = text.parse().expect("it is TOML");
    let endpoints: Vec<_> =
        config["tasks"].as_array().expect("tasks").iter().filter_map(|task| task.get("endpoint")).collect();
    for endpoint in ["POST /run-crawler/{category}", "POST /start/{upload_id}", "POST /add", "POST /test-request-info"]
    {
        assert!(endpoints.iter().any(|found| found.as_str() == Some(endpoint)), "{endpoint} is missing");
    }
}
