//! The export of traces from the ledger: a mark in the feed, and whole histories.
//!
//! Invariant: the mark moves only if it is where its mover saw it, so two replicas never skip events that neither has exported.

use async_trait::async_trait;

use super::{Error, Event};

/// The connections of this process to the database.
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
