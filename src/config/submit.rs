//! `[submit]` and `[limits]`: which tasks may be submitted besides the catalog's, and how large a request may be.

use std::time::Duration;

use serde::Deserialize;

use super::value::{Bytes, Count, Span, Words};
use super::{Error, Quota, Said};
use celery::task::signature;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSubmit {
    allow: Option<Words>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLimits {
    body: Option<Bytes>,
    drain: Option<Bytes>,
    depth: Option<Count>,
    width: Option<Count>,
    tasks: Option<Count>,
    json_types: Option<Words>,
    backlog: Option<Count>,
    wait: Option<Span>,
    requests: Option<Quota>,
}

#[derive(Debug, Clone, Default)]
pub struct Submit {
    /// Names, or patterns with `*`, that `POST /v1/tasks` may use besides the catalog's. Default none; in `dev` all.
    pub allow: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest request body. Default 8 MiB; more is answered 413.
    pub body: usize,
    /// How much of an oversized body is read and thrown away, so that its sender gets the answer. Default 64 MiB.
    pub drain: usize,
    /// Deepest nesting of JSON. Default 64.
    pub depth: usize,
    /// Most members of one array or object. Default 1,000,000.
    pub width: usize,
    /// Most tasks in one canvas. Default 100,000.
    pub tasks: usize,
    /// Extended JSON types that workers have registered (`kombu.utils.json.register_type`) besides kombu's own. Default none.
    pub json_types: &'static [&'static str],
    /// How many accepted tasks may wait for the broker; beyond that, submissions are answered 503. Default 1,000,000.
    pub backlog: u64,
    /// Longest `Prefer: wait`. Default 60 s.
    pub wait: Duration,
    /// Rate limit over all replicas for each token that has none of its own, such as `1000/m`. Default no limit.
    pub requests: Option<Quota>,
}

impl Limits {
    /// The limits of one signature.
    pub fn of_signatures(&self) -> signature::Limits {
        signature::Limits { depth: self.depth, tasks: self.tasks, json_types: self.json_types }
    }
}

impl Submit {
    pub(super) fn read(raw: RawSubmit) -> Self {
        Self { allow: raw.allow.unwrap_or_default().0 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::read(&RawLimits::default(), &Said::default()).expect("the defaults fit each other")
    }
}

impl Limits {
    pub(super) fn read(raw: &RawLimits, said: &Said) -> Result<Self, Error> {
        let count = |given: Option<Count>, default: usize| {
            given.map_or(default, |count| usize::try_from(count.0).unwrap_or(usize::MAX))
        };
        let limits = Self {
            body: raw.body.map_or(8 << 20, |bytes| bytes.0),
            drain: raw.drain.map_or(64 << 20, |bytes| bytes.0),
            depth: count(raw.depth, 64),
            width: count(raw.width, 1_000_000),
            tasks: count(raw.tasks, 100_000),
            json_types: lasting(raw.json_types.as_ref()),
            backlog: raw.backlog.map_or(1_000_000, |count| count.0),
            wait: raw.wait.map_or(Duration::from_mins(1), |span| span.0),
            requests: raw.requests,
        };
        if !(1..=120).contains(&limits.depth) {
            return Err(Error::value(said.place("limits.depth"), "must be 1 to 120"));
        }
        if limits.width == 0 {
            return Err(Error::value(said.place("limits.width"), "must be at least 1"));
        }
        if limits.drain < limits.body {
            let harm = "a body that is just too large could not be answered";
            return Err(Error::pair(said.place("limits.drain"), said.place("limits.body"), harm));
        }
        Ok(limits)
    }
}

/// Leaks the list: the configuration is read once and lives as long as the process.
fn lasting(words: Option<&Words>) -> &'static [&'static str] {
    let Some(words) = words.filter(|words| !words.0.is_empty()) else { return &[] };
    let lasting = words.0.iter().map(|word| &*Box::leak(word.clone().into_boxed_str()));
    Box::leak(lasting.collect::<Vec<&'static str>>().into_boxed_slice())
}
