//! Checks the structure where Cargo cannot: which folder of `src/` may use which, what must stay in one place inside a crate, how
//! long a file may be. The manifests say which crate may use which, and which have the database drivers.
//!
//! Comments and `#[cfg(test)]` parts do not count.

mod ledger;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use regex::Regex;

use crate::harness::celery::root;

/// A longer file usually has a second idea in it.
const MOST_LINES: usize = 450;
/// Dependencies that a user of the worker library must not have to build.
const NOT_IN_THE_WORKER: [&str; 5] = ["axum", "sqlx", "mlua", "scraper", "utoipa-swagger-ui"];

struct Source {
    /// Relative to the project, with forward slashes.
    path: String,
    /// The code without comments, strings and tests.
    code: String,
    text: String,
    lines: usize,
    has_header: bool,
}

/// `pattern` may be found in files under `places` only.
struct Rule {
    what: &'static str,
    pattern: &'static str,
    places: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule { what: "axum", pattern: r"\baxum\b", places: &["src/edge/", "src/dev/"] },
    Rule {
        what: "the ledger or the hub behind a use case",
        pattern: r"\bgateway\s*\.(?:ledger|hub|reads|broker|backend|commit|relay)\b",
        places: &["src/usecase/", "src/roles/"],
    },
    Rule { what: "StatusCode", pattern: r"\bStatusCode\b", places: &["src/edge/"] },
    Rule { what: "OpenAPI", pattern: r"\butoipa\w*\b", places: &["src/edge/"] },
    Rule {
        what: "a concrete ledger",
        pattern: r"\b(PostgresLedger|SqliteLedger|ledger::postgres|ledger::sqlite)\b",
        places: &["src/app.rs", "src/app/", "src/dev/", "crates/ledger/"],
    },
    Rule {
        what: "a clock, a file or a connection in a pure crate",
        pattern: r"\bstd::(?:fs|net|env|process)|Instant::now|\basync fn\b",
        places: &["src/", "crates/runtime/", "crates/broker/", "crates/ledger/", "crates/resp/", "crates/worker/"],
    },
];

/// Read only once, because the patterns are slow in a debug build.
static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let mut found = Vec::new();
    for folder in source_folders() {
        collect(&folder, &mut |path| {
            let text = fs::read_to_string(path).expect("source is UTF-8");
            let path = path.strip_prefix(root()).expect("below the project").to_string_lossy().into_owned();
            found.push(Source {
                path,
                lines: text.lines().count(),
                has_header: text.starts_with("//!"),
                code: code(&text),
                text,
            });
        });
    }
    found
});

/// `src/` and the `src/` of each crate.
fn source_folders() -> Vec<PathBuf> {
    let crates = fs::read_dir(root().join("crates")).expect("crates is readable");
    let inner = crates.map(|entry| entry.expect("readable").path().join("src"));
    std::iter::once(root().join("src")).chain(inner).collect()
}

fn collect(folder: &Path, each: &mut impl FnMut(&Path)) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).expect("the folder is readable").map(|entry| entry.expect("readable").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, each);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            each(&path);
        }
    }
}

/// The code up to the tests at its end, without line comments and strings. Patterns would take ten times as long in a debug build.
fn code(text: &str) -> String {
    let mut rest = &text[..beginning_of_tests(text)];
    let mut code = String::with_capacity(rest.len());
    while let Some(place) = rest.find(['"', '/', '\'']) {
        let (before, found) = rest.split_at(place);
        code.push_str(before);
        rest = if found.starts_with("//") {
            found.find('\n').map_or("", |end| &found[end..])
        } else if let Some(text) = found.strip_prefix('"') {
            code.push_str("\"\"");
            after_text(text)
        } else {
            let length = if found.starts_with("'\"'") { 3 } else { 1 };
            code.push_str(&found[..length]);
            &found[length..]
        };
    }
    code + rest
}

/// What follows the closing quote.
fn after_text(text: &str) -> &str {
    let mut escaped = false;
    let end = text.find(|c: char| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    });
    end.map_or("", |end| &text[end + 1..])
}

