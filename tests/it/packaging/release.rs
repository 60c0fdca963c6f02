//! What is released, and how: one version in every place, workflows that GitHub understands, a unit that systemd does.

use std::process::Command;

use super::{done, tool};
use crate::harness::celery::root;

fn release(arguments: &[&str]) -> (bool, String) {
    let done = Command::new(root().join(".ci/release.py")).args(arguments).output().expect("python3 is there");
    (
        done.status.success(),
        format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr)),
    )
}

#[test]
fn cargo_the_chart_and_the_changelog_name_one_version() {
    let version = env!("CARGO_PKG_VERSION");
    let (agreed, said) = release(&["version", &format!("v{version}")]);
    // Between releases only the date is missing.
    assert!(agreed || said.contains("still says (unreleased)"), "{said}");
    let (_, notes) = release(&["notes", version]);
    assert!(notes.lines().any(|line| line.starts_with("* ")), "{notes}");
}

#[test]
fn a_tag_that_differs_stops_the_release_and_names_all_places() {
    let (agreed, said) = release(&["version", "v999.0.0"]);
    assert!(!agreed);
    for place in ["Cargo.toml, package.version", "Chart.yaml, version", "Chart.yaml, appVersion", "CHANGELOG.md"] {
        assert!(said.contains(place), "{place} is missing in {said}");
    }
}

#[test]
fn workflows_are_valid_and_give_nothing_away() {
    let workflows = [".github/workflows/ci.yml", ".github/workflows/release.yml"];
    let mut schema = tool("check-jsonschema");
    schema.args(["--builtin-schema", "vendor.github-workflows"]).args(workflows);
    done(schema);
    // Actions pinned by commit, no credentials left behind, no text of strangers in shell commands.
    let mut audit = tool("zizmor");
    audit.args(["--offline", "--no-progress"]).args(workflows);
    done(audit);
}

#[test]
fn systemd_understands_the_unit_and_finds_it_hardened() {
    let unit = root().join("deploy/systemd/taskgate.service");
    let text = std::fs::read_to_string(&unit).expect("it exists");
    let folder = tempfile::tempdir().expect("a folder");
    // systemd-analyze looks for the program.
    let here = folder.path().join("taskgate.service");
    let program = env!("CARGO_BIN_EXE_taskgate");
    assert!(text.contains("ExecStart=/usr/bin/taskgate serve"));
    std::fs::write(&here, text.replace("/usr/bin/taskgate serve", &format!("{program} serve"))).expect("written");
    let mut verify = Command::new("systemd-analyze");
    verify.arg("verify").arg(&here);
    let said = done(verify);
    assert!(!said.contains("taskgate.service"), "{said}");
    // 0 is nothing, 100 all; an ordinary service without hardening has 96.
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--threshold=15", "--no-pager"]).arg(&unit);
    done(security);
}
