//! The image and how compose runs it: no shell, no root, no privilege, and nothing that can be written to except what must be.
//! Without Docker here, the text of the Dockerfile is checked, and the program runs in a mount namespace like the image's.

use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use super::compose;
use crate::harness::celery::root;
use crate::harness::postgres::cluster;
use crate::harness::process::Process;
use crate::harness::{Http, ports, wait};

/// The lines of the last stage: what the image is made of.
fn last_stage() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("Dockerfile")).expect("it exists");
    let last = text.rfind("\nFROM ").expect("a stage");
    text[last + 1..].lines().map(str::to_owned).collect()
}

fn after<'a>(lines: &'a [String], word: &str) -> Vec<&'a str> {
    lines.iter().filter_map(|line| line.strip_prefix(word)).map(str::trim).collect()
}

#[test]
fn the_image_has_no_shell_and_its_user_is_not_root() {
    let lines = last_stage();
    assert_eq!(after(&lines, "FROM "), ["scratch"], "an empty image has no shell");
    assert!(after(&lines, "RUN ").is_empty(), "there is nothing to run it with");
    // Kubernetes' runAsNonRoot understands numbers only.
    let user: Vec<u32> = after(&lines, "USER ")[0].split(':').map(|id| id.parse().expect("a number")).collect();
    assert!(user.len() == 2 && user.iter().all(|id| *id >= 1000), "{user:?}");
    for form in ["ENTRYPOINT", "CMD"] {
        assert!(after(&lines, form)[0].starts_with('['), "{form} needs a shell");
    }
    let health = after(&lines, "HEALTHCHECK")[0];
    assert!(health.contains("CMD [\"/usr/local/bin/taskgate\", \"healthcheck\"]"), "{health}");
}

#[test]
fn compose_runs_taskgate_read_only_and_without_capabilities() {
    let compose = compose();
    let services = compose["services"].as_object().expect("services");
    let ours: Vec<_> = services.iter().filter(|(_, service)| service["image"] == "taskgate").collect();
    assert_eq!(ours.len(), 2);
    for (name, service) in ours {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"], json!(["ALL"]), "{name}");
        assert_eq!(service["security_opt"], json!(["no-new-privileges:true"]), "{name}");
        assert_eq!(service["tmpfs"], json!(["/tmp"]), "{name}");
    }
    for (name, service) in services {
        assert!(service["privileged"].is_null() && service["network_mode"].is_null(), "{name}");
        assert!(!service["volumes"].to_string().contains("docker.sock"), "{name}");
    }
}

/// Makes every file system read-only but a small one for temporary files, checks that it did, and becomes the program.
const READ_ONLY: &str = r#"
set -eu
mount --make-rprivate /
mount --bind / /
while read -r _ place _; do mount -o remount,bind,ro "$place" 2>/dev/null || true; done </proc/self/mounts
mount -t tmpfs -o size=64m tmpfs "$TMPDIR"
if touch "$FORBIDDEN/file" 2>/dev/null; then echo "it is not read-only" >&2; exit 99; fi
cd /
exec "$@"
"#;

/// `unshare` as this user may call it; `None` where the system forbids it, as containers often do.
fn unshare() -> Option<Vec<&'static str>> {
    [vec!["unshare", "-m"], vec!["unshare", "-r", "-m"]].into_iter().find(|command| {
        Command::new(command[0]).args(&command[1..]).arg("true").output().is_ok_and(|done| done.status.success())
    })
}

fn serve_read_only(unshare: &[&str], port: u16, database: &str, temporary: &TempDir) -> Process {
    let mut command = Command::new(unshare[0]);
    command
        .args(&unshare[1..])
        .args(["sh", "-c", READ_ONLY, "sh", env!("CARGO_BIN_EXE_taskgate"), "serve"])
        .env_clear()
        .env("PATH", std::env::var("PATH").expect("a PATH"))
        .env("TMPDIR", temporary.path())
        .env("FORBIDDEN", root().join("target"))
        .env("DATABASE_URL", database)
        .env("CELERY_BROKER_URL", format!("redis://127.0.0.1:{}/0", ports::free()))
        .env("TASKGATE_AUTH", "none")
        .env("TASKGATE_SUBMIT__ALLOW", "demo.*")
        .env("TASKGATE_HTTP__LISTEN", format!("127.0.0.1:{port}"));
    Process::start("taskgate", command)
}

#[tokio::test]
async fn serve_needs_to_write_nowhere_but_in_the_folder_for_temporary_files() {
    let Some(unshare) = unshare() else {
        assert!(std::env::var("CI").is_err(), "CI can make mount namespaces");
        eprintln!("not tested: this system forbids mount namespaces");
        return;
    };
    let temporary = tempfile::tempdir().expect("a folder");
    let port = ports::free();
    let mut process = serve_read_only(&unshare, port, &cluster().migrated_database(), &temporary);
    wait::blocking(wait::DEADLINE, "serve is ready", || {
        assert!(process.ended().is_none(), "{}", process.log());
        (crate::harness::gateway::probe(port, "/readyz") == Some(200)).then_some(())
    });
    // This many verdicts are not kept in memory: they go through the folder for temporary files.
    let lines = "{\"task\": \"demo.add\", \"args\": [1, 2]}\n".repeat(20_000);
    let http = Http::new(format!("http://127.0.0.1:{port}"));
    let headers = [("content-type", "application/x-ndjson")];
    let answer = http.send(reqwest::Method::POST, "/v1/tasks/batch", &headers, Some(lines.into_bytes())).await;
    assert_eq!(answer.expect(202)["accepted"], 20_000);
}
