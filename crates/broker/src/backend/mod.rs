//! Celery's result backend: [`Results`] is the port for any backend, [`Backend`] implements it for Redis, with records, groups and chords.

mod chord;
mod port;
mod watch;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use crate::Error;
use crate::{Link, LinkConfig};
use celery::task::{GroupId, Json, TaskId};
pub use chord::Claim;
pub use port::{Heard, Receipt, ResultBackend, Results};
pub use watch::Watch;
pub use write::{Record, Reply, Stored, Unless};

/// How the fleet's result backend is set up.
#[derive(Debug, Clone)]
pub struct BackendConfig {
    pub link: LinkConfig,
    /// Celery's `global_keyprefix`; an underscore is added unless it ends in one of `: _ - .`, as Celery does.
    pub key_prefix: String,
}

/// The result backend on Redis: cheap to clone, with one shared connection.
#[derive(Clone)]
pub struct Backend {
    link: Link,
    prefix: Arc<str>,
}

const TASK_KEY: &str = "celery-task-meta-";
const GROUP_KEY: &str = "celery-taskset-meta-";
/// How long keys of a chord live: Celery's default `result_expires`, in seconds.
const CHORD_TTL_SECS: u64 = 86_400;

impl Backend {
    /// # Errors
    /// When the URL is not understood. Makes no connection yet.
    pub fn new(config: BackendConfig) -> Result<Self, Error> {
        Ok(Self { link: Link::new(config.link)?, prefix: prefix(&config.key_prefix).into() })
    }

    pub fn link(&self) -> &Link {
        &self.link
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub async fn ping(&self) -> Result<(), Error> {
        self.link.call(&redis::cmd("PING")).await
    }

    /// The prefixes of results: the `global_keyprefix` of each fleet on this database.
    pub async fn prefixes(&self) -> Result<BTreeSet<String>, Error> {
        crate::redis::survey::prefixes(&self.link, TASK_KEY).await
    }

    /// The name of both key and channel of a task's record.
    pub fn task_key(&self, id: &str) -> String {
        format!("{}{TASK_KEY}{id}", self.prefix)
    }

    /// The common beginning of a group's keys.
    pub fn group_key(&self, id: &str) -> String {
        format!("{}{GROUP_KEY}{id}", self.prefix)
    }

    /// The newest records, `None` where there is none.
    pub async fn records(&self, ids: &[TaskId]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<String> = ids.iter().map(|id| self.task_key(id.as_str())).collect();
        self.link.call(redis::cmd("MGET").arg(keys)).await
    }

    /// Writes what must exist before a member of a chord is published: the size, and the structure of a nested header.
    pub async fn prepare_group(&self, id: &GroupId, size: Option<i32>, structure: Option<&Json>) -> Result<(), Error> {
        let base = self.group_key(id.as_str());
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        if let Some(size) = size {
            pipeline.cmd("SET").arg(format!("{base}.s")).arg(size).arg("EX").arg(CHORD_TTL_SECS).ignore();
        }
        if let Some(structure) = structure {
            pipeline.cmd("SET").arg(&base).arg(structure.get()).arg("EX").arg(CHORD_TTL_SECS).ignore();
        }
        self.link.pipeline(&pipeline).await
    }
}

/// A `global_keyprefix` in the form that Celery's backend uses.
pub fn prefix(given: &str) -> String {
    match given.chars().last() {
        None | Some(':' | '_' | '-' | '.') => given.to_owned(),
        Some(_) => format!("{given}_"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_without_a_separator_gets_an_underscore_as_celery_gives_it() {
        assert_eq!(prefix(""), "");
        assert_eq!(prefix("app:"), "app:");
        assert_eq!(prefix("rpfx"), "rpfx_");
    }
}
