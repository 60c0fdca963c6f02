//! Celery's `beat_schedule` as the documented one-liner prints it:
//!
//! ```text
//! {"timezone": "Asia/Seoul", "entries": {"name": {"task": …, "schedule": 60.0 or {"crontab": [minute, hour, day_of_month,
//!  month_of_year, day_of_week]}, "args": […], "kwargs": {…}, "options": {…}}}}
//! ```

use serde_json::value::RawValue;

use super::{Entry, Imported, crontab, finish};
use celery::task::Json;
use celery::task::json::{self, Fields};
use runtime::clock::Time;

/// Reads the dump; a plain `beat_schedule` without the outer object works too. `timezone` is used where the dump names none.
///
/// # Errors
/// When the text as a whole is not such a dump.
pub fn read(text: &str, timezone: Option<&str>, now: Time) -> Result<Vec<Imported>, String> {
    let whole = Fields::parse(text).map_err(|error| format!("is not a JSON object: {error}"))?;
    let said = whole.text("timezone");
    let inner = whole.get("entries").map(|entries| Fields::parse(entries.get())).transpose();
    let inner = inner.map_err(|error| format!("entries is not an object: {error}"))?;
    let entries = inner.as_ref().unwrap_or(&whole);
    let read = entries.iter().filter(|(name, _)| *name != "timezone").map(|(name, value)| entry(name, value)).collect();
    Ok(finish(read, said.as_deref().or(timezone), now))
}

fn entry(name: &str, value: &RawValue) -> Entry {
    let fields = Fields::parse(value.get()).unwrap_or_default();
    Entry {
        name: name.to_owned(),
        task: fields.text("task"),
        args: fields.get("args").map(RawValue::to_owned),
        kwargs: fields.get("kwargs").map(RawValue::to_owned),
        options: options(fields.get("options")),
        rhythm: rhythm(fields.get("schedule")),
        timezone: None,
        starts_at: None,
        ends_at: None,
        is_one_off: false,
        enabled: fields.boolean("enabled").unwrap_or(true),
    }
}

pub(super) fn options(value: Option<&RawValue>) -> Vec<(String, Json)> {
    let fields = value.and_then(|value| Fields::parse(value.get()).ok()).unwrap_or_default();
    fields.members(|_| true)
}

fn rhythm(value: Option<&RawValue>) -> Result<(&'static str, Json), String> {
    let value = value.ok_or("it has no schedule")?;
    if json::number(value).is_some() {
        return Ok(("every", value.to_owned()));
    }
    if let Some(text) = json::text(value) {
        return Err(format!("schedules such as {text} do not exist here"));
    }
    let fields = Fields::parse(value.get()).map_err(|_| "its schedule cannot be read".to_owned())?;
    let list = fields.get("crontab").and_then(json::elements).ok_or("its schedule cannot be read")?;
    let [minute, hour, day, month, weekday] = list[..] else { return Err("a crontab has five fields".to_owned()) };
    crontab([Some(minute), Some(hour), Some(day), Some(month), Some(weekday)])
}
