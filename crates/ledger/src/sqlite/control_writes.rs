//! Writes for pauses, requests to revoke and dismissed dead letters, as far as they depend on SQLite's tables.

use super::pool::{Tx, list};
use crate::Error;
use crate::statements::statements;
use celery::task::TaskId;
use runtime::clock::Time;

statements! {
    WAKE = "update outbox set parked = 0, wake_at = $2 where queue = $1 and parked";
    /// There is one writer, so no queue is resumed before the transaction ends.
    STILL_PAUSED = "select queue from queue_pause";
    REQUEST_REVOKE =
        "update task set revoke_requested_at = coalesce(revoke_requested_at, $2) where task_id = $1";
    DISMISS = "update trouble set dead = 0 \
         where dead and task_no in (select task_no from task where task_id in (select value from json_each($1)))";
}

pub(super) async fn request_revoke(tx: &mut Tx, id: &TaskId, at: Time) -> Result<(), Error> {
    sqlx::query(REQUEST_REVOKE).bind(id.as_str()).bind(at.0).execute(&mut **tx).await?;
    Ok(())
}

/// Returns how many tasks were dismissed.
pub(super) async fn dismiss(tx: &mut Tx, ids: &[TaskId]) -> Result<u64, Error> {
    let ids: Vec<&str> = ids.iter().map(TaskId::as_str).collect();
    Ok(sqlx::query(DISMISS).bind(list(&ids)).execute(&mut **tx).await?.rows_affected())
}
