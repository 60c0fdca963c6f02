//! The outbox: what is still to be published, the passes over it, and what leaves it another way.
//!
//! Two locks take the place of row locks: the writer's connection for each transaction, and `carrying` around a whole pass and
//! around each withdrawal. A pass must not keep the writer while the carrier waits for the broker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Row, SqlitePool};

use crate::clock::Time;
use crate::store::book::Book;
use crate::store::rows::light_task_columns;
use crate::store::{Backlog, Carrier, Drained, Error, Event, NewGroup, News, Outgoing, Source, Task, Withdrawn};
use crate::task::{Phase, QueueName, TaskId, TaskName};

use super::pool::{Pools, Tx, list};
use super::{groups, learn, rows, save};

/// A carrier that does not answer by then has published an unknown part: its rows stay, and the broker's markers sort it out.
const CARRY: Duration = Duration::from_secs(10);

pub(super) const GONE: &str = "delete from outbox where task_no = $1";

pub(super) const PUBLISHED: &str = "update task set queued_at = coalesce(queued_at, $2), seq = seq + (phase in ('accepted', 'held')), \
     reason = case when phase in ('accepted', 'held') then null else reason end, \
     phase = case when phase in ('accepted', 'held') then 'queued' else phase end where task_no = $1";

/// `$1` now, `$2` accepted before, `$3` limit.
pub(super) const DUE: &str = "select o.task_no, o.accepted_at, p.queue is not null as paused from outbox o \
     left join queue_pause p on p.queue = o.queue \
     where o.wake_at <= $1 and o.accepted_at <= $2 order by o.wake_at, o.task_no limit $3";

pub(super) const TASKS: &str = concat!(
    "select ",
    light_task_columns!(),
    " from task t where t.task_no in (select value from json_each($1)) order by t.task_no"
);

pub(super) const MESSAGES: &str =
    "select task_no, headers, body from message where task_no in (select value from json_each($1))";

/// Rows of a paused queue sleep until it is resumed, or until their time is over.
pub(super) const PARK: &str = "update outbox set parked = 1, wake_at = coalesce((select expires_at from task t \
     where t.task_no = outbox.task_no), 9223372036854775807) where task_no in (select value from json_each($1))";

pub(super) const BACKLOG: &str = "select count(*), min(accepted_at) from outbox where wake_at <= $1";
pub(super) const NEXT_DUE: &str = "select min(wake_at) from outbox where wake_at > $1";
pub(super) const TAKE: &str = "delete from outbox where task_no = (select task_no from task where task_id = $1)";
pub(super) const REMEMBER: &str = "insert into outbox (task_no, wake_at, accepted_at, queue) values ($1, $2, $3, $4) \
     on conflict (task_no) do update set wake_at = excluded.wake_at, parked = false";
pub(super) const HAS_MESSAGE: &str = "select exists (select 1 from message where task_no = $1 and headers is not null)";

pub(super) async fn published(pools: &Pools, task_nos: &[i64], at: Time) -> Result<Vec<Event>, Error> {
    let mut tx = pools.begin().await?;
    let events = mark_published(&mut tx, task_nos, at).await?;
    tx.commit().await?;
    Ok(events)
}

async fn mark_published(tx: &mut Tx, task_nos: &[i64], at: Time) -> Result<Vec<Event>, Error> {
    let mut events = Vec::with_capacity(task_nos.len());
    let tasks = rows::tasks(&sqlx::query(TASKS).bind(list(task_nos)).fetch_all(&mut **tx).await?)?;
    for task in tasks {
        sqlx::query(GONE).bind(task.no).execute(&mut **tx).await?;
        sqlx::query(PUBLISHED).bind(task.no).bind(at.0).execute(&mut **tx).await?;
        if matches!(task.phase, Phase::Accepted | Phase::Held) {
            let event = Event::queued(&task, at);
            save::event(tx, &event).await?;
            events.push(event);
        }
    }
    Ok(events)
}

struct Claimed {
    task_no: i64,
    accepted_at: Time,
    paused: bool,
}

