//! What the files of `both`, which PostgreSQL shares, need of this adapter. There is one writer and no other replica: nothing is locked,
//! and nobody is told.

use celery::task::TaskId;
use sqlx::SqlitePool;
pub(super) use sqlx::sqlite::SqliteRow as AdapterRow;

pub(super) use super::SqliteLedger as Adapter;
pub(super) use super::pool::{Tx, list};
use crate::Error;

/// Ends a select whose rows nobody else may change before the commit.
macro_rules! locking {
    () => {
        ""
    };
}
pub(super) use locking;

/// As `locking`, without those that somebody else has; of one table of several.
macro_rules! skipping {
    () => {
        ""
    };
    ($table:literal) => {
        ""
    };
}
pub(super) use skipping;

/// A condition: one of a list of texts.
macro_rules! among {
    ($list:literal) => {
        concat!("in (select value from json_each(", $list, "))")
    };
}
pub(super) use among;

/// A list of texts as the rows `k (key)`.
macro_rules! keys {
    ($list:literal) => {
        concat!("(select value as key from json_each(", $list, ")) as k")
    };
}
pub(super) use keys;

/// The id of the task `t`, as it was written.
macro_rules! task_id {
    () => {
        "t.task_id"
    };
}
pub(super) use task_id;

/// Whoever writes decides alone.
pub(super) async fn decide_alone(_: &mut Tx, _: &[String]) -> Result<(), Error> {
    Ok(())
}

impl Adapter {
    pub(super) async fn begin(&self) -> Result<Tx, Error> {
        self.pools.begin().await
    }

    pub(super) fn reads(&self) -> &SqlitePool {
        &self.pools.read
    }

    pub(super) fn writes(&self) -> &SqlitePool {
        &self.pools.write
    }

    /// For logs of tasks.
    pub(super) async fn begin_logs(&self) -> Result<Tx, Error> {
        self.begin().await
    }

    /// That there is something to see of these tasks.
    pub(super) async fn tell_grown(&self, _: &mut Tx, _: &[TaskId]) -> Result<(), Error> {
        Ok(())
    }
}
