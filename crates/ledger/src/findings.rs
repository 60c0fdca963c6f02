//! What a reconciler found out and cannot repair by itself: it runs in one replica, and every replica tells it.

use async_trait::async_trait;

use super::Error;
use runtime::clock::Time;

/// Something that somebody should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// One of the incident kinds.
    pub kind: String,
    /// A task, a worker, a queue or a key.
    pub subject: String,
    pub since: Time,
    /// What is wrong, what is not known, and which command decides it.
    pub detail: String,
}

#[async_trait]
pub trait Findings: Send + Sync {
    /// All that `source` finds now: what it found before and does not find any more is forgotten, what it goes on finding keeps its
    /// `since`.
    async fn note_findings(&self, source: &str, findings: &[Finding]) -> Result<(), Error>;

    /// Of all sources, by kind and subject, at most `limit`.
    async fn findings(&self, limit: i64) -> Result<Vec<Finding>, Error>;
}
