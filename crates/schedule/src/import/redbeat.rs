//! RedBeat's entries: the field `definition` of each hash `<prefix><name>`.

use serde_json::value::RawValue;

use super::celery::options;
use super::{Entry, Imported, crontab, finish};
use celery::task::Json;
use celery::task::json::Fields;
use runtime::clock::Time;

/// Reads definitions. RedBeat stores no time zone: `timezone` is the app's.
pub fn read(definitions: &[String], timezone: Option<&str>, now: Time) -> Vec<Imported> {
    finish(definitions.iter().map(|text| entry(text)).collect(), timezone, now)
}

fn entry(text: &str) -> Entry {
    let fields = Fields::parse(text).unwrap_or_default();
    Entry {
        name: fields.text("name").unwrap_or_else(|| "unnamed".to_owned()),
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

fn rhythm(value: Option<&RawValue>) -> Result<(&'static str, Json), String> {
    let value = value.ok_or("it has no schedule")?;
    let fields = Fields::parse(value.get()).map_err(|_| "its schedule cannot be read".to_owned())?;
    match fields.text("__type__").as_deref() {
        Some("interval") => Ok(("every", fields.get("every").ok_or("its interval has no length")?.to_owned())),
        Some("crontab") => {
            crontab(["minute", "hour", "day_of_month", "month_of_year", "day_of_week"].map(|field| fields.get(field)))
        }
        Some(other) => Err(format!("schedules of the type {other} do not exist here")),
        None => Err("its schedule has no type".to_owned()),
    }
}
