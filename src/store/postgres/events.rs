//! Histories and the firehose.
//!
//! A feed position is (id of the writing transaction, place in it). It is visible once no older transaction can still commit,
//! so a reader that goes on from the last position it saw misses nothing.

use sqlx::{PgPool, QueryBuilder, Row};

use crate::store::{Error, Event, Filter};
use crate::task::TaskId;

use super::rows::{self, event_columns};
use super::tasks::{conditions, event_conditions};

pub(super) const EVENTS: &str = concat!(
    "select ",
    event_columns!(),
    " from taskgate.task t join taskgate.event e on e.task_no = t.task_no where t.task_id = $1 and e.seq > $2 \
     order by e.seq limit $3"
);

/// The end of what is visible: transactions from `xmin` on may still run.
pub(super) const FEED_END: &str = "select (pg_snapshot_xmin(pg_current_snapshot())::text::bigint << 20) + feed_offset \
     from taskgate.ledger";

pub(super) const NEWEST: &str = "select max(feed) from taskgate.event where feed < $1";

pub(super) const WINDOW: &str = "select max(feed) from (select feed from taskgate.event where feed > $1 and feed < $2 \
     order by feed limit $3) as page";

const FEED: &str =
    concat!("select ", event_columns!(), " from taskgate.event e join taskgate.task t on t.task_no = e.task_no where ");

pub(super) async fn events(pool: &PgPool, id: &TaskId, after: i64, limit: i64) -> Result<Vec<Event>, Error> {
    let found = sqlx::query(EVENTS).bind(id.as_str()).bind(after).bind(limit).fetch_all(pool).await?;
    found.iter().map(rows::event).collect()
}

async fn horizon(pool: &PgPool) -> Result<i64, Error> {
    Ok(sqlx::query(FEED_END).fetch_one(pool).await?.try_get(0)?)
}

pub(super) async fn feed_end(pool: &PgPool) -> Result<i64, Error> {
    let newest: Option<i64> = sqlx::query(NEWEST).bind(horizon(pool).await?).fetch_one(pool).await?.try_get(0)?;
    Ok(newest.unwrap_or(0))
}

/// Looks at `limit` events and answers with those that match, and with the position it looked up to.
pub(super) async fn feed(pool: &PgPool, after: i64, filter: &Filter, limit: i64) -> Result<(Vec<Event>, i64), Error> {
    let horizon = horizon(pool).await?;
    let end: Option<i64> =
        sqlx::query(WINDOW).bind(after).bind(horizon).bind(limit).fetch_one(pool).await?.try_get(0)?;
    let Some(end) = end else { return Ok((Vec::new(), after)) };
    let mut query = QueryBuilder::new(FEED);
    query.push("e.feed > ").push_bind(after).push(" and e.feed <= ").push_bind(end);
    event_conditions(&mut query, filter);
    conditions(&mut query, filter);
    query.push(" order by e.feed");
    let found = query.build().fetch_all(pool).await?;
    Ok((found.iter().map(rows::event).collect::<Result<_, Error>>()?, end))
}
