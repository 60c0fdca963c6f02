//! The Rust worker.

use serde::Deserialize;

use super::value::{Count, Text, Words};
use super::{Error, Said};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawWorker {
    queues: Option<Words>,
    concurrency: Option<Count>,
    hostname: Option<Text>,
}

#[derive(Debug, Clone)]
pub struct Worker {
    /// Default: the broker's default queue and every queue that catalog and routes name.
    pub queues: Option<Vec<String>>,
    /// Tasks at once. Default: the number of processors.
    pub concurrency: usize,
    /// Default `taskgate@` and the machine's name.
    pub hostname: Option<String>,
}

impl Worker {
    pub(super) fn read(raw: RawWorker, said: &Said) -> Result<Self, Error> {
        let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let concurrency = raw.concurrency.map_or(processors, |count| usize::try_from(count.0).unwrap_or(usize::MAX));
        if !(1..=100_000).contains(&concurrency) {
            return Err(Error::value(said.place("worker.concurrency"), "must be 1 to 100000"));
        }
        Ok(Self { queues: raw.queues.map(|words| words.0), concurrency, hostname: raw.hostname.map(|text| text.0) })
    }
}
