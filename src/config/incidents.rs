//! `[incidents]`: how long a condition may last before it is reported as an incident.

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
    no_progress_after: Option<Span>,
}

#[derive(Debug, Clone)]
pub struct Incidents {
    /// A worker that sends heartbeats but takes nothing from a backlog for this long is reported as silent. Default 30 s.
    pub silent_after: Duration,
    /// How long messages may wait in a queue that no worker consumes: a worker may be restarting. Default 10 s.
    pub unserved_after: Duration,
    /// How long an accepted task may wait for the broker; normally a second or two. Default 10 s.
    pub undrained_after: Duration,
    /// How long the next step of a canvas may be missing. A worker sends it before it stores its own result, and the sweeper needs a
    /// few passes to send a lost one again. Default 30 s.
    pub stuck_after: Duration,
    /// A task that runs for this long without a progress report is an incident. Default 15 min.
    pub no_progress_after: Duration,
}

impl Incidents {
    pub(super) fn read(raw: &RawIncidents, said: &Said) -> Result<Self, Error> {
        let span = |given: Option<Span>, default: u64| given.map_or(Duration::from_secs(default), |span| span.0);
        let incidents = Self {
            silent_after: span(raw.silent_after, 30),
            unserved_after: span(raw.unserved_after, 10),
            undrained_after: span(raw.undrained_after, 10),
            stuck_after: span(raw.stuck_after, 30),
            no_progress_after: span(raw.no_progress_after, 900),
        };
        let named = [
            ("incidents.silent_after", incidents.silent_after),
            ("incidents.unserved_after", incidents.unserved_after),
            ("incidents.undrained_after", incidents.undrained_after),
            ("incidents.stuck_after", incidents.stuck_after),
            ("incidents.no_progress_after", incidents.no_progress_after),
        ];
        match named.into_iter().find(|(_, span)| span.is_zero()) {
            Some((key, _)) => Err(Error::value(said.place(key), "must be longer than zero")),
            None => Ok(incidents),
        }
    }
}
