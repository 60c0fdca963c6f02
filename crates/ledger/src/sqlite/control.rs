//! Control by people: pauses of queues, requests to revoke, dismissed dead letters.

use std::collections::HashSet;

use sqlx::Row;

use crate::statements::statements;
use crate::{Error, Task};
use celery::task::{QueueName, TaskId};
use runtime::clock::Time;

use super::pool::{Pools, Tx, list};
use super::{audit, tasks};

statements! {
    PAUSE =
        "insert into queue_pause (queue, paused_at) values ($1, $2) on conflict (queue) do nothing";
    RESUME = "delete from queue_pause where queue = $1";
    WAKE = "update outbox set parked = 0, wake_at = $2 where queue = $1 and parked";
    PAUSED = "select queue, paused_at from queue_pause order by queue";
    REQUEST_REVOKE =
        "update task set revoke_requested_at = coalesce(revoke_requested_at, $2) where task_id = $1";
    DISMISS = "update trouble set dead = 0 \
         where dead and task_no in (select task_no from task where task_id in (select value from json_each($1)))";
}

pub(super) async fn pause(pools: &Pools, queue: &QueueName, at: Time) -> Result<bool, Error> {
    let mut tx = pools.begin().await?;
    let is_new = sqlx::query(PAUSE).bind(queue.as_str()).bind(at.0).execute(&mut *tx).await?.rows_affected() == 1;
    audit::open_current(&mut tx).await?;
    tx.commit().await?;
    Ok(is_new)
}

pub(super) async fn resume(pools: &Pools, queue: &QueueName, at: Time) -> Result<bool, Error> {
    let mut tx = pools.begin().await?;
    let was_paused = sqlx::query(RESUME).bind(queue.as_str()).execute(&mut *tx).await?.rows_affected() == 1;
    sqlx::query(WAKE).bind(queue.as_str()).bind(at.0).execute(&mut *tx).await?;
    audit::open_current(&mut tx).await?;
    tx.commit().await?;
    Ok(was_paused)
}

pub(super) async fn paused(pools: &Pools) -> Result<Vec<(String, Time)>, Error> {
    let rows = sqlx::query(PAUSED).fetch_all(&pools.read).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, Time(row.try_get(1)?)))).collect()
}

/// Queues that stay paused until `tx` ends, because it is the only writer.
pub(super) async fn still_paused(tx: &mut Tx) -> Result<HashSet<String>, Error> {
    let rows = sqlx::query(PAUSED).fetch_all(&mut **tx).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

pub(super) async fn request_revoke(pools: &Pools, id: &TaskId, at: Time) -> Result<Option<Task>, Error> {
    let mut tx = pools.begin().await?;
    sqlx::query(REQUEST_REVOKE).bind(id.as_str()).bind(at.0).execute(&mut *tx).await?;
    audit::open_current(&mut tx).await?;
    tx.commit().await?;
    tasks::task(&pools.write, id).await
}

pub(super) async fn dismiss(pools: &Pools, ids: &[TaskId]) -> Result<i64, Error> {
    let ids: Vec<&str> = ids.iter().map(TaskId::as_str).collect();
    let mut tx = pools.begin().await?;
    let done = sqlx::query(DISMISS).bind(list(&ids)).execute(&mut *tx).await?.rows_affected();
    audit::open_current(&mut tx).await?;
    tx.commit().await?;
    Ok(i64::try_from(done).unwrap_or(i64::MAX))
}
