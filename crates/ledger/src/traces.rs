//! The part of the ledger that tells its history to a trace collector: a mark in the feed, and whole histories.
//!
//! Invariant: the mark only moves from where its mover saw it, so two replicas never skip what neither has told.

use async_trait::async_trait;

use super::{Error, Event};

/// How many connections to the database this process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUse {
    pub name: &'static str,
    pub open: u32,
    pub idle: u32,
    pub most: u32,
}

#[async_trait]
pub trait Traces: Send + Sync {
    /// The feed's position up to which the collector was told; `None` before the first.
    async fn traced(&self) -> Result<Option<i64>, Error>;

    /// Moves the mark; false, and nothing is changed, when it is not at `from`.
    async fn note_traced(&self, from: Option<i64>, to: i64) -> Result<bool, Error>;

    /// All changes of these tasks except reports of progress, ascending by task and `seq`, `limit` in all.
    async fn histories(&self, task_nos: &[i64], limit: i64) -> Result<Vec<Event>, Error>;

    /// Of this process, now.
    fn pools(&self) -> Vec<PoolUse>;
}
