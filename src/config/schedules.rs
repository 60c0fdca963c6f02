//! The `[[schedules]]` entries as written. Beat reads them.

use serde::Deserialize;
use serde_json::{Map, Value};

/// One entry: `name`, and whatever beat knows.
#[derive(Debug, Clone, Deserialize)]
pub struct RawSchedule {
    pub name: String,
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}
