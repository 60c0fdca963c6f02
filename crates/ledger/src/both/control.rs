//! Control by people: pauses of queues, requests to revoke, dismissed dead letters.

use std::collections::HashSet;

use sqlx::Row;

use super::audit;
use super::control_writes::{self, STILL_PAUSED, WAKE};
use super::dialect::{Adapter, Tx};
use super::tasks;
use crate::statements::statements;
use crate::{Error, Task};
use celery::task::{QueueName, TaskId};
use runtime::clock::Time;

statements! {
    PAUSE = "insert into queue_pause (queue, paused_at) values ($1, $2) on conflict (queue) do nothing";
    RESUME = "delete from queue_pause where queue = $1";
    PAUSED = "select queue, paused_at from queue_pause order by queue";
}

pub(super) async fn pause(adapter: &Adapter, queue: &QueueName, at: Time) -> Result<bool, Error> {
    let mut tx = adapter.begin().await?;
    let is_new = sqlx::query(PAUSE).bind(queue.as_str()).bind(at.0).execute(&mut *tx).await?.rows_affected() == 1;
    audit::open_current(&mut tx).await?;
    tx.commit().await?;
    Ok(is_new)
}

pub(super) async fn resume(adapter: &Adapter, queue: &QueueName, at: Time) -> Result<bool, Error> {
    let mut tx = adapter.begin().await?;
    let was_paused = sqlx::query(RESUME).bind(queue.as_str()).execute(&mut *tx).await?.rows_affected() == 1;
    sqlx::query(WAKE).bind(queue.as_str()).bind(at.0).execute(&mut *tx).await?;
    audit::open_current(&mut tx).await?;
    tx.commit().await?;
    Ok(was_paused)
}

pub(super) async fn paused(adapter: &Adapter) -> Result<Vec<(String, Time)>, Error> {
    let rows = sqlx::query(PAUSED).fetch_all(adapter.reads()).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, Time(row.try_get(1)?)))).collect()
}

/// The queues that are paused now.
pub(super) async fn paused_now(tx: &mut Tx) -> Result<HashSet<String>, Error> {
    names(tx, PAUSED).await
}

/// The paused queues, none of which can be resumed before `tx` ends.
pub(super) async fn still_paused(tx: &mut Tx) -> Result<HashSet<String>, Error> {
    names(tx, STILL_PAUSED).await
}

async fn names(tx: &mut Tx, statement: &'static str) -> Result<HashSet<String>, Error> {
    let rows = sqlx::query(statement).fetch_all(&mut **tx).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

pub(super) async fn request_revoke(adapter: &Adapter, id: &TaskId, at: Time) -> Result<Option<Task>, Error> {
    let mut tx = adapter.begin().await?;
    control_writes::request_revoke(&mut tx, id, at).await?;
    audit::open_current(&mut tx).await?;
    tx.commit().await?;
    tasks::task(adapter.writes(), id).await
}

pub(super) async fn dismiss(adapter: &Adapter, ids: &[TaskId]) -> Result<i64, Error> {
    let mut tx = adapter.begin().await?;
    let done = control_writes::dismiss(&mut tx, ids).await?;
    audit::open_current(&mut tx).await?;
    tx.commit().await?;
    Ok(i64::try_from(done).unwrap_or(i64::MAX))
}
