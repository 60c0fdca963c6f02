//! How long something may be odd before it is an incident.

use std::time::Duration;

use serde::Deserialize;

use super::value::Span;
use super::{Error, Said};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawIncidents {
    silent_after: Option<Span>,
    unserved_after: Option<Span>,
    undrained_after: Option<Span>,
    stuck_after: Option<Span>,
}

#[derive(Debug, Clone)]
pub struct Incidents {
    /// A worker that sends heartbeats and takes nothing from a backlog for this long is silent. Default 30 s.
    pub silent_after: Duration,
    /// Messages may wait this long in a queue that nobody consumes: a worker may be restarting. Default 10 s.
    pub unserved_after: Duration,
    /// The outbox drains within a second or two when all is well. Default 10 s.
    pub undrained_after: Duration,
    /// A worker sends the next step of a canvas before it stores its own end, and the sweeper needs some looks to make a lost one
    /// again. Default 30 s.
    pub stuck_after: Duration,
}

impl Incidents {
    pub(super) fn read(raw: &RawIncidents, said: &Said) -> Result<Self, Error> {
        let span = |given: Option<Span>, default: u64| given.map_or(Duration::from_secs(default), |span| span.0);
        let incidents = Self {
            silent_after: span(raw.silent_after, 30),
            unserved_after: span(raw.unserved_after, 10),
            undrained_after: span(raw.undrained_after, 10),
            stuck_after: span(raw.stuck_after, 30),
        };
        let named = [
            ("incidents.silent_after", incidents.silent_after),
            ("incidents.unserved_after", incidents.unserved_after),
            ("incidents.undrained_after", incidents.undrained_after),
            ("incidents.stuck_after", incidents.stuck_after),
        ];
        match named.into_iter().find(|(_, span)| span.is_zero()) {
            Some((key, _)) => Err(Error::value(said.place(key), "must be longer than nothing")),
            None => Ok(incidents),
        }
    }
}
