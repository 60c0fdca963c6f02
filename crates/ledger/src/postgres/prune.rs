//! Pruning: deletes old finished tasks and keeps tombstones.
//!
//! A history of more than [`BY_MONTHS`] is deleted by months: a partition whose tasks all ended long enough ago is dropped, and its ids
//! are kept in sorted pieces. A shorter history is deleted task by task, from the lowest numbers, which are the oldest; this walk stops
//! at the first window whose tasks are all younger than the limit.

use std::time::Duration;

use sqlx::Row;

use crate::Error;
use crate::statements::statements;
use runtime::clock::Time;

use super::pool::{self, Tx};
use super::pooled::Pool;
use super::{migrate, numbers};

/// A history that is kept for longer than this is dropped by months, so a task may be kept for up to a month longer.
const BY_MONTHS: Duration = Duration::from_hours(60 * 24);

statements! {
    /// Drops the oldest month, if all of it ended before `$1`; `$2` is now. Null when there is none.
    MONTH = "select taskgate.drop_oldest_month($1, $2)";
    /// `$1` after this number, `$2` window.
    OLDEST = "select t.task_no, e.finished_at, t.submitted_at from taskgate.task t \
         left join taskgate.ended e on e.task_no = t.task_no where t.task_no > $1 order by t.task_no limit $2";
    /// Deletes tasks. Skips locked ones. Labels are found by the task's own labels. `$3` and `$4` bound the numbers.
    TASKS = "with doomed as (select t.task_no, t.id, t.labels, t.group_id from taskgate.task t \
         join taskgate.ended e on e.task_no = t.task_no and e.task_no >> 32 >= $3 and e.task_no >> 32 < $4 \
         where t.task_no = any($1) and t.task_no >> 32 >= $3 and t.task_no >> 32 < $4 order by t.task_no for update of e skip locked), \
         labels as (delete from taskgate.label l using doomed d, json_each_text(d.labels::json) as own(key, value) \
         where d.labels is not null and l.key = left(own.key, 255) and l.value = left(own.value, 255) and l.task_no = d.task_no), \
         pieces as (delete from taskgate.history h using doomed d where h.task_no = d.task_no and h.task_no >> 32 >= $3 and h.task_no >> 32 < $4), \
         ends as (delete from taskgate.ended e using doomed d where e.task_no = d.task_no and e.task_no >> 32 >= $3 and e.task_no >> 32 < $4), \
         late as (delete from taskgate.payload_late p using doomed d where p.task_no = d.task_no), \
         edges as (delete from taskgate.edge g using doomed d where g.from_no = d.task_no), \
         edges_to as (delete from taskgate.edge g using doomed d where g.to_no = d.task_no \
             and not exists (select 1 from doomed other where other.task_no = g.from_no)), \
         stones as (insert into taskgate.tombstone (id, pruned_at) select id, $2 from doomed \
         on conflict (id) do update set pruned_at = excluded.pruned_at) \
         delete from taskgate.task t using doomed d where t.task_no = d.task_no and t.task_no >> 32 >= $3 and t.task_no >> 32 < $4 \
         returning t.group_id";
    GROUPS = "delete from taskgate.task_group g where group_id = any($1) \
         and not exists (select 1 from taskgate.task t where t.group_id = g.group_id)";
    /// Deletes rows of the feed from its beginning, as long as all their events are older.
    FEED = "delete from taskgate.feed where pos in \
         (select pos from (select pos, at from taskgate.feed order by pos limit $2) oldest where oldest.at < $1)";
    /// The number up to which messages were pruned.
    PAYLOAD_MARK = "select payload_mark from taskgate.ledger for update";
    MOVE_PAYLOAD_MARK = "update taskgate.ledger set payload_mark = $1";
    /// Tasks that were skipped because they had not ended, and have ended now.
    LATE = "select p.task_no from taskgate.payload_late p join taskgate.ended e on e.task_no = p.task_no \
         where e.finished_at < $1 order by p.task_no limit $2";
    NOTE_LATE =
        "insert into taskgate.payload_late (task_no) select unnest($1::bigint[]) on conflict do nothing";
    NO_MORE_LATE = "delete from taskgate.payload_late where task_no = any($1)";
    /// `$2` and `$3` bound the numbers.
    PAYLOADS = "update taskgate.task set headers = null, body = null \
         where task_no = any($1) and task_no >> 32 >= $2 and task_no >> 32 < $3 and body is not null";
    KEYS = "with a as (delete from taskgate.idempotency where (scope, key) in \
         (select scope, key from taskgate.idempotency where expires_at <= $1 limit $2) returning 1), \
         b as (delete from taskgate.unique_key where key in \
         (select key from taskgate.unique_key where expires_at <= $1 limit $2) returning 1), \
         c as (delete from taskgate.gate_rate where gate in \
         (select gate from taskgate.gate_rate where opens_at <= $1 - 60000000 limit $2) returning 1) \
         select (select count(*) from a) + (select count(*) from b) + (select count(*) from c)";
}

