//! Histories and the firehose.
//!
//! A feed position is (id of the writing transaction, place in it). It is visible once no older transaction of a ledger
//! can still commit, so a reader that goes on from the last position it saw misses nothing.

use sqlx::{PgPool, QueryBuilder, Row};

use crate::{EVENTS_BYTES, Error, Event, Filter};
use celery::task::TaskId;

use super::rows::{self, event_columns};
use super::tasks::{conditions, event_conditions};

/// `$4` bytes of what was reported, then the next event is another page's.
pub(super) const EVENTS: &str = concat!(
    "select ",
    event_columns!(),
    " from (select e.*, sum(octet_length(e.meta)) over (order by e.seq rows between unbounded preceding and 1 preceding) as before \
     from taskgate.event e where e.task_no = (select task_no from taskgate.task where task_id = $1) and e.seq > $2 \
     order by e.seq limit $3) e join taskgate.task t on t.task_no = e.task_no where coalesce(e.before, 0) < $4 order by e.seq"
);

/// The end of what is visible: the oldest running transaction that may still bring events.
///
/// Transactions of others (of other databases too) have ids from the same counter and may stay open for hours; they are told
/// by their locks. A transaction of ours holds a lock on a table of the schema before it gets an id and until it has ended, so
/// one that is seen without such a lock is not ours. One that has no locks any more has just ended: it counts, this once. The
/// answer is for statements that begin later: what ended since is visible to them.
pub(super) const FEED_END: &str = "with held as materialized (\
     select locktype, transactionid, pid, relation, mode from pg_locks where granted \
     and (locktype = 'transactionid' or (locktype = 'relation' \
     and database = (select oid from pg_database where datname = current_database()) \
     and relation in (select oid from pg_class where relnamespace = 'taskgate'::regnamespace)))), \
     here as (select pg_current_snapshot() as shot) \
     select (coalesce(min(running.id::text::bigint), max(pg_snapshot_xmax(here.shot)::text::bigint)) << 20) \
     + max(l.feed_offset) from here cross join taskgate.ledger l \
     left join lateral (select x.id from pg_snapshot_xip(here.shot) as x(id) where not exists (\
     select 1 from held own where own.locktype = 'transactionid' and own.transactionid = x.id::xid \
     and not exists (select 1 from held r where r.pid = own.pid and r.locktype = 'relation' \
     and r.mode in ('RowShareLock', 'RowExclusiveLock')))) running on true";

pub(super) const NEWEST: &str = "select max(feed) from taskgate.event where feed < $1";

/// As for [`EVENTS`]: `$4` bytes of what was reported end the page.
pub(super) const WINDOW: &str = "select max(feed) from (select feed, \
     sum(octet_length(meta)) over (order by feed rows between unbounded preceding and 1 preceding) as before \
     from taskgate.event where feed > $1 and feed < $2 order by feed limit $3) as page where coalesce(before, 0) < $4";

const FEED: &str =
    concat!("select ", event_columns!(), " from taskgate.event e join taskgate.task t on t.task_no = e.task_no where ");

pub(super) async fn events(pool: &PgPool, id: &TaskId, after: i64, limit: i64) -> Result<Vec<Event>, Error> {
    let found =
        sqlx::query(EVENTS).bind(id.as_str()).bind(after).bind(limit).bind(EVENTS_BYTES).fetch_all(pool).await?;
    found.iter().map(rows::event).collect()
}

async fn horizon(pool: &PgPool) -> Result<i64, Error> {
    Ok(sqlx::query(FEED_END).fetch_one(pool).await?.try_get(0)?)
}

pub(super) async fn feed_end(pool: &PgPool) -> Result<i64, Error> {
    let newest: Option<i64> = sqlx::query(NEWEST).bind(horizon(pool).await?).fetch_one(pool).await?.try_get(0)?;
    Ok(newest.unwrap_or(0))
}

/// The position of the last of at most `limit` visible events after another position.
pub(super) async fn window(pool: &PgPool, after: i64, limit: i64) -> Result<Option<i64>, Error> {
    let horizon = horizon(pool).await?;
    Ok(sqlx::query(WINDOW)
        .bind(after)
        .bind(horizon)
        .bind(limit)
        .bind(EVENTS_BYTES)
        .fetch_one(pool)
        .await?
        .try_get(0)?)
}

/// Looks at `limit` events and answers with those that match, and with the position it looked up to.
pub(super) async fn feed(pool: &PgPool, after: i64, filter: &Filter, limit: i64) -> Result<(Vec<Event>, i64), Error> {
    let Some(end) = window(pool, after, limit).await? else { return Ok((Vec::new(), after)) };
    let mut query = QueryBuilder::new(FEED);
    query.push("e.feed > ").push_bind(after).push(" and e.feed <= ").push_bind(end);
    event_conditions(&mut query, filter);
    conditions(&mut query, filter);
    query.push(" order by e.feed");
    let found = query.build().fetch_all(pool).await?;
    Ok((found.iter().map(rows::event).collect::<Result<_, Error>>()?, end))
}
