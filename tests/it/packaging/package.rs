//! What `cargo deb` and `cargo package` make of the manifests.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use tempfile::TempDir;

use super::{done, tool};
use crate::harness::celery::root;

/// The project with a small file in the program's place. The packaged `cargo deb` is older than edition 2024, so it is shown 2021: what
/// it reads for a package is the same.
fn project() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(root()).expect("a folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "target" && name != "Cargo.toml" && !name.starts_with('.') {
            symlink(entry.path(), folder.path().join(name)).expect("the folder is ours");
        }
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("it exists");
    fs::write(folder.path().join("Cargo.toml"), manifest.replace("\"2024\"", "\"2021\"")).expect("written");
    fs::create_dir_all(folder.path().join("target/debug")).expect("the folder is ours");
    fs::write(folder.path().join("target/debug/taskgate"), "#!/bin/sh\n").expect("written");
    folder
}

#[test]
fn the_debian_package_has_the_program_the_unit_and_private_addresses() {
    let project = project();
    let package = project.path().join("taskgate.deb");
    let mut make = tool("cargo-deb");
    make.current_dir(&project)
        .args(["--no-build", "--no-strip", "--fast", "--profile", "dev", "--output"])
        .arg(&package)
        .env("CARGO_TARGET_DIR", project.path().join("target"));
    done(make);
    let mut contents = Command::new("dpkg-deb");
    contents.arg("--contents").arg(&package);
    let contents = done(contents);
    let mode = |path: &str| {
        let line = contents.lines().find(|line| line.ends_with(path));
        line.unwrap_or_else(|| panic!("{path} is missing in\n{contents}"))[..10].to_owned()
    };
    assert_eq!(mode(" usr/bin/taskgate"), "-rwxr-xr-x");
    assert_eq!(mode(" usr/lib/systemd/system/taskgate.service"), "-rw-r--r--");
    assert_eq!(mode(" etc/taskgate/taskgate.toml"), "-rw-r--r--");
    // Passwords: for root alone.
    assert_eq!(mode(" etc/taskgate/environment"), "-rw-------");
    let mut info = Command::new("dpkg-deb");
    info.args(["--info"]).arg(&package).arg("conffiles");
    let kept = done(info);
    for path in ["/etc/taskgate/taskgate.toml", "/etc/taskgate/environment"] {
        assert!(kept.contains(path), "an upgrade would overwrite {path}");
    }
}

#[test]
fn the_packaged_configuration_is_understood() {
    let text = fs::read_to_string(root().join("deploy/systemd/taskgate.toml")).expect("it exists");
    let text = text + "[database]\nurl = \"postgres://localhost/taskgate\"\n";
    let understood = taskgate::config::Config::parse(taskgate::config::Role::Serve, &text);
    assert!(understood.is_ok(), "{:?}", understood.err());
}

#[test]
fn crates_bring_the_files_that_they_are_built_from() {
    for (name, files) in [
        ("taskgate", &["src/main.rs", "dashboard/index.html", "examples/taskgate.toml"][..]),
        ("taskgate-ledger", &["migrations/postgres/0001_ledger.sql", "migrations/sqlite/0001_ledger.sql"][..]),
    ] {
        let mut list = Command::new(env!("CARGO"));
        list.current_dir(root()).args(["package", "--list", "--allow-dirty", "--locked", "--package", name]);
        let listed = done(list);
        for file in files {
            assert!(listed.lines().any(|line| line == *file), "{name} does not bring {file}:\n{listed}");
        }
        assert!(!listed.contains("corpus"), "{name} brings the fuzzer's corpus");
    }
}
