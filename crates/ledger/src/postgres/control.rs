//! What people decide: pauses of queues, requests to revoke, dead letters put away.

use sqlx::{PgPool, Row};

use crate::{Error, Task};
use celery::task::{QueueName, TaskId};
use runtime::clock::Time;

use super::{pool, tasks};

pub(super) const PAUSE: &str =
    "insert into taskgate.queue_pause (queue, paused_at) values ($1, $2) on conflict (queue) do nothing";
pub(super) const RESUME: &str = "delete from taskgate.queue_pause where queue = $1";
pub(super) const WAKE: &str = "update taskgate.outbox set parked = false, wake_at = $2 where queue = $1 and parked";
pub(super) const PAUSED: &str = "select queue, paused_at from taskgate.queue_pause order by queue";
pub(super) const REQUEST_REVOKE: &str =
    "update taskgate.task set revoke_requested_at = coalesce(revoke_requested_at, $2) where task_id = $1";
pub(super) const DISMISS: &str = "update taskgate.trouble x set dead = false from taskgate.task t \
     where t.task_id = any($1) and x.task_no = t.task_no and x.dead";

pub(super) async fn pause(pool: &PgPool, queue: &QueueName, at: Time) -> Result<bool, Error> {
    Ok(sqlx::query(PAUSE).bind(queue.as_str()).bind(at.0).execute(pool).await?.rows_affected() == 1)
}

pub(super) async fn resume(pool: &PgPool, queue: &QueueName, at: Time) -> Result<bool, Error> {
    let mut tx = pool::begin(pool).await?;
    let was_paused = sqlx::query(RESUME).bind(queue.as_str()).execute(&mut *tx).await?.rows_affected() == 1;
    sqlx::query(WAKE).bind(queue.as_str()).bind(at.0).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(was_paused)
}

pub(super) async fn paused(pool: &PgPool) -> Result<Vec<(String, Time)>, Error> {
    let rows = sqlx::query(PAUSED).fetch_all(pool).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, Time(row.try_get(1)?)))).collect()
}

pub(super) async fn request_revoke(pool: &PgPool, id: &TaskId, at: Time) -> Result<Option<Task>, Error> {
    sqlx::query(REQUEST_REVOKE).bind(id.as_str()).bind(at.0).execute(pool).await?;
    tasks::task(pool, id).await
}

pub(super) async fn dismiss(pool: &PgPool, ids: &[TaskId]) -> Result<i64, Error> {
    let ids: Vec<&str> = ids.iter().map(TaskId::as_str).collect();
    let done = sqlx::query(DISMISS).bind(ids).execute(pool).await?.rows_affected();
    Ok(i64::try_from(done).unwrap_or(i64::MAX))
}
