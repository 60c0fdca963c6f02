//! `[sweeper]`: how often the sweeper compares the ledger with Redis and the workers, and when a worker counts as dead.

use std::time::Duration;

use serde::Deserialize;

use super::value::Span;
use super::{Error, Said};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSweeper {
    period: Option<Span>,
    grace: Option<Span>,
    worker_lost_after: Option<Span>,
}

#[derive(Debug, Clone)]
pub struct Sweeper {
    /// Pause between two comparisons of the ledger with Redis and the workers. Default 10 s.
    pub period: Duration,
    /// Pause between the two checks that must both find a task missing before it counts as lost. Default 5 s.
    pub grace: Duration,
    /// A worker that has sent no heartbeat for this long and does not answer a ping counts as dead. Default 60 s.
    pub worker_lost_after: Duration,
}

impl Default for Sweeper {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(10),
            grace: Duration::from_secs(5),
            worker_lost_after: Duration::from_secs(60),
        }
    }
}

impl Sweeper {
    pub(super) fn read(raw: &RawSweeper, said: &Said) -> Result<Self, Error> {
        let usual = Self::default();
        let sweeper = Self {
            period: raw.period.map_or(usual.period, |span| span.0),
            grace: raw.grace.map_or(usual.grace, |span| span.0),
            worker_lost_after: raw.worker_lost_after.map_or(usual.worker_lost_after, |span| span.0),
        };
        let named = [
            ("sweeper.period", sweeper.period),
            ("sweeper.grace", sweeper.grace),
            ("sweeper.worker_lost_after", sweeper.worker_lost_after),
        ];
        match named.into_iter().find(|(_, span)| *span < Duration::from_millis(100)) {
            Some((key, _)) => Err(Error::value(said.place(key), "must be at least 100 ms")),
            None => Ok(sweeper),
        }
    }
}
