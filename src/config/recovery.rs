//! `[recovery]`: which tasks may run again, how often, and how long an acknowledged task may stay silent.

use std::time::Duration;

use serde::Deserialize;

use super::value::{Count, Span, Switch};
use super::{Error, Said};

/// The smallest `max_deliveries`. Whether a task may run twice is decided by its recovery policy instead.
pub const LEAST_DELIVERIES: u32 = 2;
pub const ONE_DELIVERY: &str = "must be at least 2; recovery = \"report\" keeps a task from running twice";

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRecovery {
    enabled: Option<Switch>,
    settle_after: Option<Span>,
    max_deliveries: Option<Count>,
}

#[derive(Debug, Clone, Copy)]
pub struct Recovery {
    /// Whether lost messages may be put into the broker again automatically. Default true.
    pub enabled: bool,
    /// A task that a live worker has acknowledged but no longer reports on ends as `ignored` after this time. Default 30 s.
    pub settle_after: Duration,
    /// A task that was delivered this many times without ending is not delivered again; a catalog entry may set its own number.
    /// Default 5.
    pub max_deliveries: u32,
}

impl Default for Recovery {
    fn default() -> Self {
        Self { enabled: true, settle_after: Duration::from_secs(30), max_deliveries: 5 }
    }
}

impl Recovery {
    pub(super) fn read(raw: &RawRecovery, said: &Said) -> Result<Self, Error> {
        let usual = Self::default();
        let recovery = Self {
            enabled: raw.enabled.map_or(usual.enabled, |switch| switch.0),
            settle_after: raw.settle_after.map_or(usual.settle_after, |span| span.0),
            max_deliveries: raw
                .max_deliveries
                .map_or(usual.max_deliveries, |count| u32::try_from(count.0).unwrap_or(u32::MAX)),
        };
        if recovery.settle_after < Duration::from_secs(1) {
            return Err(Error::value(said.place("recovery.settle_after"), "must be at least 1 s"));
        }
        if recovery.max_deliveries < LEAST_DELIVERIES {
            return Err(Error::value(said.place("recovery.max_deliveries"), ONE_DELIVERY));
        }
        Ok(recovery)
    }
}
