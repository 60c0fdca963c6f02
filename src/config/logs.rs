//! `[logs]`: how much of the log output of tasks is kept, and for how long.

use std::time::Duration;

use serde::Deserialize;

use super::value::{Bytes, Span};
use super::{Error, Said};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLogs {
    keep: Option<Span>,
    max_bytes: Option<Bytes>,
}

#[derive(Debug, Clone)]
pub struct Logs {
    /// How long lines are kept. Default 7 days.
    pub keep: Duration,
    /// How many bytes of text are kept for each attempt of a task: 1KiB to 1GiB. A last line says that there was more. Default 1MiB.
    pub max_bytes: usize,
}

impl Logs {
    pub(super) fn read(raw: &RawLogs, said: &Said) -> Result<Self, Error> {
        let max_bytes = raw.max_bytes.map_or(1 << 20, |bytes| bytes.0);
        if !(1 << 10..=1 << 30).contains(&max_bytes) {
            return Err(Error::value(said.place("logs.max_bytes"), "must be 1KiB to 1GiB"));
        }
        let keep = raw.keep.map_or(Duration::from_hours(7 * 24), |span| span.0);
        if keep.is_zero() {
            return Err(Error::value(said.place("logs.keep"), "must be longer than zero"));
        }
        Ok(Self { keep, max_bytes })
    }
}
