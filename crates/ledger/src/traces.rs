//! The export of traces from the ledger: a mark in the feed, and whole histories.
//!
//! Invariant: a replica moves the mark only if it is still where the replica read it, so no events are skipped that no replica exported.

use async_trait::async_trait;

use super::{Error, Event};

/// The use of one of this process's connection pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUse {
    pub name: &'static str,
    pub open: u32,
    pub idle: u32,
    pub most: u32,
}

#[async_trait]
pub trait Traces: Send + Sync {
    /// The feed position up to which events were exported; `None` before the first export.
    async fn traced(&self) -> Result<Option<i64>, Error>;

    /// Moves the mark; false, without any change, when it is not at `from`.
    async fn note_traced(&self, from: Option<i64>, to: i64) -> Result<bool, Error>;

    /// All changes of these tasks except progress reports, ascending by task and `seq`, `limit` in all.
    async fn histories(&self, task_nos: &[i64], limit: i64) -> Result<Vec<Event>, Error>;

    /// The pools of this process.
    fn pools(&self) -> Vec<PoolUse>;
}