/// Steps of the feed's deletion for each step of the tasks' deletion.
const FEED_STEPS: usize = 20;
/// Feed rows in one such step for each task that a step may delete.
const FEED_ROWS: i64 = 10;

pub(super) async fn tasks(pool: &Pool, before: Time, limit: i64, now: Time) -> Result<i64, Error> {
    migrate::roll(pool).await?;
    feed(pool, before, limit).await?;
    if now.since(before) >= BY_MONTHS {
        return month(pool, before, now).await;
    }
    one_by_one(pool, before, limit, now).await
}

/// Deletes many more rows than a step deletes tasks: a task has several events, and each may have a feed row of its own.
async fn feed(pool: &Pool, before: Time, limit: i64) -> Result<(), Error> {
    let rows = limit.saturating_mul(FEED_ROWS);
    for _ in 0..FEED_STEPS {
        let gone = sqlx::query(FEED).bind(before.0).bind(rows).execute(pool).await?.rows_affected();
        if i64::try_from(gone).is_ok_and(|gone| gone < rows) {
            break;
        }
    }
    Ok(())
}

/// With a longer statement timeout, because sorting the ids of ten million tasks takes long. Locks are taken last, with a short timeout.
const BEGIN_MONTH: &str = "begin; set local statement_timeout = '10min'";

async fn month(pool: &Pool, before: Time, now: Time) -> Result<i64, Error> {
    let mut tx = pool::begin_as(pool, BEGIN_MONTH).await?;
    let row = sqlx::query(MONTH).bind(before.0).bind(now.0).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(row.try_get::<Option<i64>, _>(0)?.unwrap_or(0))
}

async fn one_by_one(pool: &Pool, before: Time, limit: i64, now: Time) -> Result<i64, Error> {
    let mut tx = pool::begin(pool).await?;
    let doomed = walk(&mut tx, before, limit).await?;
    if doomed.is_empty() {
        return Ok(0);
    }
    let (low, high) = numbers::span(&doomed);
    let gone = sqlx::query(TASKS).bind(&doomed).bind(now.0).bind(low).bind(high).fetch_all(&mut *tx).await?;
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

/// Up to `limit` numbers of tasks that finished before the limit, oldest first.
async fn walk(tx: &mut Tx, before: Time, limit: i64) -> Result<Vec<i64>, Error> {
    let mut doomed = Vec::new();
    let mut after = 0;
    while (doomed.len() as i64) < limit {
        let mut any_old = false;
        for (task_no, finished, submitted) in window(tx, after, limit).await? {
            after = task_no;
            any_old |= submitted < before.0;
            if finished.is_some_and(|at| at < before.0) && (doomed.len() as i64) < limit {
                doomed.push(task_no);
            }
        }
        if !any_old {
            break;
        }
    }
    Ok(doomed)
}

/// The next tasks: number, when each finished, when each was submitted.
async fn window(tx: &mut Tx, after: i64, limit: i64) -> Result<Vec<(i64, Option<i64>, i64)>, Error> {
    let rows = sqlx::query(OLDEST).bind(after).bind(limit).fetch_all(&mut **tx).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
}

/// Prunes messages, continuing from the last mark. Tasks that have not ended yet go into `payload_late` and are checked again later.
pub(super) async fn payloads(pool: &Pool, before: Time, limit: i64) -> Result<i64, Error> {
    let mut tx = pool::begin(pool).await?;
    let mark: i64 = sqlx::query(PAYLOAD_MARK).fetch_one(&mut *tx).await?.try_get(0)?;
    let rows = sqlx::query(LATE).bind(before.0).bind(limit).fetch_all(&mut *tx).await?;
    let mut doomed = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
    sqlx::query(NO_MORE_LATE).bind(&doomed).execute(&mut *tx).await?;
    let (mut late, mut end) = (Vec::new(), mark);
    for (task_no, finished, submitted) in window(&mut tx, mark, limit).await? {
        if submitted >= before.0 || (doomed.len() as i64) >= limit {
            break;
        }
        end = task_no;
        if finished.is_some_and(|at| at < before.0) { doomed.push(task_no) } else { late.push(task_no) }
    }
    if end != mark {
        sqlx::query(NOTE_LATE).bind(&late).execute(&mut *tx).await?;
        sqlx::query(MOVE_PAYLOAD_MARK).bind(end).execute(&mut *tx).await?;
    }
    let (low, high) = numbers::span(&doomed);
    let gone = sqlx::query(PAYLOADS).bind(&doomed).bind(low).bind(high).execute(&mut *tx).await?.rows_affected();
    tx.commit().await?;
    Ok(i64::try_from(gone).unwrap_or(i64::MAX))
}

pub(super) async fn keys(pool: &Pool, now: Time, limit: i64) -> Result<i64, Error> {
    Ok(sqlx::query(KEYS).bind(now.0).bind(limit).fetch_one(pool).await?.try_get(0)?)
}
