//! News becomes history: rows locked in one order, the pure rule applied, one commit for the batch.

use sqlx::PgPool;

use crate::book::Book;
use crate::rows::light_task_columns;
use crate::{Error, Event, Fence, News, Task};
use celery::task::TaskId;

use super::pool::{self, Tx, is_deadlock};
use super::{rows, save};

/// Every transaction locks tasks by ascending number, so that two never wait for each other.
pub(super) const LOCK: &str = concat!(
    "select ",
    light_task_columns!(),
    " from taskgate.task t where t.task_id = any($1) order by t.task_no for no key update"
);

pub(super) const BEGIN_RELAXED: &str = "begin; set local synchronous_commit = off";

/// A recorder that stops in the middle of a write must not keep its successor from the lease: the server ends its transaction.
const BEGIN_FENCED: &str = "begin; set local idle_in_transaction_session_timeout = 1000";
const BEGIN_FENCED_RELAXED: &str =
    "begin; set local idle_in_transaction_session_timeout = 1000; set local synchronous_commit = off";

/// A transaction that keeps losing deadlocks against others is given up as unavailable.
const MAX_ATTEMPTS: usize = 5;

/// Locked until the commit: the next holder cannot take the lease before that.
pub(super) const FENCE: &str = "select 1 from taskgate.lease where name = $1 and term = $2 for share";

/// The fence, then [`LOCK`], in one round trip: no rows without the fence. It renews the lease: a successor that waits for a long
/// write finds afterwards that its holder lives.
pub(super) const LOCK_FENCED: &str = concat!(
    "with fence as (update taskgate.lease set expires_at = greatest(expires_at, $4) where name = $2 and term = $3 returning 1) \
     select ",
    light_task_columns!(),
    " from taskgate.task t where t.task_id = any($1) and exists (select 1 from fence) \
     order by t.task_no for no key update of t"
);

/// `None` when the fence does not hold any more.
pub(super) async fn learn(
    pool: &PgPool,
    replica: &str,
    news: &[News],
    durable: bool,
    fence: Option<&Fence>,
) -> Result<Option<Vec<Event>>, Error> {
    let mut attempt = 1;
    loop {
        match try_learn(pool, replica, news, durable, fence).await {
            Err(error) if is_deadlock(&error) && attempt < MAX_ATTEMPTS => attempt += 1,
            done => return done,
        }
    }
}

async fn try_learn(
    pool: &PgPool,
    replica: &str,
    news: &[News],
    durable: bool,
    fence: Option<&Fence>,
) -> Result<Option<Vec<Event>>, Error> {
    let mut tx = match (fence.is_some(), durable) {
        (false, true) => pool::begin(pool).await?,
        (false, false) => pool::begin_as(pool, BEGIN_RELAXED).await?,
        (true, true) => pool::begin_as(pool, BEGIN_FENCED).await?,
        (true, false) => pool::begin_as(pool, BEGIN_FENCED_RELAXED).await?,
    };
    let ids: Vec<&TaskId> = news.iter().map(|news| &news.task_id).collect();
    let Some(tasks) = lock_fenced(&mut tx, &ids, fence).await? else {
        tx.rollback().await?;
        return Ok(None);
    };
    let mut book = Book::new(tasks);
    for news in news {
        book.learn(news);
    }
    save::save(&mut tx, replica, &mut book, 0).await?;
    tx.commit().await?;
    Ok(Some(book.events))
}

/// `None` when the fence does not hold any more.
async fn lock_fenced(tx: &mut Tx, ids: &[&TaskId], fence: Option<&Fence>) -> Result<Option<Vec<Task>>, Error> {
    let Some(fence) = fence else { return lock(tx, ids).await.map(Some) };
    let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
    let found = sqlx::query(LOCK_FENCED)
        .bind(ids)
        .bind(fence.lease)
        .bind(fence.term)
        .bind(fence.until.0)
        .fetch_all(&mut **tx)
        .await?;
    if found.is_empty() {
        // Unknown tasks, or another holder.
        let holds = sqlx::query(FENCE).bind(fence.lease).bind(fence.term).fetch_optional(&mut **tx).await?;
        return Ok(holds.map(|_| Vec::new()));
    }
    rows::tasks(&found).map(Some)
}

pub(super) async fn lock(tx: &mut Tx, ids: &[&TaskId]) -> Result<Vec<Task>, Error> {
    let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
    rows::tasks(&sqlx::query(LOCK).bind(ids).fetch_all(&mut **tx).await?)
}
