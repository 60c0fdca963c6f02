//! The HTTP edge: where it listens and how patient it is.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use super::value::{Count, Span, Switch, Text, Words};
use super::{Error, Said};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawHttp {
    listen: Option<Text>,
    hosts: Option<Words>,
    origins: Option<Words>,
    request_timeout: Option<Span>,
    header_timeout: Option<Span>,
    sse_heartbeat: Option<Span>,
    idle_timeout: Option<Span>,
    max_streams: Option<Count>,
    access_log: Option<Switch>,
}

#[derive(Debug, Clone)]
pub struct Http {
    /// Default 127.0.0.1:8000. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Host names that unsafe requests may be addressed to when no token is required, besides IP addresses, `localhost`,
    /// and the name of the listener. Default none; `*` allows all.
    pub hosts: Vec<String>,
    /// Origins of other sites whose pages may call the API. Default none.
    pub origins: Vec<String>,
    /// From the first byte of a request to the head of its answer, waiting (`Prefer: wait`) not counted. Default 30 s.
    pub request_timeout: Duration,
    /// For the head of a request. Default 10 s.
    pub header_timeout: Duration,
    /// Between two comments on a quiet stream. Default 15 s.
    pub sse_heartbeat: Duration,
    /// What stands in front of the gateway cuts connections that are silent for this long. Default 60 s.
    pub idle_timeout: Duration,
    /// Open SSE streams of this process; one more is answered 503. Default 20,000.
    pub max_streams: usize,
    /// One log line for each request. Default true.
    pub access_log: bool,
}

impl Http {
    pub(super) fn read(raw: RawHttp, said: &Said) -> Result<Self, Error> {
        let listen = raw.listen.map_or_else(|| "127.0.0.1:8000".to_owned(), |text| text.0);
        let http = Self {
            listen: listen.parse().map_err(|_| {
                Error::value(
                    said.place("http.listen"),
                    format!("{listen:?} is not an address with a port, as 0.0.0.0:8000"),
                )
            })?,
            hosts: raw.hosts.unwrap_or_default().0,
            origins: raw.origins.unwrap_or_default().0,
            request_timeout: raw.request_timeout.map_or(Duration::from_secs(30), |span| span.0),
            header_timeout: raw.header_timeout.map_or(Duration::from_secs(10), |span| span.0),
            sse_heartbeat: raw.sse_heartbeat.map_or(Duration::from_secs(15), |span| span.0),
            idle_timeout: raw.idle_timeout.map_or(Duration::from_secs(60), |span| span.0),
            max_streams: raw.max_streams.map_or(20_000, |count| usize::try_from(count.0).unwrap_or(usize::MAX)),
            access_log: raw.access_log.is_none_or(|switch| switch.0),
        };
        http.checked(said)
    }

    fn checked(self, said: &Said) -> Result<Self, Error> {
        for (key, span) in [
            ("http.sse_heartbeat", self.sse_heartbeat),
            ("http.request_timeout", self.request_timeout),
            ("http.header_timeout", self.header_timeout),
        ] {
            if span.is_zero() {
                return Err(Error::value(said.place(key), "must be longer than zero"));
            }
        }
        if self.sse_heartbeat >= self.idle_timeout {
            return Err(Error::pair(
                said.place("http.sse_heartbeat"),
                said.place("http.idle_timeout"),
                "every quiet stream would be cut",
            ));
        }
        Ok(self)
    }
}
