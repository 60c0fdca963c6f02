//! The rows of the outbox in SQLite, and the transactions of a pass.
//!
//! Two locks replace row locks: the writer's connection for each transaction, and `carrying` around a whole pass and around a
//! withdrawal. A pass must not keep the writer's connection while the carrier waits for the broker.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use sqlx::Row;

use super::claims::Sorted;
use super::dialect::Adapter;
use super::pool::{Pools, Tx, list};
use super::rows::event_columns;
use super::{learn, passes, rows, save};
use crate::applied::Applied;
use crate::rows::light_task_columns;
use crate::statements::statements;
use crate::{Carrier, Drained, Error, Event, News, REFUSED_FOR, Task, Withdrawn};
use celery::task::{Phase, TaskId};
use runtime::clock::Time;

statements! {
    GONE = "delete from outbox where task_no in (select value from json_each($1))";
    /// `$1` numbers, each with the time of its push. A task that a worker already has gets no event.
    TOLD = "insert into event (task_no, seq, at, delivery, retries, corrected, phase, status, worker) \
         select t.task_no, t.seq + 1, i.value ->> 1, t.delivery, t.retries, t.corrected, 'queued', 'PENDING', t.worker \
         from json_each($1) i join task t on t.task_no = i.value ->> 0 where t.phase in ('accepted', 'held') order by t.task_no";
    PUBLISHED = "update task set queued_at = coalesce(queued_at, i.at), seq = seq + (phase in ('accepted', 'held')), \
         reason = case when phase in ('accepted', 'held') then null else reason end, \
         phase = case when phase in ('accepted', 'held') then 'queued' else phase end \
         from (select value ->> 0 as no, value ->> 1 as at from json_each($1)) i where task.task_no = i.no";
    READ = concat!(
        "select ",
        event_columns!(),
        " from event e join task t on t.task_no = e.task_no where e.feed > $1 order by e.feed"
    );
    /// `$1` now, `$2` accepted before, `$3` limit. `$2` does not apply to tasks that were held at first, because they are not published directly.
    DUE = "select task_no, accepted_at, gate, gate_max, wake_at from outbox \
         where wake_at <= $1 and (accepted_at <= $2 or wake_at > accepted_at) order by wake_at, task_no limit $3";
    /// As [`DUE`], for these rows.
    THESE = "select task_no, accepted_at, gate, gate_max, wake_at from outbox \
         where task_no in (select value from json_each($1)) order by task_no";
    TASKS = concat!(
        "select ",
        light_task_columns!(),
        " from task t where t.task_no in (select value from json_each($1)) order by t.task_no"
    );
    MESSAGES =
        "select task_no, headers, body from message where task_no in (select value from json_each($1))";
    /// Rows of a paused queue sleep until it is resumed, or until they expire.
    PARK = "update outbox set parked = 1, gate = null, gate_max = null, \
         line = null, rank = null, share = null, wake_at = coalesce((select expires_at from task t \
         where t.task_no = outbox.task_no), 9223372036854775807) where task_no in (select value from json_each($1))";
    /// Rows that must not be published now sleep until `$2`, or until they expire. At a gate that is open they would be claimed in every pass.
    SLEEP = "update outbox set gate = null, gate_max = null, line = null, rank = null, share = null, \
         wake_at = min($2, coalesce((select expires_at from task t \
         where t.task_no = outbox.task_no), $2)) where task_no in (select value from json_each($1))";
    TAKE = "delete from outbox where task_no = (select task_no from task where task_id = $1)";
    /// These tasks are not published directly, see [`DUE`].
    REMEMBER = "insert into outbox (task_no, wake_at, accepted_at, queue) values ($1, $2, $3, $4)";
    WITH_MESSAGES =
        "select task_no from message where task_no in (select value from json_each($1)) and headers is not null";
}

pub(super) async fn published(pools: &Pools, pushed: &[(i64, Time)]) -> Result<Vec<Event>, Error> {
    let mut tx = pools.begin().await?;
    let events = mark_published(&mut tx, pushed).await?;
    tx.commit().await?;
    Ok(events)
}

async fn mark_published(tx: &mut Tx, pushed: &[(i64, Time)]) -> Result<Vec<Event>, Error> {
    let pushed: BTreeMap<i64, i64> = pushed.iter().map(|(no, at)| (*no, at.0)).collect();
    let numbers: Vec<i64> = pushed.keys().copied().collect();
    remove(tx, &numbers).await?;
    let pushed = list(&pushed.into_iter().collect::<Vec<_>>());
    let told = sqlx::query(TOLD).bind(&pushed).execute(&mut **tx).await?;
    sqlx::query(PUBLISHED).bind(&pushed).execute(&mut **tx).await?;
    let count = i64::try_from(told.rows_affected()).unwrap_or(i64::MAX);
    if count == 0 {
        return Ok(Vec::new());
    }
    // One statement's events have consecutive positions.
    let found = sqlx::query(READ).bind(told.last_insert_rowid() - count).fetch_all(&mut **tx).await?;
    found.iter().map(rows::event).collect()
}

