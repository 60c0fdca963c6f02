//! The `[[schedules]]` entries: documents as `POST /v1/schedules` takes them, checked when the configuration is read.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::Error;

/// One entry: `name`, and whatever a schedule may say.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RawSchedule {
    pub name: String,
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// What the TOML reader makes of a date without quotes.
const TOML_DATETIME: &str = "$__toml_private_datetime";

impl RawSchedule {
    /// As JSON text, without the name.
    pub fn document(&self) -> String {
        let mut fields = Value::Object(self.fields.clone());
        plain_times(&mut fields);
        fields.to_string()
    }
}

/// Dates without quotes become texts.
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

/// A name stands for one schedule.
pub(super) fn checked(schedules: Vec<RawSchedule>) -> Result<Vec<RawSchedule>, Error> {
    for (index, schedule) in schedules.iter().enumerate() {
        if let Some(first) = schedules[..index].iter().position(|other| other.name == schedule.name) {
            let place = |index: usize| format!("schedules[{index}] ({})", schedule.name);
            return Err(Error::pair(place(first), place(index), "both have this name"));
        }
    }
    Ok(schedules)
}
