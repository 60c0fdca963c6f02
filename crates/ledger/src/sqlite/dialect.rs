//! The SQLite part of the code in `both`, which PostgreSQL shares. There is one writer and no other replica, so there are no locks and no
//! notifications.

use celery::task::TaskId;
use runtime::clock::Time;
pub(super) use sqlx::Sqlite as Database;
pub(super) use sqlx::SqlitePool as Pool;
pub(super) use sqlx::sqlite::SqliteRow as AdapterRow;

pub(super) use super::SqliteLedger as Adapter;
pub(super) use super::pool::{Tx, list};
use super::{insert, save};
use crate::applied::Applied;
use crate::{Error, SecretHash, Submission};

/// Ends a select that locks its rows until the commit.
macro_rules! locking {
    () => {
        ""
    };
}
pub(super) use locking;

/// Like `locking`, but skips rows that another transaction has locked; for one of several tables.
macro_rules! skipping {
    () => {
        ""
    };
    ($table:literal) => {
        ""
    };
}
pub(super) use skipping;

/// The condition that a column is one of a list of texts.
macro_rules! among {
    ($list:literal) => {
        concat!("in (select value from json_each(", $list, "))")
    };
}
pub(super) use among;

/// The condition that a column is one of a list of hashes.
macro_rules! among_hashes {
    ($list:literal) => {
        concat!("in (select unhex(value) from json_each(", $list, "))")
    };
}
pub(super) use among_hashes;

/// A list of texts as the rows `k (key)`.
macro_rules! keys {
    ($list:literal) => {
        concat!("(select value as key from json_each(", $list, ")) as k")
    };
}
pub(super) use keys;

/// The id of the task `t`, as it was given.
macro_rules! task_id {
    () => {
        "t.task_id"
    };
}
pub(super) use task_id;

/// Hashes as a bound value.
pub(super) fn hash_list(hashes: &[SecretHash]) -> String {
    let digits = |hash: &SecretHash| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    list(&hashes.iter().map(digits).collect::<Vec<_>>())
}

/// Does nothing: the one writer decides alone.
pub(super) async fn decide_alone(_: &mut Tx, _: &[String]) -> Result<(), Error> {
    Ok(())
}

impl Adapter {
    pub(super) async fn begin(&self) -> Result<Tx, Error> {
        self.pools.begin().await
    }

    pub(super) fn reads(&self) -> &Pool {
        &self.pools.read
    }

    pub(super) fn writes(&self) -> &Pool {
        &self.pools.write
    }

    /// Begins a transaction for task logs.
    pub(super) async fn begin_logs(&self) -> Result<Tx, Error> {
        self.begin().await
    }

    /// Does nothing: there is no other replica to notify.
    pub(super) async fn tell_grown(&self, _: &mut Tx, _: &[TaskId]) -> Result<(), Error> {
        Ok(())
    }

    /// Inserts as part of a transaction. Always succeeds at the first attempt, because there is one writer.
    pub(super) async fn insert_within(
        &self,
        tx: &mut Tx,
        batch: &[Submission],
        _look_up: bool,
    ) -> Result<Option<insert::Answers>, Error> {
        insert::within(tx, batch).await.map(Some)
    }

    pub(super) async fn save(&self, tx: &mut Tx, applied: &mut Applied, _written: i64) -> Result<(), Error> {
        save::save(tx, applied).await
    }

    /// Always zero: every accepted task that waits is in the outbox.
    pub(super) async fn count_outside(&self, _: Time) -> Result<i64, Error> {
        Ok(0)
    }
}
