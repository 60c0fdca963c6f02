//! `[ledger]`: how long the ledger (the history database) keeps tasks, messages and idempotency keys.

use std::time::Duration;

use serde::Deserialize;

use super::value::Span;
use super::{Error, Said};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLedger {
    keep: Option<Span>,
    keep_payload: Option<Span>,
    keep_idempotency: Option<Span>,
}

const DAY: Duration = Duration::from_hours(24);

#[derive(Debug, Clone)]
pub struct Ledger {
    /// How long finished tasks are kept; afterwards only a tombstone remains. Default 180 days.
    pub keep: Duration,
    /// How long messages of finished tasks are kept; they are needed to run a task again. Default 30 days.
    pub keep_payload: Duration,
    /// How long answers to requests with `Idempotency-Key` are kept. Default 24 hours.
    pub keep_idempotency: Duration,
}

impl Ledger {
    pub(super) fn read(raw: &RawLedger, said: &Said) -> Result<Self, Error> {
        let ledger = Self {
            keep: raw.keep.map_or(180 * DAY, |span| span.0),
            keep_payload: raw.keep_payload.map_or(30 * DAY, |span| span.0),
            keep_idempotency: raw.keep_idempotency.map_or(DAY, |span| span.0),
        };
        if ledger.keep_payload > ledger.keep {
            return Err(Error::pair(
                said.place("ledger.keep_payload"),
                said.place("ledger.keep"),
                "a message cannot outlive its task",
            ));
        }
        Ok(ledger)
    }
}
