//! Applies news: locks rows in one order, applies the pure rule, commits once for the batch.
//!
//! Unfinished tasks are locked first. If another transaction ends a task while this one waits for its lock, the row is no longer in `flight`;
//! the second statement then finds the task among the ended ones.

use std::collections::HashSet;

use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::applied::Applied;
use crate::statements::statements;
use crate::{Error, Event, Fence, News, Task};
use celery::task::TaskId;

use super::columns::{between, closed_columns, fact_columns, named, open_columns};
use super::lane::Lane;
use super::numbers::{self, ANYWHERE};
use super::pool::{self, Tx, is_deadlock};
use super::pooled::Pool;
use super::{Store, ordinary, rows, save};

statements! {
    /// Every transaction locks tasks by ascending number, so that there are no deadlocks. `$1` keys of ids; `$2` and `$3` bound the days.
    LOCK = concat!(
        "select ",
        fact_columns!(),
        ", ",
        open_columns!(),
        " from (select * from taskgate.task t where t.id = any($1) and ",
        between!("$2", "$3"),
        " order by t.task_no offset 0) t",
        named!(),
        "cross join lateral (select * from taskgate.flight f where f.task_no = t.task_no for no key update) s"
    );
    /// The same for tasks that have ended.
    LOCK_ENDED = concat!(
        "select ",
        fact_columns!(),
        ", ",
        closed_columns!(),
        " from (select * from taskgate.task t where t.id = any($1) and ",
        between!("$2", "$3"),
        " order by t.task_no offset 0) t",
        named!(),
        "cross join lateral (select * from taskgate.ended e where e.task_no = t.task_no and e.task_no >> 32 >= $2 \
         and e.task_no >> 32 < $3 for no key update) s"
    );
    /// Checks the fence and locks the lease until the commit, so that no other holder takes it before.
    FENCE = "select 1 from taskgate.lease where name = $1 and term = $2 for share";
    /// Checks the fence and renews the lease, for batches that lock no task.
    RENEW =
        "update taskgate.lease set expires_at = greatest(expires_at, $1) where name = $2 and term = $3";
    /// [`RENEW`] and [`LOCK`] in one round trip; returns no rows if the fence does not hold. It renews the lease, so that a replica which
    /// waits for the lease during a long write then sees that the holder is alive.
    LOCK_FENCED = concat!(
        "with fence as (update taskgate.lease set expires_at = greatest(expires_at, $6) where name = $4 and term = $5 returning 1) \
         select ",
        fact_columns!(),
        ", ",
        open_columns!(),
        " from (select * from taskgate.task t where t.id = any($1) and ",
        between!("$2", "$3"),
        " and exists (select 1 from fence) order by t.task_no offset 0) t",
        named!(),
        "cross join lateral (select * from taskgate.flight f where f.task_no = t.task_no for no key update) s"
    );
}

pub(super) const BEGIN_RELAXED: &str = "begin; set local synchronous_commit = off";

/// The server ends the transaction of a recorder that is paused in the middle of a write, so that it does not block its successor.
const BEGIN_FENCED: &str = "begin; set local idle_in_transaction_session_timeout = 1000";
const BEGIN_FENCED_RELAXED: &str =
    "begin; set local idle_in_transaction_session_timeout = 1000; set local synchronous_commit = off";

/// After this many lost deadlocks a transaction fails as unavailable.
const MAX_ATTEMPTS: usize = 5;

/// Applies news. `None` when the fence does not hold any more. `lane` is for batches that are one statement.
pub(super) async fn learn(
    pool: &Pool,
    lane: &Lane,
    store: &Store,
    news: &[News],
    durable: bool,
    fence: Option<&Fence>,
) -> Result<Option<Vec<Event>>, Error> {
    let mut known = store.known.enough_for(news);
    let mut attempt = 1;
    loop {
        let tried = match try_alone(lane, store, news, durable, fence, &known).await {
            Ok(None) => try_learn(pool, store, news, durable, fence, &known).await,
            tried => tried.map(|tried| tried.expect("it was tried")),
        };
        match tried {
            Ok(Learnt::Done(events)) => return Ok(Some(events)),
            Ok(Learnt::Fenced) => return Ok(None),
            Ok(Learnt::Changed) => {}
            Err(error) if is_deadlock(&error) && attempt < MAX_ATTEMPTS => attempt += 1,
            Err(error) => {
                store.known.clear();
                return Err(error);
            }
        }
        // The next attempts use no cached tasks.
        store.known.forget(known.iter().map(|task| &task.id));
        known.clear();
    }
}

/// The result of an attempt.
enum Learnt {
    Done(Vec<Event>),
    /// The fence does not hold any more.
    Fenced,
    /// Another transaction changed a task whose cached state was used.
    Changed,
}

