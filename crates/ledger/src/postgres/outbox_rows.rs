//! The rows of the outbox in PostgreSQL, and the transaction of a pass. The outbox has tasks that wait to be published, and tasks that the
//! direct path did not publish.
//!
//! Lock order everywhere: outbox rows first, then tasks. A pass holds its rows while the carrier publishes, so a withdrawal waits and then
//! finds the task published, or comes first and the pass does not see the row.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::Row;

use super::claims::Sorted;
use super::columns::{between, fact_columns, standing, state_columns};
use super::dialect::Adapter;
use super::pool::Tx;
use super::{Store, gather, numbers, passes, publication, rows};
use crate::statements::statements;
use crate::{Carrier, Drained, Error, Event, REFUSED_FOR, Task, headers};
use celery::task::TaskId;
use runtime::clock::Time;

statements! {
    GONE = "delete from taskgate.outbox where task_no = any($1)";
    /// Allows only one pass at a time, over all replicas.
    ALONE = "select pg_try_advisory_xact_lock(7310319, 1)";
    /// For a pass that only looked: after a crash it looks again.
    RELAX = "select set_config('synchronous_commit', 'off', true)";
    /// `$1` now, `$2` accepted before, `$3` limit. `$2` does not apply to tasks that were held at first, because no replica publishes them directly.
    DUE = "select task_no, accepted_at, gate, gate_max, wake_at from taskgate.outbox \
         where wake_at <= $1 and (accepted_at <= $2 or wake_at > accepted_at) order by wake_at, task_no limit $3 \
         for update skip locked";
    /// As [`DUE`], for these rows.
    THESE = "select task_no, accepted_at, gate, gate_max, wake_at from taskgate.outbox \
         where task_no = any($1) order by task_no for update skip locked";
    TASKS = concat!(
        "select ",
        fact_columns!(),
        ", ",
        state_columns!(),
        " from ",
        standing!(light, "$2", "$3"),
        " where t.task_no = any($1) and ",
        between!("$2", "$3"),
        " order by t.task_no"
    );
    MESSAGES = concat!(
        "select t.task_no, t.headers, t.body from taskgate.task t where t.task_no = any($1) and ",
        between!("$2", "$3")
    );
    /// Rows of a paused queue sleep until it is resumed, or until they expire.
    PARK = "update taskgate.outbox o set parked = n.queue, gate = null, gate_max = null, \
         line = null, rank = null, share = null, wake_at = n.wake_at \
         from unnest($1::bigint[], $2::text[], $3::bigint[]) as n(task_no, queue, wake_at) where o.task_no = n.task_no";
    /// Rows that must not be published now sleep until these times. At a gate that is open they would be claimed in every pass.
    SLEEP = "update taskgate.outbox o set gate = null, gate_max = null, line = null, rank = null, share = null, \
         wake_at = n.wake_at from unnest($1::bigint[], $2::bigint[]) as n(task_no, wake_at) \
         where o.task_no = n.task_no";
    /// Locks the outbox rows of these tasks.
    LOCK = "select task_no from taskgate.outbox where task_no = any($1) order by task_no for update";
    /// `$2` now. No replica publishes these tasks directly, see [`DUE`].
    REMEMBER = "insert into taskgate.outbox (task_no, wake_at, accepted_at) select n.task_no, $2 + 1, $2 from unnest($1::bigint[]) as n(task_no)";
    /// `$2` and `$3` bound the numbers.
    WITH_MESSAGES = concat!(
        "select t.task_no from taskgate.task t where t.task_no = any($1) and ",
        between!("$2", "$3"),
        " and t.headers is not null and t.body is not null"
    );
}

pub(super) async fn drain(
    adapter: &Adapter,
    now: Time,
    settle: Duration,
    limit: i64,
    carrier: &dyn Carrier,
) -> Result<Drained, Error> {
    gather_left_behind(&adapter.store, now, settle).await?;
    let mut tx = adapter.begin().await?;
    if !sqlx::query(ALONE).fetch_one(&mut *tx).await?.try_get::<bool, _>(0)? {
        tx.rollback().await?;
        return Ok(Drained::default());
    }
    passes::run(adapter, tx, now, settle, limit, carrier).await
}

/// What a pass notes about gates may be lost in a crash of the server: the next pass looks again.
pub(super) async fn to_write_little(_: &Adapter, mut tx: Tx) -> Result<Tx, Error> {
    sqlx::query(RELAX).execute(&mut *tx).await?;
    Ok(tx)
}

/// The transaction goes on, so that its rows stay locked.
#[expect(clippy::unused_async, reason = "SQLite commits here")]
pub(super) async fn before_carrying(tx: Tx) -> Result<Option<Tx>, Error> {
    Ok(Some(tx))
}

