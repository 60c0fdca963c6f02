//! The end of history: old finished tasks go, tombstones stay.
//!
//! Both passes walk from the low end of `task_no`, where the old ones are, so they need no index of their own; they stop at the
//! first window whose tasks are all younger than the limit.

use sqlx::{PgPool, Row};

use crate::Error;
use runtime::clock::Time;

use super::pool::{self, Tx};

/// `$1` after this number, `$2` window.
pub(super) const OLDEST: &str = "select task_no, finished_at, submitted_at from taskgate.task where task_no > $1 \
     order by task_no limit $2";

pub(super) const OLDEST_MESSAGES: &str = "select m.task_no, t.finished_at, coalesce(t.submitted_at, 0) \
     from taskgate.message m left join taskgate.task t on t.task_no = m.task_no where m.task_no > $1 \
     order by m.task_no limit $2";

/// Skips what somebody works on. Labels are found by what the task says of itself.
pub(super) const TASKS: &str = "with doomed as (select task_no, task_id, finished_at, labels, group_id from taskgate.task \
     where task_no = any($1) order by task_no for update skip locked), \
     labels as (delete from taskgate.label l using doomed d, json_each_text(d.labels::json) as own(key, value) \
     where d.labels is not null and l.key = left(own.key, 255) and l.value = left(own.value, 255) and l.task_no = d.task_no), \
     events as (delete from taskgate.event e using doomed d where e.task_no = d.task_no), \
     messages as (delete from taskgate.message m using doomed d where m.task_no = d.task_no), \
     troubles as (delete from taskgate.trouble x using doomed d where x.task_no = d.task_no), \
     edges as (delete from taskgate.edge g using doomed d where g.from_no = d.task_no), \
     edges_to as (delete from taskgate.edge g using doomed d where g.to_no = d.task_no \
         and not exists (select 1 from doomed other where other.task_no = g.from_no)), \
     stones as (insert into taskgate.tombstone (task_id, finished_at, pruned_at) \
     select task_id, finished_at, $2 from doomed \
     on conflict (task_id) do update set finished_at = excluded.finished_at, pruned_at = excluded.pruned_at) \
     delete from taskgate.task t using doomed d where t.task_no = d.task_no returning t.group_id";

pub(super) const GROUPS: &str = "delete from taskgate.task_group g where group_id = any($1) \
     and not exists (select 1 from taskgate.task t where t.group_id = g.group_id)";

pub(super) const PAYLOADS: &str = "delete from taskgate.message where task_no = any($1)";

pub(super) const KEYS: &str = "with a as (delete from taskgate.idempotency where (scope, key) in \
     (select scope, key from taskgate.idempotency where expires_at <= $1 limit $2) returning 1), \
     b as (delete from taskgate.unique_key where key in \
     (select key from taskgate.unique_key where expires_at <= $1 limit $2) returning 1) \
     select (select count(*) from a) + (select count(*) from b)";

pub(super) async fn tasks(pool: &PgPool, before: Time, limit: i64, now: Time) -> Result<i64, Error> {
    let mut tx = pool::begin(pool).await?;
    let doomed = walk(&mut tx, OLDEST, before, limit).await?;
    if doomed.is_empty() {
        return Ok(0);
    }
    let gone = sqlx::query(TASKS).bind(&doomed).bind(now.0).fetch_all(&mut *tx).await?;
    let mut groups: Vec<String> = Vec::new();
    for row in &gone {
        groups.extend(row.try_get::<Option<String>, _>(0)?);
    }
    if !groups.is_empty() {
        groups.sort_unstable();
        groups.dedup();
        sqlx::query(GROUPS).bind(groups).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(i64::try_from(gone.len()).unwrap_or(i64::MAX))
}

pub(super) async fn payloads(pool: &PgPool, before: Time, limit: i64) -> Result<i64, Error> {
    let mut tx = pool::begin(pool).await?;
    let doomed = walk(&mut tx, OLDEST_MESSAGES, before, limit).await?;
    let gone = sqlx::query(PAYLOADS).bind(&doomed).execute(&mut *tx).await?.rows_affected();
    tx.commit().await?;
    Ok(i64::try_from(gone).unwrap_or(i64::MAX))
}

pub(super) async fn keys(pool: &PgPool, now: Time, limit: i64) -> Result<i64, Error> {
    Ok(sqlx::query(KEYS).bind(now.0).bind(limit).fetch_one(pool).await?.try_get(0)?)
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
