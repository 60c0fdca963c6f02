//! Lists in documents are complete: decisions, services of a gateway, phases.

use std::fs;

use celery::task::Phase;
use regex::Regex;

use super::Document;
use crate::harness::celery::root;

/// From this decision on, numbers have no gaps.
const CONTINUOUS_FROM: u32 = 63;

#[test]
fn numbers_of_decisions_are_unique_and_continuous() {
    let files = fs::read_dir(root().join("docs/adr")).expect("a folder").flatten();
    let names = files.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut numbers: Vec<u32> = names.filter_map(|name| name.get(..4).and_then(|digits| digits.parse().ok())).collect();
    numbers.sort_unstable();
    for pair in numbers.windows(2) {
        assert!(pair[0] < pair[1], "two decisions have the number {}", pair[1]);
        assert!(pair[0] < CONTINUOUS_FROM || pair[1] == pair[0] + 1, "after decision {} comes {}", pair[0], pair[1]);
    }
}

#[test]
fn the_architecture_names_every_service_of_a_gateway() {
    let source = fs::read_to_string(root().join("src/app.rs")).expect("it exists");
    let started = Regex::new(r#"(?:service|spawn)\(\s*"([a-z-]+)""#).expect("an expression");
    let architecture = Document::read("docs/ARCHITECTURE.md").text;
    let names: Vec<_> = started.captures_iter(&source).map(|found| found[1].to_owned()).collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names.iter().filter(|name| *name != "migration") {
        assert!(architecture.contains(&format!("\n| {name} |")), "docs/ARCHITECTURE.md does not say what {name} does");
    }
}

#[test]
fn the_glossary_explains_every_phase_with_celerys_word() {
    let glossary = Document::read("docs/GLOSSARY.md").text;
    for phase in Phase::ALL {
        let line = glossary.lines().find(|line| line.starts_with(&format!("| `{}` |", phase.as_str())));
        let line = line.unwrap_or_else(|| panic!("docs/GLOSSARY.md does not explain {}", phase.as_str()));
        assert!(line.matches('|').count() == 4 && line.len() > 30, "{line}");
    }
}

#[test]
fn the_page_of_incidents_explains_every_kind() {
    let page = Document::read("docs/reference/incidents.md").text;
    for kind in taskgate::tell::incidents::Kind::ALL {
        let is_there = page.contains(&format!("\n| `{}` |", kind.as_str()));
        assert!(is_there, "docs/reference/incidents.md does not explain {}", kind.as_str());
    }
}
