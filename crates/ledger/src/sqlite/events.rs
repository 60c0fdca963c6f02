//! Histories of tasks, and the feed of all events.
//!
//! Only one connection writes, so positions become visible in order.

use sqlx::{QueryBuilder, Row, SqlitePool};

use crate::statements::statements;
use crate::{EVENTS_BYTES, Error, Event, Filter};
use celery::task::TaskId;

use super::rows::{self, event_columns};
use super::tasks::{conditions, event_conditions};

statements! {
    EVENTS = concat!(
        "select ",
        event_columns!(),
        " from (select e.*, sum(octet_length(e.meta)) over (order by e.seq rows between unbounded preceding and 1 preceding) as before \
         from event e where e.task_no = (select task_no from task where task_id = $1) and e.seq > $2 \
         order by e.seq limit $3) e join task t on t.task_no = e.task_no where coalesce(e.before, 0) < $4 order by e.seq"
    );
    NEWEST = "select coalesce(max(feed), 0) from event";
    WINDOW = "select max(feed) from (select feed, \
         sum(octet_length(meta)) over (order by feed rows between unbounded preceding and 1 preceding) as before \
         from event where feed > $1 order by feed limit $2) as page where coalesce(before, 0) < $3";
}

const FEED: &str = concat!("select ", event_columns!(), " from event e join task t on t.task_no = e.task_no where ");

pub(super) async fn events(pool: &SqlitePool, id: &TaskId, after: i64, limit: i64) -> Result<Vec<Event>, Error> {
    let found =
        sqlx::query(EVENTS).bind(id.as_str()).bind(after).bind(limit).bind(EVENTS_BYTES).fetch_all(pool).await?;
    found.iter().map(rows::event).collect()
}

pub(super) async fn feed_end(pool: &SqlitePool) -> Result<i64, Error> {
    Ok(sqlx::query(NEWEST).fetch_one(pool).await?.try_get(0)?)
}

/// The position of the last of at most `limit` events after another position.
pub(super) async fn window(pool: &SqlitePool, after: i64, limit: i64) -> Result<Option<i64>, Error> {
    Ok(sqlx::query(WINDOW).bind(after).bind(limit).bind(EVENTS_BYTES).fetch_one(pool).await?.try_get(0)?)
}

/// Reads `limit` events; returns the matching ones, and the position up to which it read.
pub(super) async fn feed(
    pool: &SqlitePool,
    after: i64,
    filter: &Filter,
    limit: i64,
) -> Result<(Vec<Event>, i64), Error> {
    let Some(end) = window(pool, after, limit).await? else { return Ok((Vec::new(), after)) };
    let mut query = QueryBuilder::new(FEED);
    query.push("e.feed > ").push_bind(after).push(" and e.feed <= ").push_bind(end);
    event_conditions(&mut query, filter);
    conditions(&mut query, filter);
    query.push(" order by e.feed");
    let found = query.build().fetch_all(pool).await?;
    Ok((found.iter().map(rows::event).collect::<Result<_, Error>>()?, end))
}