/// Searches the feed for unpublished tasks, but not in every pass, because they are at least `settle` old.
async fn gather_left_behind(store: &Store, now: Time, settle: Duration) -> Result<(), Error> {
    const AGAIN_MICROS: i64 = 250_000;
    let cut = now.minus(settle).0;
    if settle > Duration::ZERO && (0..AGAIN_MICROS).contains(&(cut - store.gathered.load(Ordering::Relaxed))) {
        return Ok(());
    }
    gather::gather(&store.pool, now, settle).await?;
    store.gathered.store(cut, Ordering::Relaxed);
    Ok(())
}

/// Records publications in the transaction of the pass that made them. `is_relaxed`: its commit need not wait for the disk.
pub(super) async fn carried(
    adapter: &Adapter,
    tx: &mut Tx,
    numbers: &[i64],
    now: Time,
    is_relaxed: bool,
) -> Result<Vec<Event>, Error> {
    publication::carried(tx, &adapter.store, numbers, now, is_relaxed).await
}

/// The tasks with these numbers, by number, without the large texts.
pub(super) async fn tasks(tx: &mut Tx, numbers: &[i64]) -> Result<Vec<Task>, Error> {
    let (low, high) = numbers::span(numbers);
    rows::tasks(&sqlx::query(TASKS).bind(numbers).bind(low).bind(high).fetch_all(&mut **tx).await?)
}

/// Headers and bodies by number.
pub(super) async fn messages(tx: &mut Tx, due: &[Task]) -> Result<passes::Messages, Error> {
    let numbers: Vec<i64> = due.iter().map(|task| task.no).collect();
    let (low, high) = numbers::span(&numbers);
    let found = sqlx::query(MESSAGES).bind(&numbers).bind(low).bind(high).fetch_all(&mut **tx).await?;
    let read = |row: &sqlx::postgres::PgRow| Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?)));
    let mut messages = found.iter().map(read).collect::<Result<passes::Messages, Error>>()?;
    for task in due {
        if let Some((Some(headers), _)) = messages.get_mut(&task.no) {
            *headers = headers::unpack(headers, task.id.as_str(), task.name.as_deref().unwrap_or_default());
        }
    }
    Ok(messages)
}

pub(super) async fn remove(tx: &mut Tx, numbers: &[i64]) -> Result<(), Error> {
    if !numbers.is_empty() {
        sqlx::query(GONE).bind(numbers).execute(&mut **tx).await?;
    }
    Ok(())
}

/// Parks tasks of paused queues, and lets tasks sleep that must not be published now.
pub(super) async fn hold(tx: &mut Tx, sorted: &Sorted, now: Time) -> Result<(), Error> {
    let until = |task: &Task, end: Time| task.expires_at.map_or(end, |at| at.min(end)).0;
    sqlx::query(PARK)
        .bind(sorted.parked.iter().map(|task| task.no).collect::<Vec<_>>())
        .bind(sorted.parked.iter().map(|task| task.queue.as_deref().unwrap_or_default()).collect::<Vec<_>>())
        .bind(sorted.parked.iter().map(|task| until(task, Time(i64::MAX))).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    sqlx::query(SLEEP)
        .bind(sorted.refused.iter().map(|(task, _)| task.no).collect::<Vec<_>>())
        .bind(sorted.refused.iter().map(|(task, _)| until(task, now.plus(REFUSED_FOR))).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Locks the outbox rows of these tasks.
pub(super) async fn lock(tx: &mut Tx, ids: &[&TaskId]) -> Result<(), Error> {
    let places = super::tasks::numbers_of(tx, &numbers::keys(ids.iter().copied())).await?;
    sqlx::query(LOCK).bind(places.into_values().collect::<Vec<_>>()).execute(&mut **tx).await?;
    Ok(())
}

/// Which of these tasks have a message.
pub(super) async fn with_messages(tx: &mut Tx, numbers: &[i64]) -> Result<HashSet<i64>, Error> {
    let (low, high) = numbers::span(numbers);
    let found = sqlx::query(WITH_MESSAGES).bind(numbers).bind(low).bind(high).fetch_all(&mut **tx).await?;
    found.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Puts tasks back into the outbox.
pub(super) async fn remember(tx: &mut Tx, places: &[(i64, String)], at: Time) -> Result<(), Error> {
    let numbers: Vec<i64> = places.iter().map(|(number, _)| *number).collect();
    sqlx::query(REMEMBER).bind(numbers).bind(at.0).execute(&mut **tx).await?;
    Ok(())
}
