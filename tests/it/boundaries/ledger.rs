//! The two ledgers must share their common code: it belongs to `crates/ledger/src/both`, or to the modules above.
//!
//! A line counts if it has enough letters to mean something (unlike a bracket or `.await?;`) and both adapters have it. Comments do not
//! count.

use std::collections::HashSet;

use super::{SOURCES, Source};

/// Room for what two adapters of one port always have in common: signatures, lists of modules, imports.
const MOST_EQUAL_LINES: usize = 470;
/// Lines in sequences of [`RUN`] or more equal lines: these were probably copied.
const MOST_COPIED_LINES: usize = 215;
const RUN: usize = 6;
/// A line with fewer letters and digits means nothing by itself.
const SAYS_SOMETHING: usize = 12;

/// The code lines of an adapter, an empty one after each file.
fn lines(adapter: &str) -> Vec<&'static str> {
    let folder = format!("crates/ledger/src/{adapter}/");
    let files = SOURCES.iter().filter(|source| source.path.starts_with(&folder));
    files.flat_map(|Source { text, .. }| text.lines().map(str::trim).filter(|line| is_code(line)).chain([""])).collect()
}

fn is_code(line: &str) -> bool {
    !line.is_empty() && !line.starts_with("//")
}

fn says_something(line: &str) -> bool {
    line.chars().filter(|c| c.is_alphanumeric() || *c == '_').count() >= SAYS_SOMETHING
}

/// The longest run of lines at the beginning of `here` that stands in `there`.
fn run(here: &[&str], there: &[&str]) -> usize {
    let starts = (0..there.len()).filter(|place| here.first() == there.get(*place));
    let length = |place: usize| here.iter().zip(&there[place..]).take_while(|(a, b)| a == b && !a.is_empty()).count();
    starts.map(length).max().unwrap_or(0)
}

#[test]
fn what_both_ledgers_say_is_written_once() {
    let (sqlite, postgres) = (lines("sqlite"), lines("postgres"));
    let known: HashSet<&str> = postgres.iter().copied().collect();
    let equal = sqlite.iter().filter(|line| says_something(line) && known.contains(*line)).count();
    let (mut copied, mut place) = (0, 0);
    while place < sqlite.len() {
        let length = run(&sqlite[place..], &postgres);
        copied += if length >= RUN { length } else { 0 };
        place += if length >= RUN { length } else { 1 };
    }
    println!("{equal} equal lines, {copied} of them in runs of {RUN} or more");
    assert!(equal > 0, "no lines were read");
    assert!(equal <= MOST_EQUAL_LINES, "{equal} lines stand in both adapters: move them to crates/ledger/src/both");
    assert!(copied <= MOST_COPIED_LINES, "{copied} lines are copied from one adapter to the other: move them to both");
}
