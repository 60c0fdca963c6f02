//! Writes for pauses, requests to revoke and dismissed dead letters, as far as they depend on PostgreSQL's tables and locks.

use super::pool::Tx;
use super::{numbers, tasks};
use crate::Error;
use crate::statements::statements;
use celery::task::TaskId;
use runtime::clock::Time;

statements! {
    WAKE = "update taskgate.outbox set parked = null, wake_at = $2 where parked = $1";
    /// Queues that stay paused. A queue whose row is locked is being resumed, so it is left out; waiting for the lock could deadlock, because a
    /// resume waits for outbox rows.
    STILL_PAUSED = "select queue from taskgate.queue_pause for share skip locked";
    /// `$1` numbers, `$3` and `$4` their bounds.
    REQUEST_REVOKE = "with open as (update taskgate.flight set revoke_requested_at = $2 \
         where task_no = any($1) and revoke_requested_at is null) update taskgate.ended set revoke_requested_at = $2 \
         where task_no = any($1) and task_no >> 32 >= $3 and task_no >> 32 < $4 and revoke_requested_at is null";
    /// `$1` numbers, `$2` and `$3` their bounds.
    DISMISS = "update taskgate.ended set dead = false \
         where task_no = any($1) and task_no >> 32 >= $2 and task_no >> 32 < $3 and dead";
}

pub(super) async fn request_revoke(tx: &mut Tx, id: &TaskId, at: Time) -> Result<(), Error> {
    let found = numbers_of(tx, std::slice::from_ref(id)).await?;
    let (low, high) = numbers::span(&found);
    sqlx::query(REQUEST_REVOKE).bind(found).bind(at.0).bind(low).bind(high).execute(&mut **tx).await?;
    Ok(())
}

/// Returns how many tasks were dismissed.
pub(super) async fn dismiss(tx: &mut Tx, ids: &[TaskId]) -> Result<u64, Error> {
    let found = numbers_of(tx, ids).await?;
    let (low, high) = numbers::span(&found);
    Ok(sqlx::query(DISMISS).bind(found).bind(low).bind(high).execute(&mut **tx).await?.rows_affected())
}

async fn numbers_of(tx: &mut Tx, ids: &[TaskId]) -> Result<Vec<i64>, Error> {
    Ok(tasks::numbers_of(tx, &numbers::keys(ids)).await?.into_values().collect())
}
