//! How CI handles failed tests: `.ci/retry_failed.py` reads the output of `cargo test` and runs failed tests again.
//! Here a shell script plays `cargo`, so that each case takes milliseconds.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::harness::celery::root;

/// As cargo prints it: two programs, in the first of which two tests failed. One of them prints what looks like a list.
const TWO_FAILED: &str = "\
     Running unittests src/lib.rs (target/debug/deps/taskgate-0a1b)

test store::change::late_news_is_dropped ... ok
test relay::a_lost_nudge_costs_one_period ... FAILED
test relay::publishes_in_order - should panic ... FAILED

failures:

---- relay::a_lost_nudge_costs_one_period stdout ----
failures:
    not_a_test

failures:
    relay::a_lost_nudge_costs_one_period
    relay::publishes_in_order

test result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s

error: test failed, to rerun pass `-p taskgate --lib`
     Running tests/it/main.rs (target/debug/deps/it-2c3d)

test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3.00s

error: 1 target failed:
    `-p taskgate --lib`
";

/// Runs the script on a command that prints `output` and ends with `status`. `cargo test … --exact NAME` fails as often as
/// `again` says, for every name, and then passes.
fn retried(output: &str, status: i32, again: u32) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    std::fs::write(path.join("output"), output).expect("written");
    program(path, "tests", &format!("cat {}/output; exit {status}", path.display()));
    program(path, "cargo", &fake_cargo(path, again));
    let search = format!("{}:{}", path.display(), std::env::var("PATH").expect("a PATH"));
    Command::new(root().join(".ci/retry_failed.py"))
        .arg(path.join("tests"))
        .env("PATH", search)
        .output()
        .expect("python3 is there: run tests/setup.sh")
}

fn fake_cargo(folder: &Path, failures: u32) -> String {
    format!(
        "for name; do :; done
calls={folder}/calls-$name; echo >>$calls; echo \"$*\" >>{folder}/arguments
if [ $(wc -l <$calls) -gt {failures} ]; then
    echo 'test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.01s'; exit 0
fi
printf 'failures:\\n    %s\\n\\n' $name
echo 'test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.01s'
echo 'error: test failed, to rerun pass `--lib`'; exit 101",
        folder = folder.display()
    )
}

fn program(folder: &Path, name: &str, body: &str) {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("it is ours");
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn a_test_that_passes_when_it_is_run_again_is_named_before_the_closing_line() {
    for (failures, passing_try) in [(0, 2), (1, 3)] {
        let done = retried(TWO_FAILED, 101, failures);
        let lines = lines(&done);
        assert!(done.status.success(), "{lines:#?}");
        let expected = [
            format!("flaky: relay::a_lost_nudge_costs_one_period, passed at try {passing_try}"),
            format!("flaky: relay::publishes_in_order, passed at try {passing_try}"),
            "43 passed, 0 failed, 1 skipped".to_owned(),
        ];
        assert_eq!(lines[lines.len() - 3..], expected);
    }
}

#[test]
fn a_failed_test_is_run_alone_in_its_own_program() {
    let lines = lines(&retried(TWO_FAILED, 101, 0));
    let again: Vec<_> = lines.iter().filter(|line| line.starts_with("== again, alone: ")).collect();
    assert_eq!(
        again,
        [
            "== again, alone: cargo test --locked -p taskgate --lib -- --exact relay::a_lost_nudge_costs_one_period",
            "== again, alone: cargo test --locked -p taskgate --lib -- --exact relay::publishes_in_order",
        ]
    );
}

#[test]
fn a_test_that_fails_three_times_fails_the_run() {
    let done = retried(TWO_FAILED, 101, 2);
    let lines = lines(&done);
    assert!(!done.status.success(), "{lines:#?}");
    let expected = [
        "failed 3 times: relay::a_lost_nudge_costs_one_period (-p taskgate --lib)",
        "failed 3 times: relay::publishes_in_order (-p taskgate --lib)",
        "41 passed, 2 failed, 1 skipped",
    ];
    assert_eq!(lines[lines.len() - 3..], expected);
}

#[test]
fn a_run_without_failures_closes_with_its_sum() {
    let output = "test result: ok. 7 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 1.00s\n";
    let done = retried(&output.repeat(2), 0, 0);
    assert!(done.status.success());
    assert_eq!(lines(&done).last().map(String::as_str), Some("14 passed, 0 failed, 4 skipped"));
}

#[test]
fn what_is_no_flaky_test_fails_the_run_at_once() {
    let crash = "error: test failed, to rerun pass `--test it`\n\nCaused by:\n  process didn't exit successfully\n";
    let many: String = (0..21).map(|number| format!("    test_{number}\n")).collect();
    let many = format!(
        "failures:\n{many}\ntest result: FAILED. 0 passed; 21 failed; 0 ignored; 0 measured\n\
         error: test failed, to rerun pass `--lib`\n"
    );
    for (output, status, reason) in [
        (crash, 101, "ended without a result: --test it"),
        ("error: could not compile `taskgate`\n", 101, "the command failed with status 101, and no test did"),
        (many.as_str(), 101, "21 tests failed; more than 20 are not tried again"),
        ("test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured\n", 101, "1 tests failed, 0 of them"),
        ("nothing to do\n", 0, "no test ran"),
    ] {
        let done = retried(output, status, 0);
        let lines = lines(&done);
        assert!(!done.status.success(), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains(reason)), "{reason} is missing in {lines:#?}");
        assert!(!lines.iter().any(|line| line.starts_with("== again")), "{lines:#?}");
    }
}
