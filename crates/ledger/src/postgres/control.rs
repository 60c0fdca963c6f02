//! Control by people: pauses of queues, requests to revoke, dismissed dead letters.

use std::collections::HashSet;

use sqlx::Row;

use crate::statements::statements;
use crate::{Error, Task};
use celery::task::{QueueName, TaskId};
use runtime::clock::Time;

use super::pool::{self, Tx};
use super::pooled::Pool;
use super::{audit, numbers, tasks};

statements! {
    PAUSE =
        "insert into taskgate.queue_pause (queue, paused_at) values ($1, $2) on conflict (queue) do nothing";
    RESUME = "delete from taskgate.queue_pause where queue = $1";
    WAKE = "update taskgate.outbox set parked = null, wake_at = $2 where parked = $1";
    PAUSED = "select queue, paused_at from taskgate.queue_pause order by queue";
    /// Queues that stay paused, without those being resumed at this moment. It does not wait for locks, because a resume waits for outbox rows.
    STILL_PAUSED = "select queue from taskgate.queue_pause for share skip locked";
    /// `$1` numbers, `$3` and `$4` their bounds.
    REQUEST_REVOKE = "with open as (update taskgate.flight set revoke_requested_at = $2 \
         where task_no = any($1) and revoke_requested_at is null) update taskgate.ended set revoke_requested_at = $2 \
         where task_no = any($1) and task_no >> 32 >= $3 and task_no >> 32 < $4 and revoke_requested_at is null";
    /// `$1` numbers, `$2` and `$3` their bounds.
    DISMISS = "update taskgate.ended set dead = false \
         where task_no = any($1) and task_no >> 32 >= $2 and task_no >> 32 < $3 and dead";
}

pub(super) async fn pause(pool: &Pool, queue: &QueueName, at: Time) -> Result<bool, Error> {
    let mut tx = pool::begin(pool).await?;
    let is_new = sqlx::query(PAUSE).bind(queue.as_str()).bind(at.0).execute(&mut *tx).await?.rows_affected() == 1;
    audit::open_current(&mut tx).await?;
    tx.commit().await?;
    Ok(is_new)
}

pub(super) async fn resume(pool: &Pool, queue: &QueueName, at: Time) -> Result<bool, Error> {
    let mut tx = pool::begin(pool).await?;
    let was_paused = sqlx::query(RESUME).bind(queue.as_str()).execute(&mut *tx).await?.rows_affected() == 1;
    sqlx::query(WAKE).bind(queue.as_str()).bind(at.0).execute(&mut *tx).await?;
    audit::open_current(&mut tx).await?;
    tx.commit().await?;
    Ok(was_paused)
}

pub(super) async fn paused(pool: &Pool) -> Result<Vec<(String, Time)>, Error> {
    let rows = sqlx::query(PAUSED).fetch_all(pool).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, Time(row.try_get(1)?)))).collect()
}

/// Queues that stay paused until `tx` ends.
pub(super) async fn still_paused(tx: &mut Tx) -> Result<HashSet<String>, Error> {
    let rows = sqlx::query(STILL_PAUSED).fetch_all(&mut **tx).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

pub(super) async fn request_revoke(pool: &Pool, id: &TaskId, at: Time) -> Result<Option<Task>, Error> {
    let mut tx = pool::begin(pool).await?;
    let found = numbers_of(&mut tx, std::slice::from_ref(id)).await?;
    let (low, high) = numbers::span(&found);
    sqlx::query(REQUEST_REVOKE).bind(found).bind(at.0).bind(low).bind(high).execute(&mut *tx).await?;
    audit::open_current(&mut tx).await?;
    tx.commit().await?;
    tasks::task(pool, id).await
}

pub(super) async fn dismiss(pool: &Pool, ids: &[TaskId]) -> Result<i64, Error> {
    let mut tx = pool::begin(pool).await?;
    let found = numbers_of(&mut tx, ids).await?;
    let (low, high) = numbers::span(&found);
    let done = sqlx::query(DISMISS).bind(found).bind(low).bind(high).execute(&mut *tx).await?.rows_affected();
    audit::open_current(&mut tx).await?;
    tx.commit().await?;
    Ok(i64::try_from(done).unwrap_or(i64::MAX))
}

async fn numbers_of(tx: &mut Tx, ids: &[TaskId]) -> Result<Vec<i64>, Error> {
    Ok(tasks::numbers_of(tx, &numbers::keys(ids)).await?.into_values().collect())
}
