//! Every metric, with its kind and its help.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use regex::Regex;

use super::{cell, hold_current};
use crate::harness::celery::root;

fn source(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect(path)
}

/// Name → (kind, help) of the lists in `telemetry/names.rs`.
fn of_the_process() -> BTreeMap<String, (String, String)> {
    let text = source("src/telemetry/names.rs");
    let list = Regex::new(r"(?s)const (COUNTERS|GAUGES|HISTOGRAMS)[^=]*= &\[(.*?)\n\];").expect("an expression");
    let entry = Regex::new(r#"(?s)\(\s*"(\w+)",\s*"([^"]+)",?\s*\)"#).expect("an expression");
    let mut found = BTreeMap::new();
    for list in list.captures_iter(&text) {
        let kind = list[1].trim_end_matches('S').to_lowercase();
        for entry in entry.captures_iter(&list[2]) {
            found.insert(entry[1].to_owned(), (kind.clone(), entry[2].to_owned()));
        }
    }
    found
}

/// As above, of the figures that `edge/fleet.rs` computes.
fn of_the_fleet() -> BTreeMap<String, (String, String)> {
    let text = source("src/edge/fleet.rs");
    let mut found = BTreeMap::new();
    let mut put = |expression: &str, kind: &str| {
        for entry in Regex::new(expression).expect("an expression").captures_iter(&text) {
            let kind = entry.name("kind").map_or(kind, |kind| kind.as_str());
            found.insert(entry["name"].to_owned(), (kind.to_owned(), entry["help"].to_owned()));
        }
    };
    put(r#"\("\w+", "(?<name>\w+_total)", "\w+", "(?<help>[^"]+)"\)"#, "counter");
    put(r#"\("\w+", "\w+_us", "(?<name>\w+)", "(?<help>[^"]+)"\)"#, "histogram");
    put(r#"head\(out, "(?<name>\w+)", "(?<kind>\w+)", "(?<help>[^"]+)"\)"#, "");
    put(r#"\("(?<name>(?:celery|taskgate)_\w+)", "(?<help>[^"]+)", &"#, "gauge");
    found
}

/// Names in the macros that count and measure.
fn used(folder: &Path, found: &mut BTreeSet<String>) {
    let macros = Regex::new(r#"(?:counter|gauge|histogram)!\(\s*"(\w+)""#).expect("an expression");
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            used(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&path).expect("UTF-8");
            found.extend(macros.captures_iter(&text).map(|name| name[1].to_owned()));
        }
    }
}

fn table(page: &mut String, metrics: &BTreeMap<String, (String, String)>) {
    page.push_str("| name | kind | what it says |\n|---|---|---|\n");
    for (name, (kind, help)) in metrics {
        let _ = writeln!(page, "| `{name}` | {kind} | {} |", cell(help));
    }
}

#[test]
fn the_page_of_metrics_is_current() {
    let (process, fleet) = (of_the_process(), of_the_fleet());
    assert!(process.len() > 30 && fleet.len() > 20, "{} and {}", process.len(), fleet.len());
    let mut page = String::from(
        "# Metrics\n\n`GET /metrics` answers in Prometheus' text format. docs/grafana holds a board and alerts for them.\n\n\
         ## Of one process\n\nEach replica counts for itself: add them up.\n\n",
    );
    table(&mut page, &process);
    page.push_str(
        "\n## Of the fleet\n\nComputed from the ledger at each scrape, so every replica says the same: use `max`, not `sum`. Names that \
         Celery exporters use mean the same here.\n\n",
    );
    table(&mut page, &fleet);
    hold_current("metrics.md", &page);
}

#[test]
fn every_metric_that_is_counted_has_its_help() {
    let mut names = BTreeSet::new();
    used(&root().join("src"), &mut names);
    used(&root().join("crates"), &mut names);
    let (process, fleet) = (of_the_process(), of_the_fleet());
    let bare: Vec<_> = names.iter().filter(|name| !process.contains_key(*name) && !fleet.contains_key(*name)).collect();
    assert!(bare.is_empty(), "put them into src/telemetry/names.rs: {bare:?}");
}
