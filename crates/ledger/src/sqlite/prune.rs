//! Pruning: deletes old finished tasks and keeps tombstones.
//!
//! The passes for tasks and for messages walk from the lowest `task_no`, which is the oldest, so they need no extra index. They stop at
//! the first window whose tasks are all younger than the limit.

use sqlx::Row;

use crate::Error;
use crate::statements::statements;
use runtime::clock::Time;

use super::pool::{Pools, Tx, list};

statements! {
    /// `$1` after this number, `$2` window.
    OLDEST = "select task_no, finished_at, submitted_at from task where task_no > $1 \
         order by task_no limit $2";
    OLDEST_MESSAGES = "select m.task_no, t.finished_at, coalesce(t.submitted_at, 0) \
         from message m left join task t on t.task_no = m.task_no where m.task_no > $1 \
         order by m.task_no limit $2";
    STONES = "insert or replace into tombstone (task_id, finished_at, pruned_at) \
         select task_id, finished_at, $2 from task where task_no in (select value from json_each($1))";
    MEMBERS_OF = "select distinct group_id from task \
         where task_no in (select value from json_each($1)) and group_id is not null";
    GROUPS = "delete from task_group where group_id in (select value from json_each($1)) \
         and not exists (select 1 from task t where t.group_id = task_group.group_id)";
    PAYLOADS = "delete from message where task_no in (select value from json_each($1))";
    IDEMPOTENCY_KEYS = "delete from idempotency where rowid in \
         (select rowid from idempotency where expires_at <= $1 limit $2)";
    /// Rates that have been open for a minute.
    RATES = "delete from gate_rate where gate in \
         (select gate from gate_rate where opens_at <= $1 - 60000000 limit $2)";
    UNIQUE_KEYS =
        "delete from unique_key where rowid in (select rowid from unique_key where expires_at <= $1 limit $2)";
}

/// Deletes all rows of these tasks; the tasks themselves last.
pub(super) const ROWS: [&str; 7] = [
    "delete from event where task_no in (select value from json_each($1))",
    "delete from message where task_no in (select value from json_each($1))",
    "delete from trouble where task_no in (select value from json_each($1))",
    "delete from edge where from_no in (select value from json_each($1))",
    "delete from edge where to_no in (select value from json_each($1))",
    "delete from label where task_no in (select value from json_each($1))",
    "delete from task where task_no in (select value from json_each($1))",
];

pub(super) async fn tasks(pools: &Pools, before: Time, limit: i64, now: Time) -> Result<i64, Error> {
    let mut tx = pools.begin().await?;
    let doomed = walk(&mut tx, OLDEST, before, limit).await?;
    let numbers = list(&doomed);
    let mut groups: Vec<String> = Vec::new();
    for row in sqlx::query(MEMBERS_OF).bind(&numbers).fetch_all(&mut *tx).await? {
        groups.push(row.try_get(0)?);
    }
    sqlx::query(STONES).bind(&numbers).bind(now.0).execute(&mut *tx).await?;
    for statement in ROWS {
        sqlx::query(statement).bind(&numbers).execute(&mut *tx).await?;
    }
    sqlx::query(GROUPS).bind(list(&groups)).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(i64::try_from(doomed.len()).unwrap_or(i64::MAX))
}

pub(super) async fn payloads(pools: &Pools, before: Time, limit: i64) -> Result<i64, Error> {
    let mut tx = pools.begin().await?;
    let doomed = walk(&mut tx, OLDEST_MESSAGES, before, limit).await?;
    let gone = sqlx::query(PAYLOADS).bind(list(&doomed)).execute(&mut *tx).await?.rows_affected();
    tx.commit().await?;
    Ok(i64::try_from(gone).unwrap_or(i64::MAX))
}

pub(super) async fn keys(pools: &Pools, now: Time, limit: i64) -> Result<i64, Error> {
    let mut tx = pools.begin().await?;
    let mut gone = 0;
    for statement in [IDEMPOTENCY_KEYS, UNIQUE_KEYS, RATES] {
        gone += sqlx::query(statement).bind(now.0).bind(limit).execute(&mut *tx).await?.rows_affected();
    }
    tx.commit().await?;
    Ok(i64::try_from(gone).unwrap_or(i64::MAX))
}

/// Up to `limit` numbers of tasks that finished before the limit, oldest first.
async fn walk(tx: &mut Tx, window: &'static str, before: Time, limit: i64) -> Result<Vec<i64>, Error> {
    let mut doomed = Vec::new();
    let mut after = 0;
    while (doomed.len() as i64) < limit {
        let rows = sqlx::query(window).bind(after).bind(limit).fetch_all(&mut **tx).await?;
        let mut any_old = false;
        for row in &rows {
            after = row.try_get(0)?;
            let (finished, submitted): (Option<i64>, i64) = (row.try_get(1)?, row.try_get(2)?);
            any_old |= submitted < before.0;
            if finished.is_some_and(|at| at < before.0) && (doomed.len() as i64) < limit {
                doomed.push(after);
            }
        }
        if !any_old {
            break;
        }
    }
    Ok(doomed)
}
