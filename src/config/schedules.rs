//! The `[[schedules]]` entries: documents as `POST /v1/schedules` takes them, checked when the configuration is read.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::Error;

/// One entry: `name`, and all fields of a schedule.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RawSchedule {
    pub name: String,
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// The key under which the TOML reader returns a date without quotes.
const TOML_DATETIME: &str = "$__toml_private_datetime";

impl RawSchedule {
    /// The entry as JSON text, without the name.
    pub fn document(&self) -> String {
        let mut fields = Value::Object(self.fields.clone());
        plain_times(&mut fields);
        fields.to_string()
    }
}

/// Turns dates without quotes into strings.
fn plain_times(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if let Some(text) = members.get(TOML_DATETIME).cloned() {
                *value = text;
                return;
            }
            members.values_mut().for_each(plain_times);
        }
        Value::Array(elements) => elements.iter_mut().for_each(plain_times),
        _ => {}
    }
}

/// Refuses two schedules with the same name.
pub(super) fn checked(schedules: Vec<RawSchedule>) -> Result<Vec<RawSchedule>, Error> {
    for (index, schedule) in schedules.iter().enumerate() {
        if let Some(first) = schedules[..index].iter().position(|other| other.name == schedule.name) {
            let place = |index: usize| format!("schedules[{index}] ({})", schedule.name);
            return Err(Error::pair(place(first), place(index), "both have this name"));
        }
    }
    Ok(schedules)
}
