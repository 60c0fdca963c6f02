//! Findings: problems that a reconciler found but cannot repair. A reconciler runs in one replica, but every replica reports the findings.

use async_trait::async_trait;

use super::Error;
use runtime::clock::Time;

/// A problem that a person should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// One of the incident kinds.
    pub kind: String,
    /// A task, a worker, a queue or a key.
    pub subject: String,
    pub since: Time,
    /// What is wrong, what is unknown, and the request with which a person decides.
    pub detail: String,
}

#[async_trait]
pub trait Findings: Send + Sync {
    /// Replaces the findings of `source`: earlier ones that are not found any more are removed, continuing ones keep their `since`.
    async fn note_findings(&self, source: &str, findings: &[Finding]) -> Result<(), Error>;

    /// The findings of all sources, by kind and subject, at most `limit`.
    async fn findings(&self, limit: i64) -> Result<Vec<Finding>, Error>;
}
