//! Every key of the configuration, read off the structs that serde fills: `Raw…` in `src/config` name the keys, and the comment of
//! the field, or of the field of the same name in the struct of meanings beside it, says what the key means.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use regex::Regex;

use super::{cell, hold_current};
use crate::harness::celery::root;

/// Sections in the order of the page: the title, the struct of its keys, and how keys become variables, if they do.
const SECTIONS: &[(&str, &str, Option<&str>)] = &[
    ("[http]", "RawHttp", Some("HTTP")),
    ("[database]", "RawDatabase", Some("DATABASE")),
    ("[ledger]", "RawLedger", Some("LEDGER")),
    ("[broker]", "RawBroker", Some("BROKER")),
    ("[backend]", "RawBackend", Some("BACKEND")),
    ("[submit]", "RawSubmit", Some("SUBMIT")),
    ("[limits]", "RawLimits", Some("LIMITS")),
    ("[sweeper]", "RawSweeper", Some("SWEEPER")),
    ("[incidents]", "RawIncidents", Some("INCIDENTS")),
    ("[webhooks]", "RawWebhooks", Some("WEBHOOKS")),
    ("[worker]", "RawWorker", Some("WORKER")),
    ("[log]", "RawLog", Some("LOG")),
    ("[telemetry]", "RawTelemetry", Some("TELEMETRY")),
    ("[[tasks]]", "RawTask", None),
    ("[exchanges.NAME]", "RawExchange", None),
];
/// Top keys that are described in the text, not by a table.
const IN_TEXT: [&str; 3] = ["auth", "routes", "schedules"];

/// A field of a struct: its comment and its type.
#[derive(Clone)]
struct Field {
    name: String,
    comment: String,
    kind: String,
}

/// Struct → fields, of all files in `src/config`, and the file of each struct.
fn structs() -> BTreeMap<String, (String, Vec<Field>)> {
    let head = Regex::new(r"(?ms)^(?:pub(?:\([a-z]+\))? )?struct (\w+) \{\n(.*?)^\}").expect("an expression");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root().join("src/config")).expect("a folder").flatten() {
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        let file = entry.file_name().to_string_lossy().into_owned();
        for found_struct in head.captures_iter(&text) {
            found.insert(found_struct[1].to_owned(), (file.clone(), fields(&found_struct[2])));
        }
    }
    found
}

fn fields(body: &str) -> Vec<Field> {
    let field = Regex::new(r"^(?:pub(?:\([a-z]+\))? )?(\w+): (.+),$").expect("an expression");
    let renamed = Regex::new(r#"rename = "(\w+)""#).expect("an expression");
    let (mut found, mut comment, mut name) = (Vec::new(), Vec::new(), None);
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ").or(line.strip_prefix("///")) {
            comment.push(text.to_owned());
        } else if line.starts_with('#') {
            name = renamed.captures(line).map(|found| found[1].to_owned()).or(name);
        } else if let Some(parts) = field.captures(line) {
            let name = name.take().unwrap_or_else(|| parts[1].to_owned());
            found.push(Field { name, comment: std::mem::take(&mut comment).join(" "), kind: parts[2].to_owned() });
        }
    }
    found
}

/// What a user writes for a type of `config/value.rs`.
fn kind(rust: &str) -> &'static str {
    let inner = rust.strip_prefix("Option<").and_then(|rest| rest.strip_suffix('>')).unwrap_or(rust);
    match inner {
        "Span" => "duration",
        "Bytes" => "size",
        "Count" | "Scalar" => "number",
        "Switch" => "true or false",
        "Words" => "list",
        "Quota" => "rate",
        "Text" | "String" => "text",
        other if other.starts_with("Vec<") => "list",
        _ => "table",
    }
}

/// The comment, parted into what the key means and its default.
fn meaning(comment: &str) -> (String, String) {
    let default = Regex::new(r"(?:^|\s)Default:? (.+?)\.?(?:$|\.\s|;\s)").expect("an expression");
    let Some(found) = default.captures(comment) else { return (cell(comment), String::new()) };
    let place = found.get(0).expect("the whole of it");
    let rest = format!("{} {}", &comment[..place.start()], sentence(&comment[place.end()..]));
    (cell(&rest), cell(&found[1]))
}

