//! `[worker]`: the Rust worker.

use serde::Deserialize;

use super::value::{Count, Text, Words};
use super::{Error, Said};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawWorker {
    queues: Option<Words>,
    concurrency: Option<Count>,
    hostname: Option<Text>,
    pool: Option<Text>,
    max_tasks_per_child: Option<Count>,
    max_memory_per_child: Option<Count>,
}

/// Where tasks run that do not choose a pool themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// In the worker's own process.
    Async,
    /// Each in one of the worker's child processes.
    Prefork,
}

#[derive(Debug, Clone)]
pub struct Worker {
    /// Queues to consume. Default the broker's default queue and every queue that catalog and routes name.
    pub queues: Option<Vec<String>>,
    /// How many tasks run at once. Default: the number of processors.
    pub concurrency: usize,
    /// Its name in the fleet, as `name@host`. Default `taskgate@` and the machine's name.
    pub hostname: Option<String>,
    /// Where tasks run that do not choose a pool themselves. Default `async`.
    pub pool: Pool,
    /// Tasks after which a child process is replaced. Default never.
    pub max_tasks_per_child: Option<u32>,
    /// Memory in KiB after which a child process is replaced. Default never.
    pub max_memory_per_child: Option<u64>,
}

impl Worker {
    pub(super) fn read(raw: RawWorker, said: &Said) -> Result<Self, Error> {
        let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let concurrency = raw.concurrency.map_or(processors, |count| usize::try_from(count.0).unwrap_or(usize::MAX));
        if !(1..=100_000).contains(&concurrency) {
            return Err(Error::value(said.place("worker.concurrency"), "must be 1 to 100000"));
        }
        let pool = match raw.pool.as_ref().map(|text| text.0.as_str()) {
            None | Some("async") => Pool::Async,
            Some("prefork") => Pool::Prefork,
            Some(other) => {
                let harm = format!("{other:?} is neither async nor prefork");
                return Err(Error::value(said.place("worker.pool"), harm));
            }
        };
        let at_least_one = |count: Option<Count>, key: &str| match count {
            Some(Count(0)) => Err(Error::value(said.place(key), "must be at least 1")),
            other => Ok(other.map(|count| count.0)),
        };
        let tasks = at_least_one(raw.max_tasks_per_child, "worker.max_tasks_per_child")?;
        Ok(Self {
            queues: raw.queues.map(|words| words.0),
            concurrency,
            hostname: raw.hostname.map(|text| text.0),
            pool,
            max_tasks_per_child: tasks.map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
            max_memory_per_child: at_least_one(raw.max_memory_per_child, "worker.max_memory_per_child")?,
        })
    }
}
