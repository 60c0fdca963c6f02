//! Reference pages are generated from the code: keys, metrics, problems, the index of decisions.

use std::process::Command;

use crate::harness::celery::root;

#[test]
fn pages_that_are_made_from_the_code_are_current_and_complete() {
    let check = Command::new(root().join(".ci/reference.py")).arg("--check").output().expect("python3 is there");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}
