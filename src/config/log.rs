//! `[log]`: what is logged, and in which format.

use serde::Deserialize;

use super::value::Text;
use super::{Error, Said};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLog {
    format: Option<Text>,
    filter: Option<Text>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone)]
pub struct Log {
    /// `text` or `json`. Default text.
    pub format: LogFormat,
    /// Log filter in the syntax of `RUST_LOG`. Default `info`.
    pub filter: String,
}

impl Log {
    pub(super) fn read(raw: RawLog, said: &Said) -> Result<Self, Error> {
        let format = match raw.format.as_ref().map_or("text", |text| text.0.as_str()) {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => {
                return Err(Error::value(said.place("log.format"), format!("{other:?} is neither text nor json")));
            }
        };
        Ok(Self { format, filter: raw.filter.map_or_else(|| "info".to_owned(), |text| text.0) })
    }
}
