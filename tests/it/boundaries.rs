//! The architecture, read from the source text: each thing is found in its place only, and nowhere else.
//!
//! Comments and `#[cfg(test)]` parts do not count. A place that does not exist yet holds nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

use crate::harness::celery::root;

/// A file above this has a second idea in it.
const MOST_LINES: usize = 450;

struct Source {
    /// Relative to `src/`, with forward slashes.
    path: String,
    /// The code without comments, texts and tests.
    code: String,
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
    Rule { what: "sqlx", pattern: r"\bsqlx\b", places: &["store/postgres/", "store/sqlite/"] },
    Rule { what: "the redis client", pattern: r"(?m)(?:^|[^:\w])redis::", places: &["broker/", "backend/"] },
    Rule { what: "axum", pattern: r"\baxum\b", places: &["http/"] },
    Rule { what: "StatusCode", pattern: r"\bStatusCode\b", places: &["http/"] },
    Rule { what: "OpenAPI", pattern: r"\butoipa\w*\b", places: &["http/"] },
    Rule {
        what: "the current time",
        pattern: r"SystemTime::now|Timestamp::now|Zoned::now|Utc::now|OffsetDateTime::now",
        places: &["clock.rs"],
    },
    Rule { what: "new ids", pattern: r"Uuid::(now_v7|new_v4|now_v6|now_v1)", places: &["clock.rs"] },
    Rule {
        what: "a concrete ledger",
        pattern: r"\b(PostgresLedger|SqliteLedger|store::postgres|store::sqlite)\b",
        places: &["app.rs", "app/", "dev.rs", "dev/", "store/"],
    },
];

/// What is pure lacks everything that could make it otherwise.
const IMPURE: &str = r"\btokio::(?:net|fs|time|spawn|process)|\bstd::(?:fs|net|env|process)|Instant::now|\brand::|\breqwest\b|\bcrate::clock\b|\basync fn\b";

/// Who may be used by whom: a module on the left never mentions one on the right.
const NEVER_USES: &[(&str, &[&str])] = &[
    (
        "task/",
        &[
            "celery", "broker", "backend", "store", "gateway", "services", "beat", "worker", "http", "app", "resp",
            "config",
        ],
    ),
    (
        "celery/",
        &["broker", "backend", "store", "gateway", "services", "beat", "worker", "http", "app", "resp", "config"],
    ),
    ("broker/", &["store", "gateway", "services", "beat", "worker", "http", "app", "resp"]),
    ("backend/", &["store", "gateway", "services", "beat", "worker", "http", "app", "resp"]),
    ("store/", &["celery", "broker", "backend", "gateway", "services", "beat", "worker", "http", "app", "resp"]),
    ("gateway/", &["http", "app", "worker", "resp"]),
    ("services/", &["http", "app", "worker", "resp", "gateway"]),
    ("worker/", &["http", "app", "store", "gateway", "services", "resp"]),
    (
        "resp/",
        &["task", "celery", "broker", "backend", "store", "gateway", "services", "beat", "worker", "http", "app"],
    ),
    ("http/", &["app"]),
];

/// Read once: the patterns are slow without optimisation.
static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let mut found = Vec::new();
    let src = root().join("src");
    collect(&src, &mut |path| {
        let text = fs::read_to_string(path).expect("source is UTF-8");
        let path = path.strip_prefix(&src).expect("below src").to_string_lossy().into_owned();
        found.push(Source {
            path,
            lines: text.lines().count(),
            has_header: text.starts_with("//!"),
            code: code(&text),
        });
    });
    found
});

fn collect(folder: &Path, each: &mut impl FnMut(&Path)) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).expect("src is readable").map(|entry| entry.expect("readable").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, each);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            each(&path);
        }
    }
}

/// The code up to the tests at its end, without line comments and texts. Patterns would take ten times as long, unoptimised.
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

/// Where a module of tests begins, with its attributes.
fn beginning_of_tests(text: &str) -> usize {
    let begins = |(place, mark): &(usize, &str)| {
        let at_line_start = *place == 0 || text[..*place].ends_with('\n');
        let mut lines = text[place + mark.len()..].lines().skip_while(|line| line.starts_with("#["));
        at_line_start && lines.next().is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    };
    text.match_indices("#[cfg(test)]\n").find(begins).map_or(text.len(), |(place, _)| place)
}

/// Files that are tests as a whole: `foo_tests.rs`, `foo/tests.rs`.
fn is_test(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("/tests/") || path == "celery/vectors.rs"
}

fn refuse(offences: &[String]) {
    assert!(offences.is_empty(), "\n  {}\n", offences.join("\n  "));
}

#[test]
fn things_are_found_in_their_places_only() {
    let mut offences = Vec::new();
    for rule in RULES {
        let pattern = Regex::new(rule.pattern).expect("a pattern");
        for source in SOURCES.iter().filter(|source| !is_test(&source.path)) {
            let allowed = rule.places.iter().any(|place| source.path.starts_with(place));
            // A module of ours may well be called redis.
            let own = rule.what == "the redis client" && source.code.contains("mod redis;");
            if let (false, Some(found)) = (allowed || own, pattern.find(&source.code)) {
                offences.push(format!(
                    "{}: {} ({}) belongs to {:?}",
                    source.path,
                    rule.what,
                    found.as_str(),
                    rule.places
                ));
            }
        }
    }
    refuse(&offences);
}

#[test]
fn vocabulary_and_wire_formats_are_pure() {
    let pattern = Regex::new(IMPURE).expect("a pattern");
    let mut offences = Vec::new();
    for source in SOURCES.iter().filter(|source| source.path.starts_with("task/") || source.path.starts_with("celery/"))
    {
        if let (false, Some(found)) = (is_test(&source.path), pattern.find(&source.code)) {
            offences.push(format!("{}: {}", source.path, found.as_str()));
        }
    }
    refuse(&offences);
}

#[test]
fn dependencies_point_at_the_vocabulary() {
    let mut offences = Vec::new();
    for (place, strangers) in NEVER_USES {
        let pattern = format!(r"\bcrate::(?:\{{[^}}]*\b)?({})\b", strangers.join("|"));
        let pattern = Regex::new(&pattern).expect("a pattern");
        for source in SOURCES.iter().filter(|source| source.path.starts_with(place) && !is_test(&source.path)) {
            if let Some(found) = pattern.captures(&source.code) {
                offences.push(format!("{}: uses crate::{}", source.path, &found[1]));
            }
        }
    }
    refuse(&offences);
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
    let written = SOURCES.iter().filter(|source| source.lines > 1 && !is_test(&source.path));
    let silent = written.filter(|source| !source.has_header);
    refuse(&silent.map(|source| format!("{}: no header", source.path)).collect::<Vec<_>>());
}

#[test]
fn comments_texts_and_tests_do_not_count() {
    let text = "use a; // sqlx\nlet b = \"sqlx\";\n#[cfg(test)]\nmod tests {\n use sqlx; }\n";
    assert!(!code(text).contains("sqlx"));
    assert!(code(text).contains("use a;"));
}