pub(super) async fn drain(
    pools: &Pools,
    now: Time,
    settle: Duration,
    limit: i64,
    carrier: &dyn Carrier,
) -> Result<Drained, Error> {
    let mut tx = pools.read.begin().await?;
    let claimed = claim(&mut tx, now, settle, limit).await?;
    if claimed.is_empty() {
        tx.rollback().await?;
        return Ok(Drained::default());
    }
    let sorted = sort(&mut tx, &claimed, now).await?;
    let outgoing = if sorted.due.is_empty() { Vec::new() } else { outgoing(&mut tx, &claimed, &sorted.due).await? };
    tx.commit().await?;
    let carried = carry(carrier, &outgoing).await;
    let mut tx = pools.begin().await?;
    for no in sorted.over.iter().chain(sorted.expired.iter().map(|task| &task.no)) {
        sqlx::query(GONE).bind(no).execute(&mut *tx).await?;
    }
    let mut events = mark_published(&mut tx, &carried, now).await?;
    let expired = expire(&mut tx, &sorted, now, &mut events).await?;
    tx.commit().await?;
    // What was parked, or had ended, is none of the carrier's business.
    let claimed = sorted.due.len() + expired;
    Ok(Drained { events, claimed, carried: carried.len(), expired })
}

async fn claim(tx: &mut Tx, now: Time, settle: Duration, limit: i64) -> Result<Vec<Claimed>, Error> {
    let rows = sqlx::query(DUE).bind(now.0).bind(now.minus(settle).0).bind(limit).fetch_all(&mut **tx).await?;
    rows.iter()
        .map(|row| {
            Ok(Claimed { task_no: row.try_get(0)?, accepted_at: Time(row.try_get(1)?), paused: row.try_get(2)? })
        })
        .collect()
}

/// What a pass found, by what is to be done with it.
#[derive(Default)]
struct Sorted {
    due: Vec<Task>,
    expired: Vec<Task>,
    parked: Vec<Task>,
    /// Ended meanwhile in another way.
    over: Vec<i64>,
}

async fn sort(tx: &mut Tx, claimed: &[Claimed], now: Time) -> Result<Sorted, Error> {
    let numbers: Vec<i64> = claimed.iter().map(|row| row.task_no).collect();
    let found = rows::tasks(&sqlx::query(TASKS).bind(list(&numbers)).fetch_all(&mut **tx).await?)?;
    let mut by_no: HashMap<i64, Task> = found.into_iter().map(|task| (task.no, task)).collect();
    let mut sorted = Sorted::default();
    for row in claimed {
        match by_no.remove(&row.task_no) {
            None => sorted.over.push(row.task_no),
            Some(task) if task.phase.is_final() => sorted.over.push(row.task_no),
            Some(task) if task.expires_at.is_some_and(|at| at <= now) && task.phase.is_ours() => {
                sorted.expired.push(task)
            }
            Some(task) if row.paused => sorted.parked.push(task),
            Some(task) => sorted.due.push(task),
        }
    }
    Ok(sorted)
}

/// Returns the numbers of those that are certainly in the broker.
async fn carry(carrier: &dyn Carrier, outgoing: &[Outgoing]) -> Vec<i64> {
    if outgoing.is_empty() {
        return Vec::new();
    }
    tokio::time::timeout(CARRY, carrier.carry(outgoing)).await.unwrap_or_default()
}

async fn outgoing(tx: &mut Tx, claimed: &[Claimed], due: &[Task]) -> Result<Vec<Outgoing>, Error> {
    let numbers: Vec<i64> = due.iter().map(|task| task.no).collect();
    let mut messages = HashMap::with_capacity(numbers.len());
    for row in sqlx::query(MESSAGES).bind(list(&numbers)).fetch_all(&mut **tx).await? {
        messages
            .insert(row.try_get::<i64, _>(0)?, (row.try_get::<Option<String>, _>(1)?, row.try_get::<String, _>(2)?));
    }
    let mut canvases = groups::of_canvases(tx, due).await?;
    let accepted: HashMap<i64, Time> = claimed.iter().map(|row| (row.task_no, row.accepted_at)).collect();
    let alone: Arc<[NewGroup]> = Arc::from([]);
    due.iter()
        .map(|task| {
            let (headers, body) = messages.remove(&task.no).ok_or_else(|| corrupt(task, "message"))?;
            Ok(Outgoing {
                no: task.no,
                id: task.id.clone(),
                name: TaskName::parse(task.name.as_deref().unwrap_or_default()).map_err(|_| corrupt(task, "name"))?,
                queue: QueueName::parse(task.queue.as_deref().unwrap_or_default())
                    .map_err(|_| corrupt(task, "queue"))?,
                priority: task.priority,
                delivery: task.delivery,
                headers: headers.ok_or_else(|| corrupt(task, "headers"))?,
                body,
                accepted_at: accepted.get(&task.no).copied().unwrap_or(task.submitted_at),
                expires_at: task.expires_at,
                groups: task
                    .root_id
                    .as_ref()
                    .and_then(|root| canvases.get_mut(root))
                    .map_or_else(|| alone.clone(), |g| g.clone()),
            })
        })
        .collect()
}

