//! The pages of `docs/reference` that are made from the code. `make reference` writes them; here they are compared, so that no key,
//! metric or problem is without its line.

mod configuration;
mod metrics;
mod problems;

use std::fs;

use crate::harness::celery::root;

const MADE: &str = "<!-- Made from the code by `make reference`. Edit the comments there, not this page. -->\n";

/// Compares a page with what it should be; with `TASKGATE_WRITE_REFERENCE` it writes it.
fn hold_current(page: &str, text: &str) {
    let path = root().join("docs/reference").join(page);
    let expected = format!("{MADE}{text}");
    if std::env::var_os("TASKGATE_WRITE_REFERENCE").is_some() {
        fs::write(&path, &expected).expect("docs/reference can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    assert!(
        found == expected,
        "docs/reference/{page} is not current: run 'make reference'. First difference: {differs:?}"
    );
}

/// A cell of a table: one line, without bars.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