/// The position at which a module of tests begins, with its attributes.
fn beginning_of_tests(text: &str) -> usize {
    let begins = |(place, mark): &(usize, &str)| {
        let at_line_start = *place == 0 || text[..*place].ends_with('\n');
        let mut lines = text[place + mark.len()..].lines().skip_while(|line| line.starts_with("#["));
        at_line_start && lines.next().is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    };
    text.match_indices("#[cfg(test)]\n").find(begins).map_or(text.len(), |(place, _)| place)
}

/// Files that contain only tests: `foo_tests.rs`, `foo/tests.rs`.
fn is_test(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("/tests/") || path.ends_with("celery/src/vectors.rs")
}

fn written() -> impl Iterator<Item = &'static Source> {
    SOURCES.iter().filter(|source| !is_test(&source.path))
}

fn refuse(offences: &[String]) {
    assert!(offences.is_empty(), "\n  {}\n", offences.join("\n  "));
}

#[test]
fn things_are_found_in_their_places_only() {
    let mut offences = Vec::new();
    for rule in RULES {
        let pattern = Regex::new(rule.pattern).expect("a pattern");
        for source in written() {
            let allowed = rule.places.iter().any(|place| source.path.starts_with(place));
            if let (false, Some(found)) = (allowed, pattern.find(&source.code)) {
                let found = found.as_str();
                offences.push(format!("{}: {} ({found}) belongs to {:?}", source.path, rule.what, rule.places));
            }
        }
    }
    refuse(&offences);
}

/// The folders of `src/`, each with the folders that it uses.
fn rooms() -> BTreeMap<String, BTreeSet<String>> {
    let used = Regex::new(r"\bcrate::(\w+)").expect("a pattern");
    let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in written() {
        let Some(path) = source.path.strip_prefix("src/") else { continue };
        let room = path.split(['/', '.']).next().expect("a path has a first part").to_owned();
        let uses = rooms.entry(room.clone()).or_default();
        uses.extend(used.captures_iter(&source.code).map(|found| found[1].to_owned()).filter(|other| *other != room));
    }
    rooms
}

/// Repeatedly removes the folders that use none of the remaining ones. What remains is in an import circle, or uses one.
#[test]
fn no_room_is_in_an_import_circle() {
    let mut left = rooms();
    loop {
        let free: BTreeSet<String> = left
            .iter()
            .filter(|(_, uses)| !uses.iter().any(|used| left.contains_key(used)))
            .map(|(room, _)| room.clone())
            .collect();
        if free.is_empty() {
            break;
        }
        left.retain(|room, _| !free.contains(room));
    }
    refuse(&left.iter().map(|(room, uses)| format!("{room} uses {uses:?}")).collect::<Vec<_>>());
}

#[test]
fn the_worker_library_brings_no_server_and_no_database() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--package", "taskgate-worker", "--edges", "normal,build"])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8_lossy(&tree.stdout);
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.contains("taskgate-worker"), "{names:?}");
    let brought: Vec<_> = NOT_IN_THE_WORKER.iter().filter(|name| names.contains(**name)).collect();
    assert!(brought.is_empty(), "{brought:?}");
}

#[test]
fn files_have_one_idea_and_a_name_for_it() {
    let nameless = Regex::new(r"(?:^|/)(?:util|utils|common|helper|helpers)(?:\.rs|/)").expect("a pattern");
    let mut offences = Vec::new();
    for source in SOURCES.iter() {
        if source.lines > MOST_LINES {
            offences.push(format!("{}: {} lines, look for the second idea", source.path, source.lines));
        }
        if nameless.is_match(&source.path) {
            offences.push(format!("{}: a name that says nothing", source.path));
        }
    }
    refuse(&offences);
}

#[test]
fn every_file_says_why_it_exists() {
    let silent = written().filter(|source| source.lines > 1 && !source.has_header);
    refuse(&silent.map(|source| format!("{}: no header", source.path)).collect::<Vec<_>>());
}

#[test]
fn comments_texts_and_tests_do_not_count() {
    let text = "use a; // sqlx\nlet b = \"sqlx\";\n#[cfg(test)]\nmod tests {\n use sqlx; }\n";
    assert!(!code(text).contains("sqlx"));
    assert!(code(text).contains("use a;"));
}