/// Records the publications of a pass, all with the same time.
pub(super) async fn carried(
    _: &Adapter,
    tx: &mut Tx,
    numbers: &[i64],
    now: Time,
    _is_relaxed: bool,
) -> Result<Vec<Event>, Error> {
    let pushed: Vec<(i64, Time)> = numbers.iter().map(|no| (*no, now)).collect();
    mark_published(tx, &pushed).await
}

pub(super) async fn drain(
    adapter: &Adapter,
    now: Time,
    settle: Duration,
    limit: i64,
    carrier: &dyn Carrier,
) -> Result<Drained, Error> {
    let tx = adapter.pools.read.begin().await?;
    passes::run(adapter, tx, now, settle, limit, carrier).await
}

/// The transaction that decided can only read.
pub(super) async fn to_write_little(adapter: &Adapter, reading: Tx) -> Result<Tx, Error> {
    reading.rollback().await?;
    adapter.begin().await
}

pub(super) async fn before_carrying(tx: Tx) -> Result<Option<Tx>, Error> {
    tx.commit().await?;
    Ok(None)
}

/// The tasks with these numbers, by number, without the large texts.
pub(super) async fn tasks(tx: &mut Tx, numbers: &[i64]) -> Result<Vec<Task>, Error> {
    rows::tasks(&sqlx::query(TASKS).bind(list(numbers)).fetch_all(&mut **tx).await?)
}

/// Headers and bodies by number.
pub(super) async fn messages(tx: &mut Tx, due: &[Task]) -> Result<passes::Messages, Error> {
    let numbers: Vec<i64> = due.iter().map(|task| task.no).collect();
    let found = sqlx::query(MESSAGES).bind(list(&numbers)).fetch_all(&mut **tx).await?;
    found.iter().map(|row| Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?)))).collect()
}

pub(super) async fn remove(tx: &mut Tx, numbers: &[i64]) -> Result<(), Error> {
    if !numbers.is_empty() {
        sqlx::query(GONE).bind(list(numbers)).execute(&mut **tx).await?;
    }
    Ok(())
}

/// Parks tasks of paused queues, and lets tasks sleep that must not be published now.
pub(super) async fn hold(tx: &mut Tx, sorted: &Sorted, now: Time) -> Result<(), Error> {
    let parked: Vec<i64> = sorted.parked.iter().map(|task| task.no).collect();
    sqlx::query(PARK).bind(list(&parked)).execute(&mut **tx).await?;
    let refused: Vec<i64> = sorted.refused.iter().map(|(task, _)| task.no).collect();
    sqlx::query(SLEEP).bind(list(&refused)).bind(now.plus(REFUSED_FOR).0).execute(&mut **tx).await?;
    Ok(())
}

pub(super) async fn withdraw(pools: &Pools, id: &TaskId, news: News) -> Result<Withdrawn, Error> {
    let mut tx = pools.begin().await?;
    let taken = sqlx::query(TAKE).bind(id.as_str()).execute(&mut *tx).await?.rows_affected() == 1;
    let Some(task) = learn::lock(&mut tx, &[id]).await?.pop() else { return Ok(Withdrawn::Unknown) };
    if task.phase.is_final() {
        tx.rollback().await?;
        return Ok(Withdrawn::Finished(Box::new(task)));
    }
    if !task.phase.is_ours() || (!taken && task.phase != Phase::Waiting) || task.is_replaced() {
        tx.rollback().await?;
        return Ok(Withdrawn::Published(Box::new(task)));
    }
    let mut applied = Applied::new(vec![task]);
    applied.learn(&news);
    save::save(&mut tx, &mut applied).await?;
    tx.commit().await?;
    Ok(Withdrawn::Done(applied.events))
}

/// Does nothing: there is one writer.
pub(super) async fn lock(_: &mut Tx, _: &[&TaskId]) -> Result<(), Error> {
    Ok(())
}

/// Which of these tasks have a message.
pub(super) async fn with_messages(tx: &mut Tx, numbers: &[i64]) -> Result<HashSet<i64>, Error> {
    let found = sqlx::query(WITH_MESSAGES).bind(list(numbers)).fetch_all(&mut **tx).await?;
    found.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Puts tasks back into the outbox, each with its queue.
pub(super) async fn remember(tx: &mut Tx, places: &[(i64, String)], at: Time) -> Result<(), Error> {
    for (no, queue) in places {
        sqlx::query(REMEMBER).bind(no).bind(at.0.saturating_add(1)).bind(at.0).bind(queue).execute(&mut **tx).await?;
    }
    Ok(())
}
