//! Converts the schedules of other beats into our documents: Celery's `beat_schedule`, RedBeat's keys, django-celery-beat's tables.
//!
//! Pure: texts in, documents out. Nothing is guessed, and each entry reports what cannot be imported: an unsupported type of
//! schedule (solar, rrule) is refused, an unsupported option is named.

pub mod celery;
pub mod django;
pub mod redbeat;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use serde_json::value::RawValue;

use super::definition::{Definition, check_name, is_of_a_name, object};
use ::celery::task::Json;
use ::celery::task::json::{self, Fields};
use ::celery::task::signature::Limits;
use runtime::clock::Time;

/// One entry of the other beat.
#[derive(Debug)]
pub struct Imported {
    /// Its name in the other beat.
    pub original: String,
    /// Its name here.
    pub name: String,
    /// The whole document, or why it cannot be imported.
    pub document: Result<Json, String>,
    /// What the import loses or changes.
    pub notes: Vec<String>,
}

/// An entry in the common form of all three sources.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub name: String,
    pub task: Option<String>,
    /// JSON texts.
    pub args: Option<Json>,
    pub kwargs: Option<Json>,
    pub options: Vec<(String, Json)>,
    /// `cron`, `every` or `at`, and its value.
    pub rhythm: Result<(&'static str, Json), String>,
    pub timezone: Option<String>,
    pub starts_at: Option<String>,
    pub ends_at: Option<String>,
    /// It runs only once, at its first time.
    pub is_one_off: bool,
    pub enabled: bool,
}

/// Options of `apply_async` that a signature has too.
const TAKEN: [&str; 8] =
    ["queue", "priority", "expires", "countdown", "ignore_result", "soft_time_limit", "time_limit", "headers"];

/// Gives every entry a unique name, and parses each document as a check. Entries that are over by `now` are not imported.
pub(super) fn finish(entries: Vec<Entry>, timezone: Option<&str>, now: Time) -> Vec<Imported> {
    let mut taken = HashSet::new();
    let mut imported: Vec<Imported> = entries
        .into_iter()
        .map(|entry| {
            let name = unique(&ours(&entry.name), &mut taken);
            let notes = notes(&entry, &name);
            let document = document(&entry, &name, timezone, now).and_then(|document| checked(document, now));
            Imported { original: entry.name, name, document, notes }
        })
        .collect();
    imported.sort_by(|left, right| left.name.cmp(&right.name));
    imported
}

fn document(entry: &Entry, name: &str, timezone: Option<&str>, now: Time) -> Result<Json, String> {
    let (rhythm, value) = entry.rhythm.as_ref().map_err(Clone::clone)?;
    if entry.is_one_off && *rhythm != "at" {
        return once(entry, name, timezone, now);
    }
    let task = entry.task.as_deref().ok_or("it names no task")?;
    let mut members: Vec<(&str, Json)> = vec![("name", quoted(name)), ("task", quoted(task))];
    members.extend(entry.args.as_ref().map(|args| ("args", args.clone())));
    members.extend(entry.kwargs.as_ref().map(|kwargs| ("kwargs", kwargs.clone())));
    let options = entry.options.iter().filter(|(name, value)| TAKEN.contains(&name.as_str()) && value.get() != "null");
    members.extend(options.map(|(name, value)| (name.as_str(), value.clone())));
    members.push((*rhythm, value.clone()));
    let zone = entry.timezone.as_deref().or(timezone).filter(|_| *rhythm == "cron");
    members.extend(zone.map(|zone| ("timezone", quoted(zone))));
    members.extend(entry.starts_at.as_deref().map(|at| ("starts_at", quoted(at))));
    members.extend(entry.ends_at.as_deref().map(|at| ("ends_at", quoted(at))));
    if !entry.enabled {
        members.push(("paused", json::written("true".to_owned())));
    }
    Ok(object(members.iter().map(|(name, value)| (*name, &**value))))
}

/// Converts an interval or a crontab that runs once into its only time.
fn once(entry: &Entry, name: &str, timezone: Option<&str>, now: Time) -> Result<Json, String> {
    let again = Entry { is_one_off: false, ..entry.clone() };
    let repeated = checked(document(&again, name, timezone, now)?, now)?;
    let first = definition(&repeated)?.timetable.next(now, now).ok_or("it never runs")?;
    let at = quoted(&first.rfc3339());
    let single = Entry { rhythm: Ok(("at", at)), starts_at: None, ends_at: None, ..again };
    document(&single, name, timezone, now)
}

fn checked(document: Json, now: Time) -> Result<Json, String> {
    let timetable = definition(&document)?.timetable;
    if timetable.is_over(now) {
        let what = if timetable.end_pointer() == "/at" { "its one time" } else { "its end" };
        return Err(format!("it is over: {what} has passed"));
    }
    Ok(document)
}

fn definition(document: &Json) -> Result<Definition, String> {
    let fields = Fields::parse(document.get()).map_err(|error| error.to_string())?;
    let rest = object(fields.iter().filter(|(name, _)| !matches!(*name, "name" | "paused")));
    Definition::parse(rest.get(), Limits::default()).map_err(|found| {
        let said =
            found.iter().map(|problem| format!("{} {}", problem.pointer.trim_start_matches('/'), problem.detail));
        said.collect::<Vec<_>>().join("; ")
    })
}

fn notes(entry: &Entry, name: &str) -> Vec<String> {
    let mut notes = Vec::new();
    if entry.is_one_off && !matches!(entry.rhythm, Ok(("at", _))) {
        notes.push("runs once, at its next time: it is a one-off task".to_owned());
    }
    if name != entry.name {
        notes.push(format!("was called {:?}", entry.name));
    }
    let lost = entry.options.iter().filter(|(name, value)| !TAKEN.contains(&name.as_str()) && value.get() != "null");
    let lost: Vec<&str> = lost.map(|(name, _)| name.as_str()).collect();
    if !lost.is_empty() {
        notes.push(format!("without the options {}", lost.join(", ")));
    }
    notes
}

/// Makes a valid name of any text: characters that are not allowed become hyphens.
fn ours(name: &str) -> String {
    let mut text = String::new();
    for char in name.chars().take(100) {
        match char {
            char if is_of_a_name(char) => text.push(char),
            _ if text.ends_with('-') || text.is_empty() => {}
            _ => text.push('-'),
        }
    }
    let text = text.trim_end_matches('-').to_owned();
    if check_name(&text).is_ok() { text } else { "schedule".to_owned() }
}

fn unique(name: &str, taken: &mut HashSet<String>) -> String {
    let stem: String = name.chars().take(90).collect();
    let numbered = (2..).map(|number| format!("{stem}-{number}"));
    let free = std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken.contains(name));
    let free = free.expect("numbers do not end");
    taken.insert(free.clone());
    free
}

pub(super) fn quoted(text: &str) -> Json {
    json::written(serde_json::Value::from(text).to_string())
}

/// Builds a crontab from Celery's five fields, each a number, a text, or a list of numbers as JSON or as Python prints it.
pub(super) fn crontab(fields: [Option<&RawValue>; 5]) -> Result<(&'static str, Json), String> {
    let mut words = Vec::with_capacity(5);
    for field in fields {
        let text = match field {
            None => "*".to_owned(),
            Some(value) => json::text(value).unwrap_or_else(|| value.get().to_owned()),
        };
        let bare: String = text.chars().filter(|char| !char.is_whitespace() && !"{}[]()'\"".contains(*char)).collect();
        words.push(bare.trim_matches(',').to_owned());
    }
    Ok(("cron", quoted(&words.join(" "))))
}