/// With a capital letter, unless it begins with code.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The comment of a key: its own, or that of the field of the same name in the same file.
fn comment(key: &Field, file: &str, all: &BTreeMap<String, (String, Vec<Field>)>) -> String {
    if !key.comment.is_empty() {
        return key.comment.clone();
    }
    let beside = all.values().filter(|(other, _)| other == file).flat_map(|(_, fields)| fields);
    beside
        .filter(|field| field.name == key.name)
        .map(|field| field.comment.clone())
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

fn section(page: &mut String, bare: &mut Vec<String>, title: &str, raw: &str, variables: Option<&str>) {
    let all = structs();
    let (file, keys) = all.get(raw).unwrap_or_else(|| panic!("there is no struct {raw} any more"));
    let (head, line) = if variables.is_some() { ("| variable ", "---|") } else { ("", "") };
    let _ = write!(page, "\n## `{title}`\n\n| key | type | default | meaning {head}|\n|---|---|---|---|{line}\n");
    for key in keys {
        let text = comment(key, file, &all);
        let (text, default) = meaning(&text);
        if text.is_empty() {
            bare.push(format!("{title} {}", key.name));
        }
        let variable = variables.map(|prefix| format!(" `TASKGATE_{prefix}__{}` |", key.name.to_uppercase()));
        let _ = writeln!(
            page,
            "| `{}` | {} | {default} | {text} |{}",
            key.name,
            kind(&key.kind),
            variable.unwrap_or_default()
        );
    }
}

/// Variables with names that are not ours, and those of the command line.
fn variables() -> String {
    let source = fs::read_to_string(root().join("src/config/source.rs")).expect("it exists");
    let foreign = Regex::new(r#"\("([A-Z_]+)", "([a-z_.]+)"\)"#).expect("an expression");
    let mut text = String::from("\n## Other variables\n\n| variable | what it sets |\n|---|---|\n");
    for pair in foreign.captures_iter(&source) {
        let _ = writeln!(text, "| `{}` | `{}`, unless the file or `TASKGATE_…` says it |", &pair[1], &pair[2]);
    }
    text.push_str(
        "| `TASKGATE_CONFIG` | the file, as `--config` |\n| `TASKGATE_URL`, `TASKGATE_TOKEN`, `TASKGATE_CA` | where the client \
         commands (`submit`, `watch`, …) find the gateway, with which token, and which authority signed its certificate |\n\
         | `SAMPLE_SITE_URL` | where the sample crawl of `dev` and `worker` finds its notice board |\n",
    );
    text
}

const HEAD: &str = "# Configuration\n
`taskgate --config FILE` reads a TOML file. A key may be said in several places; the first of these wins: a flag, a variable
`TASKGATE_SECTION__KEY`, the file, `DATABASE_URL` and `CELERY_…`, the default. An unknown key, a value of the wrong kind and two values
that contradict each other stop the start with a message that names the places. [examples/taskgate.toml](../../examples/taskgate.toml)
shows every kind of entry.

| type | how it is written |
|---|---|
| duration | `\"180d\"`, `\"36h\"`, `\"10m\"`, `\"30s\"`, `\"250ms\"`, or a number of seconds |
| size | `\"8MiB\"`, `\"512KiB\"`, or a number of bytes |
| rate | `\"100/s\"`, `\"1000/m\"`, `\"5000/h\"` |
| list | `[\"a\", \"b\"]`; in a variable `a,b` or JSON |
| table | `{ … }`; in a variable JSON |

## At the top

| key | default | meaning |
|---|---|---|
| `auth` | `\"token\"`; in `dev` `\"none\"` | who may call: holders of tokens, or everybody who reaches the listener |
| `[routes]` | | `\"name.or.*\" = \"queue\"`, or `{ exchange = \"…\", routing_key = \"…\" }`: where a task goes that neither the request nor its catalog entry sends somewhere. The exact name wins, then the longest pattern. See [routing](../routing.md) |
| `[[schedules]]` | | seeds the timetable once; later edits over HTTP win. See [schedules](../schedules.md) |
";

#[test]
fn the_page_of_the_configuration_is_current() {
    let (mut page, mut bare) = (HEAD.to_owned(), Vec::new());
    for (title, raw, variables) in SECTIONS {
        section(&mut page, &mut bare, title, raw, *variables);
    }
    page.push_str(&variables());
    assert!(bare.is_empty(), "these keys have no comment (///) in src/config that says what they mean: {bare:#?}");
    hold_current("configuration.md", &page);
}

#[test]
fn every_top_key_has_its_section() {
    let text = fs::read_to_string(root().join("src/config/mod.rs")).expect("it exists");
    let list = Regex::new(r"(?s)const TOP_KEYS[^=]*= \[(.*?)\];").expect("an expression");
    let keys = list.captures(&text).expect("the list of keys")[1].to_owned();
    for key in Regex::new(r#""(\w+)""#).expect("an expression").captures_iter(&keys).map(|key| key[1].to_owned()) {
        let is_here = SECTIONS.iter().any(|(title, ..)| {
            let name = title.trim_matches(['[', ']']);
            name == key || name.starts_with(&format!("{key}."))
        });
        assert!(is_here || IN_TEXT.contains(&key.as_str()), "add {key} to SECTIONS");
    }
}
