//! Reads django-celery-beat's tables: one JSON object for each periodic task, joined with its schedule.

use serde_json::value::RawValue;

use super::{Entry, Imported, crontab, finish, quoted};
use celery::task::Json;
use celery::task::json::{self, Fields};
use runtime::clock::Time;

/// Reads rows. `timezone` is used for a crontab without one.
pub fn read(rows: &[String], timezone: Option<&str>, now: Time) -> Vec<Imported> {
    // django-celery-beat's own entry, which clears the result tables.
    let own = |fields: &Fields<'_>| fields.text("task").as_deref() == Some("celery.backend_cleanup");
    let parsed = rows.iter().filter_map(|text| Fields::parse(text).ok()).filter(|fields| !own(fields));
    finish(parsed.map(|fields| entry(&fields)).collect(), timezone, now)
}

fn entry(fields: &Fields<'_>) -> Entry {
    let mut options: Vec<(String, Json)> = Vec::new();
    for name in ["queue", "exchange", "routing_key", "priority"] {
        let value = fields.get(name).filter(|value| value.get() != "\"\"");
        options.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }
    let seconds = fields.get("expire_seconds").map(RawValue::to_owned);
    options.extend(seconds.map(|seconds| ("expires".to_owned(), seconds)));
    let headers = inner(fields, "headers").filter(|headers| headers.get() != "{}");
    options.extend(headers.map(|headers| ("headers".to_owned(), headers)));
    Entry {
        name: fields.text("name").unwrap_or_else(|| "unnamed".to_owned()),
        task: fields.text("task"),
        args: inner(fields, "args"),
        kwargs: inner(fields, "kwargs"),
        options,
        rhythm: if has_run(fields) { Err("it is a one-off task and has run".to_owned()) } else { rhythm(fields) },
        timezone: fields.text("timezone"),
        starts_at: fields.text("start_time").map(|text| instant(&text)),
        // This is not the message's expiry: after this time the beat no longer sends the task.
        ends_at: fields.text("expires").map(|text| instant(&text)),
        is_one_off: is_set(fields, "one_off"),
        enabled: fields.get("enabled").is_none_or(|value| !matches!(value.get(), "false" | "0")),
    }
}

/// Reads a boolean column; SQLite stores booleans as numbers.
fn is_set(fields: &Fields<'_>, name: &str) -> bool {
    fields.get(name).is_some_and(|value| matches!(value.get(), "true" | "1"))
}

fn has_run(fields: &Fields<'_>) -> bool {
    is_set(fields, "one_off") && fields.number("total_run_count").is_some_and(|count| count > 0.0)
}

/// A column that holds JSON as text.
fn inner(fields: &Fields<'_>, name: &str) -> Option<Json> {
    let text = fields.text(name).filter(|text| !text.trim().is_empty())?;
    Some(json::verbatim(text.clone()).unwrap_or_else(|_| quoted(&text)))
}

fn rhythm(fields: &Fields<'_>) -> Result<(&'static str, Json), String> {
    if fields.get("minute").is_some() {
        return crontab(
            ["minute", "hour", "day_of_month", "month_of_year", "day_of_week"].map(|field| fields.get(field)),
        );
    }
    if let Some(every) = fields.number("every") {
        let unit = match fields.text("period").as_deref() {
            Some("days") => 86_400.0,
            Some("hours") => 3_600.0,
            Some("minutes") => 60.0,
            Some("seconds") => 1.0,
            Some("microseconds") => 1e-6,
            other => return Err(format!("intervals in {other:?} do not exist here")),
        };
        return Ok(("every", json::written((every * unit).to_string())));
    }
    if let Some(at) = fields.text("clocked_time") {
        return Ok(("at", quoted(&instant(&at))));
    }
    Err("it has neither a crontab nor an interval nor a time (solar schedules do not exist here)".to_owned())
}

/// Django's times are UTC; SQLite keeps them as `2026-11-20 18:30:00`.
fn instant(text: &str) -> String {
    let text = text.trim().replacen(' ', "T", 1);
    let has_offset = text.ends_with('Z') || text.get(10..).is_some_and(|time| time.contains(['+', '-']));
    if has_offset { text } else { format!("{text}Z") }
}
