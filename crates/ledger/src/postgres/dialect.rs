//! The PostgreSQL part of the code in `both`, which SQLite shares. Table names there have no schema: the connections' `search_path` is the
//! ledger's schema.

use celery::task::TaskId;
use runtime::clock::Time;
pub(super) use sqlx::Postgres as Database;
pub(super) use sqlx::postgres::PgRow as AdapterRow;

pub(super) use super::PostgresLedger as Adapter;
use super::learn::BEGIN_RELAXED;
pub(super) use super::pool::Tx;
pub(super) use super::pooled::Pool;
use super::{insert, notify, pool, save};
use crate::applied::Applied;
use crate::{Error, SecretHash, Submission};

/// Ends a select that locks its rows until the commit.
macro_rules! locking {
    () => {
        " for update"
    };
}
pub(super) use locking;

/// Like `locking`, but skips rows that another transaction has locked; for one of several tables.
macro_rules! skipping {
    () => {
        " for update skip locked"
    };
    ($table:literal) => {
        concat!(" for update of ", $table, " skip locked")
    };
}
pub(super) use skipping;

/// The condition that a column is one of a list of texts.
macro_rules! among {
    ($list:literal) => {
        concat!("= any(", $list, ")")
    };
}
pub(super) use among;

/// The condition that a column is one of a list of hashes.
macro_rules! among_hashes {
    ($list:literal) => {
        concat!("= any(", $list, ")")
    };
}
pub(super) use among_hashes;

/// A list of texts as the rows `k (key)`.
macro_rules! keys {
    ($list:literal) => {
        concat!("unnest(cast(", $list, " as text[])) as k(key)")
    };
}
pub(super) use keys;

/// The id of the task `t`, as it was given.
macro_rules! task_id {
    () => {
        "coalesce(t.given_id, cast(t.id as text))"
    };
}
pub(super) use task_id;

/// A list as a bound value.
pub(super) fn list<T: Clone>(values: &[T]) -> Vec<T> {
    values.to_vec()
}

/// Hashes as a bound value.
pub(super) fn hash_list(hashes: &[SecretHash]) -> Vec<Vec<u8>> {
    hashes.iter().map(|hash| hash.to_vec()).collect()
}

/// Each key uses one of 64 locks, held until the commit, so that submissions that may be refused are decided one after the other.
pub(super) async fn decide_alone(tx: &mut Tx, keys: &[String]) -> Result<(), Error> {
    let mut slots: Vec<i32> = keys.iter().map(|key| slot(key)).collect();
    slots.sort_unstable();
    slots.dedup();
    sqlx::query(ALONE).bind(slots).execute(&mut **tx).await?;
    Ok(())
}

fn slot(key: &str) -> i32 {
    key.bytes().fold(7, |sum: i32, byte| (sum * 31 + i32::from(byte)) % 64)
}

crate::statements::statements! {
    ALONE = "select pg_advisory_xact_lock(7310321, n.slot) from unnest($1::int[]) as n(slot)";
    /// One writer of logs at a time: a recorder that has lost its lease may still be writing.
    LOCK_LOGS = "select pg_advisory_xact_lock(7310319, 4)";
}

impl Adapter {
    pub(super) async fn begin(&self) -> Result<Tx, Error> {
        pool::begin(&self.pool).await
    }

    pub(super) fn reads(&self) -> &Pool {
        &self.pool
    }

    pub(super) fn writes(&self) -> &Pool {
        &self.pool
    }

    /// Begins a transaction for task logs: one writer at a time, and a crash may lose the newest lines.
    pub(super) async fn begin_logs(&self) -> Result<Tx, Error> {
        let mut tx = pool::begin_as(&self.pool, BEGIN_RELAXED).await?;
        sqlx::query(LOCK_LOGS).execute(&mut *tx).await?;
        Ok(tx)
    }

    /// Notifies other replicas that these tasks have new data.
    pub(super) async fn tell_grown(&self, tx: &mut Tx, ids: &[TaskId]) -> Result<(), Error> {
        let payload = notify::payload_of(&self.store.replica, ids).filter(|_| self.store.others.listen());
        match payload {
            Some(payload) => notify::notify(tx, &payload).await,
            None => Ok(()),
        }
    }

    /// Inserts as part of a transaction. `None` after a conflict: roll back, and look up taken ids and keys at the next attempt.
    pub(super) async fn insert_within(
        &self,
        tx: &mut Tx,
        batch: &[Submission],
        look_up: bool,
    ) -> Result<Option<insert::Answers>, Error> {
        insert::within(tx, &self.store, batch, look_up).await
    }

    /// `written` is the number of events that this transaction has written before.
    pub(super) async fn save(&self, tx: &mut Tx, applied: &mut Applied, written: i64) -> Result<(), Error> {
        save::save(tx, &self.store, applied, written).await
    }

    /// How many accepted tasks are neither published nor in the outbox.
    pub(super) async fn count_outside(&self, now: Time) -> Result<i64, Error> {
        self.store.outside.count(&self.pool, now).await
    }
}