fn corrupt(task: &Task, column: &'static str) -> Error {
    Error::Corrupt { table: "outbox", column, row: task.no.to_string() }
}

/// Ends what came too late and parks what is paused. Returns how many expired.
async fn expire(tx: &mut Tx, sorted: &Sorted, now: Time, events: &mut Vec<Event>) -> Result<usize, Error> {
    let both: Vec<&TaskId> = sorted.expired.iter().chain(&sorted.parked).map(|task| &task.id).collect();
    if both.is_empty() {
        return Ok(0);
    }
    let mut book = Book::new(learn::load(tx, &both).await?);
    for task in &sorted.expired {
        let reason = Some("expires passed before it was published".to_owned());
        book.learn(&News { reason, ..News::new(task.id.clone(), Source::Ledger, Phase::Expired, now) });
    }
    for task in &sorted.parked {
        if book.phase(&task.id).is_some_and(|phase| phase == Phase::Accepted) {
            book.place(&task.id, Phase::Held, Some("its queue is paused"), now);
        }
    }
    let parked: Vec<i64> = sorted.parked.iter().map(|task| task.no).collect();
    sqlx::query(PARK).bind(list(&parked)).execute(&mut **tx).await?;
    save::save(tx, &mut book).await?;
    events.append(&mut book.events);
    Ok(sorted.expired.len())
}

pub(super) async fn backlog(pool: &SqlitePool, now: Time) -> Result<Backlog, Error> {
    let row = sqlx::query(BACKLOG).bind(now.0).fetch_one(pool).await?;
    let next: Option<i64> = sqlx::query(NEXT_DUE).bind(now.0).fetch_one(pool).await?.try_get(0)?;
    Ok(Backlog {
        due: row.try_get(0)?,
        oldest: row.try_get::<Option<i64>, _>(1)?.map(Time),
        next_due: next.filter(|&at| at != i64::MAX).map(Time),
    })
}

pub(super) async fn withdraw(pools: &Pools, id: &TaskId, news: News) -> Result<Withdrawn, Error> {
    let mut tx = pools.begin().await?;
    let taken = sqlx::query(TAKE).bind(id.as_str()).execute(&mut *tx).await?.rows_affected() == 1;
    let Some(task) = learn::load(&mut tx, &[id]).await?.pop() else { return Ok(Withdrawn::Unknown) };
    if task.phase.is_final() {
        tx.rollback().await?;
        return Ok(Withdrawn::Finished(Box::new(task)));
    }
    if !task.phase.is_ours() || (!taken && task.phase != Phase::Waiting) {
        tx.rollback().await?;
        return Ok(Withdrawn::Published(Box::new(task)));
    }
    let mut book = Book::new(vec![task]);
    book.learn(&news);
    save::save(&mut tx, &mut book).await?;
    tx.commit().await?;
    Ok(Withdrawn::Done(book.events))
}

pub(super) async fn requeue(pools: &Pools, id: &TaskId, reason: &str, at: Time) -> Result<Option<Event>, Error> {
    let mut tx = pools.begin().await?;
    sqlx::query(TAKE).bind(id.as_str()).execute(&mut *tx).await?;
    let Some(task) = learn::load(&mut tx, &[id]).await?.pop() else { return Ok(None) };
    let has_message: bool = sqlx::query(HAS_MESSAGE).bind(task.no).fetch_one(&mut *tx).await?.try_get(0)?;
    if task.phase.is_final() || !has_message {
        tx.rollback().await?;
        return Ok(None);
    }
    let (no, queue) = (task.no, task.queue.clone().unwrap_or_default());
    let mut book = Book::new(vec![task]);
    if let Some(entry) = book.entry_mut(id) {
        entry.task.redeliver();
    }
    book.place(id, Phase::Accepted, Some(reason), at);
    save::save(&mut tx, &mut book).await?;
    sqlx::query(REMEMBER).bind(no).bind(at.0).bind(at.0).bind(queue).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(book.events.pop())
}