/// Applies news of cached tasks by one statement. `None` when that is not possible.
async fn try_alone(
    lane: &Lane,
    store: &Store,
    news: &[News],
    durable: bool,
    fence: Option<&Fence>,
    known: &[Task],
) -> Result<Option<Learnt>, Error> {
    let mut applied = Applied::default();
    applied.assume(known.to_vec());
    if !news.iter().all(|news| applied.has(&news.task_id)) {
        return Ok(None);
    }
    news.iter().for_each(|news| applied.learn(news));
    let Some((entries, told)) = save::alone(store, &applied) else { return Ok(None) };
    // Only the recorder, which has a fence, waits for the connection.
    let taken = if fence.is_some() { lane.take().await? } else { lane.take_free().await? };
    let Some(mut connection) = taken else { return Ok(None) };
    let written = lane.limited(ordinary::write_alone(&mut connection, &entries, told, durable, fence)).await;
    connection.keep(&written);
    match written {
        Ok(()) => {
            store.known.note(applied.entries.into_iter().filter(|entry| entry.touched).map(|entry| entry.task));
            Ok(Some(Learnt::Done(applied.events)))
        }
        Err(error) if ordinary::is_fenced(&error) => Ok(Some(Learnt::Fenced)),
        Err(error) if ordinary::is_changed(&error) => Ok(Some(Learnt::Changed)),
        Err(error) => Err(error.into()),
    }
}

async fn try_learn(
    pool: &Pool,
    store: &Store,
    news: &[News],
    durable: bool,
    fence: Option<&Fence>,
    known: &[Task],
) -> Result<Learnt, Error> {
    let mut tx = match (fence.is_some(), durable) {
        (false, true) => pool::begin(pool).await?,
        (false, false) => pool::begin_as(pool, BEGIN_RELAXED).await?,
        (true, true) => pool::begin_as(pool, BEGIN_FENCED).await?,
        (true, false) => pool::begin_as(pool, BEGIN_FENCED_RELAXED).await?,
    };
    let is_known: HashSet<&TaskId> = known.iter().map(|task| &task.id).collect();
    let ids: Vec<&TaskId> = news.iter().map(|news| &news.task_id).filter(|id| !is_known.contains(id)).collect();
    let Some(tasks) = lock_fenced(&mut tx, &ids, fence).await? else {
        tx.rollback().await?;
        return Ok(Learnt::Fenced);
    };
    let mut applied = Applied::new(tasks);
    applied.assume(known.to_vec());
    for news in news {
        applied.learn(news);
    }
    if !save::try_save(&mut tx, store, &mut applied, 0).await? {
        tx.rollback().await?;
        return Ok(Learnt::Changed);
    }
    tx.commit().await?;
    store.known.note(applied.entries.into_iter().filter(|entry| entry.touched).map(|entry| entry.task));
    Ok(Learnt::Done(applied.events))
}

/// Locks tasks under the fence. `None` when the fence does not hold any more.
async fn lock_fenced(tx: &mut Tx, ids: &[&TaskId], fence: Option<&Fence>) -> Result<Option<Vec<Task>>, Error> {
    let Some(fence) = fence else { return lock(tx, ids).await.map(Some) };
    if ids.is_empty() {
        let renewed = sqlx::query(RENEW).bind(fence.until.0).bind(fence.lease).bind(fence.term);
        let holds = renewed.execute(&mut **tx).await?.rows_affected() == 1;
        return Ok(holds.then(Vec::new));
    }
    let keys = numbers::keys(ids.iter().copied());
    let (low, high) = numbers::place(&keys);
    let found = sqlx::query(LOCK_FENCED)
        .bind(&keys)
        .bind(low)
        .bind(high)
        .bind(fence.lease)
        .bind(fence.term)
        .bind(fence.until.0)
        .fetch_all(&mut **tx)
        .await?;
    if found.is_empty() {
        // Either all tasks have ended or are unknown, or the lease has another holder.
        let holds = sqlx::query(FENCE).bind(fence.lease).bind(fence.term).fetch_optional(&mut **tx).await?;
        if holds.is_none() {
            return Ok(None);
        }
    }
    lock_others(tx, keys, rows::tasks(&found)?, (low, high)).await.map(Some)
}

pub(super) async fn lock(tx: &mut Tx, ids: &[&TaskId]) -> Result<Vec<Task>, Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let keys = numbers::keys(ids.iter().copied());
    let place = numbers::place(&keys);
    let open = rows::tasks(&select(tx, LOCK, &keys, place).await?)?;
    lock_others(tx, keys, open, place).await
}

/// Locks tasks that were not found among unfinished ones in the expected partitions: they have ended, or are in other partitions.
async fn lock_others(
    tx: &mut Tx,
    keys: Vec<Uuid>,
    mut found: Vec<Task>,
    place: (i64, i64),
) -> Result<Vec<Task>, Error> {
    let mut missing: HashSet<Uuid> = keys.into_iter().collect();
    let strike = |missing: &mut HashSet<Uuid>, tasks: &[Task]| {
        tasks.iter().for_each(|task| {
            missing.remove(&numbers::key(task.id.as_str()));
        });
    };
    strike(&mut missing, &found);
    let elsewhere: &[(&'static str, (i64, i64))] =
        if place == ANYWHERE { &[] } else { &[(LOCK, ANYWHERE), (LOCK_ENDED, ANYWHERE)] };
    for (statement, place) in [(LOCK_ENDED, place)].iter().chain(elsewhere) {
        if missing.is_empty() {
            break;
        }
        let keys: Vec<Uuid> = missing.iter().copied().collect();
        let more = rows::tasks(&select(tx, statement, &keys, *place).await?)?;
        strike(&mut missing, &more);
        found.extend(more);
    }
    found.sort_by_key(|task| task.no);
    Ok(found)
}

async fn select(
    tx: &mut Tx,
    statement: &'static str,
    keys: &[Uuid],
    (low, high): (i64, i64),
) -> Result<Vec<PgRow>, Error> {
    Ok(sqlx::query(statement).bind(keys).bind(low).bind(high).fetch_all(&mut **tx).await?)
}
