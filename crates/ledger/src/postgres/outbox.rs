//! The outbox: tasks that wait to be published or were left behind by the direct path, passes over it, and removals without publication.
//!
//! Lock order everywhere: outbox rows first, then tasks. A pass holds its rows while the carrier publishes, so a withdrawal waits and then
//! finds the task published, or comes first and the pass does not see the row.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::Row;

use crate::applied::Applied;
use crate::change::was_taken;
use crate::limits::Rules;
use crate::line_reads;
use crate::lines::Lines;
use crate::passing::{self, Due, Passed};
use crate::rate_gates::{RateGate, Stopped, gates_of};
use crate::statements::statements;
use crate::{
    Backlog, Carrier, Drained, Error, Event, NewGroup, News, Outgoing, REFUSED_FOR, Source, Task, headers, refusal,
};
use celery::task::{Phase, QueueName, TaskId, TaskName};
use runtime::clock::Time;

use super::columns::{between, fact_columns, standing, state_columns};
use super::pool::{self, Tx};
use super::{
    Store, control, gather, groups, learn, limits, lines, numbers, publication, rate_gates, rows, save, tasks,
};

/// Timeout of the carrier. After it an unknown part is published: the rows stay, and the broker's markers prevent duplicates.
const CARRY: Duration = Duration::from_secs(10);

statements! {
    GONE = "delete from taskgate.outbox where task_no = any($1)";
    /// One pass at a time over all replicas.
    ALONE = "select pg_try_advisory_xact_lock(7310319, 1)";
    /// `$1` now, `$2` accepted before, `$3` limit. Tasks that were held at first are on no replica's direct path.
    DUE = "select task_no, accepted_at, gate, gate_max from taskgate.outbox \
         where wake_at <= $1 and (accepted_at <= $2 or wake_at > accepted_at) order by wake_at, task_no limit $3 \
         for update skip locked";
    /// As [`DUE`], for these rows.
    THESE = "select task_no, accepted_at, gate, gate_max from taskgate.outbox \
         where task_no = any($1) order by task_no for update skip locked";
    TASKS = concat!(
        "select ",
        fact_columns!(),
        ", ",
        state_columns!(),
        " from ",
        standing!(light, "$2", "$3"),
        " where t.task_no = any($1) and ",
        between!("$2", "$3"),
        " order by t.task_no"
    );
    MESSAGES = concat!(
        "select t.task_no, t.headers, t.body from taskgate.task t where t.task_no = any($1) and ",
        between!("$2", "$3")
    );
    /// Rows of a paused queue sleep until it is resumed, or until they expire.
    PARK = "update taskgate.outbox o set parked = n.queue, gate = null, gate_max = null, \
         line = null, rank = null, share = null, wake_at = n.wake_at \
         from unnest($1::bigint[], $2::text[], $3::bigint[]) as n(task_no, queue, wake_at) where o.task_no = n.task_no";
    /// Rows that must not be published now sleep until these times.
    SLEEP = "update taskgate.outbox o set line = null, rank = null, share = null, \
         wake_at = n.wake_at from unnest($1::bigint[], $2::bigint[]) as n(task_no, wake_at) \
         where o.task_no = n.task_no";
    BACKLOG = "select count(*), min(accepted_at) from taskgate.outbox where wake_at <= $1";
    NEXT_DUE = "select min(wake_at) from taskgate.outbox where wake_at > $1";
    /// Locks the outbox rows of these tasks.
    LOCK = "select task_no from taskgate.outbox where task_no = any($1) order by task_no for update";
    /// `$2` now. Not on any replica's direct path: see [`DUE`].
    REMEMBER = "insert into taskgate.outbox (task_no, wake_at, accepted_at) select n.task_no, $2 + 1, $2 from unnest($1::bigint[]) as n(task_no)";
    /// `$2` and `$3` bound the numbers.
    WITH_MESSAGES = concat!(
        "select t.task_no from taskgate.task t where t.task_no = any($1) and ",
        between!("$2", "$3"),
        " and t.headers is not null and t.body is not null"
    );
}

struct Claimed {
    task_no: i64,
    accepted_at: Time,
    gate: Option<String>,
    gate_max: Option<i32>,
}

pub(super) async fn drain(
    store: &Store,
    now: Time,
    settle: Duration,
    limit: i64,
    carrier: &dyn Carrier,
) -> Result<Drained, Error> {
    gather_left_behind(store, now, settle).await?;
    let mut tx = pool::begin(&store.pool).await?;
    if !sqlx::query(ALONE).fetch_one(&mut *tx).await?.try_get::<bool, _>(0)? {
        tx.rollback().await?;
        return Ok(Drained::default());
    }
    let rules = limits::rules(&mut tx).await?;
    let waiting = rate_gates::waiting(&mut tx).await?;
    let mut lines = line_reads::load(&mut lines::Read(&mut tx), carrier, limit).await?;
    let waits = Drained {
        waiting: !waiting.is_empty(),
        in_line: lines.is_waiting,
        dry: lines.is_dry,
        again: !lines.empty().is_empty(),
        next_opening: waiting.iter().filter_map(|one| one.opening(carrier, &rules)).min(),
        ..Drained::default()
    };
    let open = waiting.into_iter().filter(|one| one.is_open(now, carrier, &rules));
    let open: Vec<String> = open.map(|one| one.gate).collect();
    let heads = rate_gates::first(&mut tx, &open).await?;
    let claimed = claim(&mut tx, &heads, &lines.picked(), now, settle, limit).await?;
    if claimed.is_empty() && !waits.again {
        tx.rollback().await?;
        return Ok(waits);
    }
    let mut sorted = sort(&mut tx, &claimed, now, carrier).await?;
    let passed = pass(&mut tx, &mut sorted, &claimed, &heads, &mut lines, &rules, now, carrier).await?;
    let mut carried = carry(&mut tx, carrier, &claimed, &passed.due).await?;
    carried.extend(sorted.taken.iter().map(|task| task.no));
    let resumed = let_go(&mut tx, &mut sorted).await?.then_some(now);
    let next_opening = [waits.next_opening, passed.passes.opening, resumed].into_iter().flatten().min();
    let mut gone = sorted.over.clone();
    gone.extend(sorted.expired.iter().map(|task| task.no));
    sqlx::query(GONE).bind(&gone).execute(&mut *tx).await?;
    let mut events = publication::carried(&mut tx, store, &carried, now).await?;
    // A quick task may be ending in another transaction. Its row is locked now, so that transaction is over or comes later.
    let Passed { due, stopped, entering, windowed, passes } = passed;
    rate_gates::settle(&mut tx, passes.settled(&carried, now)).await?;
    let occupied: Vec<(i64, String)> = windowed.into_iter().filter(|(no, _)| carried.contains(no)).collect();
    lines::settle(&mut tx, &lines, &carried, &occupied, &entering).await?;
    let expired = expire(&mut tx, store, &sorted, &stopped, now, &mut events).await?;
    tx.commit().await?;
    Ok(Drained {
        events,
        // Parked, stopped and ended rows do not concern the carrier.
        claimed: due.len() + sorted.taken.len() + expired,
        carried: carried.len(),
        expired,
        waiting: waits.waiting || !stopped.is_empty(),
        in_line: waits.in_line || !entering.is_empty(),
        next_opening,
        ..waits
    })
}

/// Searches for unpublished tasks, but not in every pass: they are at least two seconds old.
async fn gather_left_behind(store: &Store, now: Time, settle: Duration) -> Result<(), Error> {
    const AGAIN_MICROS: i64 = 250_000;
    let cut = now.minus(settle).0;
    if settle > Duration::ZERO && (0..AGAIN_MICROS).contains(&(cut - store.gathered.load(Ordering::Relaxed))) {
        return Ok(());
    }
    gather::gather(&store.pool, now, settle).await?;
    store.gathered.store(cut, Ordering::Relaxed);
    Ok(())
}

/// Claims rows: first those picked from lines, in that order; then those that wait longest at open gates, and due ones, by acceptance.
async fn claim(
    tx: &mut Tx,
    heads: &[(String, i64)],
    picked: &[i64],
    now: Time,
    settle: Duration,
    limit: i64,
) -> Result<Vec<Claimed>, Error> {
    let mut rows = Vec::new();
    if !heads.is_empty() || !picked.is_empty() {
        let numbers: Vec<i64> = heads.iter().map(|(_, task_no)| *task_no).chain(picked.iter().copied()).collect();
        rows = sqlx::query(THESE).bind(numbers).fetch_all(&mut **tx).await?;
    }
    rows.extend(sqlx::query(DUE).bind(now.0).bind(now.minus(settle).0).bind(limit).fetch_all(&mut **tx).await?);
    let mut seen = HashSet::new();
    let claimed = |row: &sqlx::postgres::PgRow| {
        Ok(Claimed {
            task_no: row.try_get(0)?,
            accepted_at: Time(row.try_get(1)?),
            gate: row.try_get(2)?,
            gate_max: row.try_get(3)?,
        })
    };
    let mut claimed = rows.iter().map(claimed).collect::<Result<Vec<_>, Error>>()?;
    claimed.retain(|one| seen.insert(one.task_no));
    if !heads.is_empty() || !picked.is_empty() {
        let places: HashMap<i64, usize> = picked.iter().enumerate().map(|(place, no)| (*no, place)).collect();
        claimed.sort_by_key(|one| (places.get(&one.task_no).copied().unwrap_or(usize::MAX), one.task_no));
    }
    Ok(claimed)
}

/// The rows of a pass, by what must be done with them.
#[derive(Default)]
struct Sorted {
    due: Vec<Task>,
    expired: Vec<Task>,
    parked: Vec<Task>,
    /// Tasks that must not be published now, with the reason.
    refused: Vec<(Task, String)>,
    /// Tasks that were published despite the row: a worker has this delivery.
    taken: Vec<Task>,
    /// Tasks that ended meanwhile.
    over: Vec<i64>,
}

async fn sort(tx: &mut Tx, claimed: &[Claimed], now: Time, carrier: &dyn Carrier) -> Result<Sorted, Error> {
    let numbers: Vec<i64> = claimed.iter().map(|row| row.task_no).collect();
    let (low, high) = numbers::span(&numbers);
    let found = sqlx::query(TASKS).bind(&numbers).bind(low).bind(high).fetch_all(&mut **tx).await?;
    let found = rows::tasks(&found)?;
    let paused = sqlx::query(control::PAUSED).fetch_all(&mut **tx).await?;
    let paused = paused.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<String>, _>>()?;
    let is_paused = |task: &Task| task.queue.as_ref().is_some_and(|queue| paused.contains(queue));
    let mut by_no: HashMap<i64, Task> = found.into_iter().map(|task| (task.no, task)).collect();
    let mut sorted = Sorted::default();
    for row in claimed {
        match by_no.remove(&row.task_no) {
            None => sorted.over.push(row.task_no),
            Some(task) if task.phase.is_final() => sorted.over.push(row.task_no),
            // The direct path published it late, after it was put into the outbox.
            Some(task) if task.phase == Phase::Queued => sorted.over.push(row.task_no),
            Some(task) if task.expires_at.is_some_and(|at| at <= now) && task.phase.is_ours() => {
                sorted.expired.push(task)
            }
            Some(task) if was_taken(&task, row.accepted_at) => sorted.taken.push(task),
            Some(task) if is_paused(&task) => sorted.parked.push(task),
            Some(task) => match refusal(carrier, &task) {
                Some(why) => sorted.refused.push((task, why)),
                None => sorted.due.push(task),
            },
        }
    }
    Ok(sorted)
}

/// Does not park tasks whose queue was resumed while the carrier published, because nothing would wake them. Returns whether there are
/// such tasks; the next pass takes them.
async fn let_go(tx: &mut Tx, sorted: &mut Sorted) -> Result<bool, Error> {
    if sorted.parked.is_empty() {
        return Ok(false);
    }
    let paused = control::still_paused(tx).await?;
    let before = sorted.parked.len();
    sorted.parked.retain(|task| task.queue.as_ref().is_some_and(|queue| paused.contains(queue)));
    Ok(sorted.parked.len() < before)
}

/// Applies limits and windows.
#[expect(clippy::too_many_arguments, reason = "all that a pass has loaded")]
async fn pass(
    tx: &mut Tx,
    sorted: &mut Sorted,
    claimed: &[Claimed],
    heads: &[(String, i64)],
    lines: &mut Lines,
    rules: &Rules,
    now: Time,
    carrier: &dyn Carrier,
) -> Result<Passed, Error> {
    let mut gate_of: HashMap<i64, (String, Option<i32>)> = HashMap::new();
    for row in claimed {
        gate_of.extend(row.gate.clone().map(|gate| (row.task_no, (gate, row.gate_max))));
    }
    let due = std::mem::take(&mut sorted.due).into_iter();
    let due: Vec<Due> = due.map(|task| Due::new(gate_of.remove(&task.no), task, carrier, rules)).collect();
    let taken = sorted.taken.iter().map(|task| (task.no, gates_of(task, carrier, rules)));
    let taken: Vec<(i64, Vec<RateGate>)> = taken.collect();
    let named = due.iter().flat_map(|one| &one.gates).chain(taken.iter().flat_map(|(_, gates)| gates));
    let before = rate_gates::load(tx, named).await?;
    let queues = passing::windows(&due, lines, carrier);
    lines::open(tx, lines, &queues).await?;
    Ok(passing::let_through(due, taken, before, heads, lines, carrier, now))
}

/// Publishes tasks; returns the numbers of those that are certainly in the broker.
async fn carry(tx: &mut Tx, carrier: &dyn Carrier, claimed: &[Claimed], due: &[Task]) -> Result<Vec<i64>, Error> {
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let outgoing = outgoing(tx, claimed, due).await?;
    Ok(tokio::time::timeout(CARRY, carrier.carry(&outgoing)).await.unwrap_or_default())
}

async fn outgoing(tx: &mut Tx, claimed: &[Claimed], due: &[Task]) -> Result<Vec<Outgoing>, Error> {
    let numbers: Vec<i64> = due.iter().map(|task| task.no).collect();
    let (low, high) = numbers::span(&numbers);
    let mut messages = HashMap::with_capacity(numbers.len());
    for row in sqlx::query(MESSAGES).bind(&numbers).bind(low).bind(high).fetch_all(&mut **tx).await? {
        messages.insert(
            row.try_get::<i64, _>(0)?,
            (row.try_get::<Option<String>, _>(1)?, row.try_get::<Option<String>, _>(2)?),
        );
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
                queue: QueueName::stored(task.queue.as_deref().unwrap_or_default())
                    .map_err(|_| corrupt(task, "queue"))?,
                spread: task.options.spread.clone(),
                priority: task.priority,
                delivery: task.delivery,
                headers: headers::unpack(
                    &headers.ok_or_else(|| corrupt(task, "headers"))?,
                    task.id.as_str(),
                    task.name.as_deref().unwrap_or_default(),
                ),
                body: body.ok_or_else(|| corrupt(task, "body"))?,
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

/// Ends expired tasks, parks paused ones, puts refused ones to sleep and records stopped ones. Returns how many expired.
async fn expire(
    tx: &mut Tx,
    store: &Store,
    sorted: &Sorted,
    stopped: &[Stopped],
    now: Time,
    events: &mut Vec<Event>,
) -> Result<usize, Error> {
    let refused = sorted.refused.iter().map(|(task, _)| task);
    let ids = sorted.expired.iter().chain(&sorted.parked).chain(refused).map(|task| &task.id);
    let moved: Vec<&Stopped> = stopped.iter().filter(|one| !one.is_there).collect();
    let both: Vec<&TaskId> = ids.chain(moved.iter().map(|one| &one.id)).collect();
    if both.is_empty() {
        return Ok(0);
    }
    let mut applied = Applied::new(learn::lock(tx, &both).await?);
    for task in &sorted.expired {
        let reason = Some("expires passed before it was published".to_owned());
        applied.learn(&News { reason, ..News::new(task.id.clone(), Source::Ledger, Phase::Expired, now) });
    }
    for task in &sorted.parked {
        if applied.phase(&task.id).is_some_and(|phase| phase == Phase::Accepted) {
            applied.place(&task.id, Phase::Held, Some("its queue is paused"), now);
        }
    }
    for (task, why) in &sorted.refused {
        if applied.phase(&task.id).is_some_and(|phase| phase == Phase::Accepted) {
            applied.place(&task.id, Phase::Held, Some(why), now);
        }
    }
    for one in &moved {
        if applied.phase(&one.id).is_some_and(|phase| phase == Phase::Accepted) {
            applied.place(&one.id, Phase::Held, Some(&one.reason()), now);
        }
    }
    rate_gates::stop(tx, &moved).await?;
    let until = |task: &Task, end: Time| task.expires_at.map_or(end, |at| at.min(end)).0;
    sqlx::query(PARK)
        .bind(sorted.parked.iter().map(|task| task.no).collect::<Vec<_>>())
        .bind(sorted.parked.iter().map(|task| task.queue.as_deref().unwrap_or_default()).collect::<Vec<_>>())
        .bind(sorted.parked.iter().map(|task| until(task, Time(i64::MAX))).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    sqlx::query(SLEEP)
        .bind(sorted.refused.iter().map(|(task, _)| task.no).collect::<Vec<_>>())
        .bind(sorted.refused.iter().map(|(task, _)| until(task, now.plus(REFUSED_FOR))).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    save::save(tx, store, &mut applied, events.len() as i64).await?;
    events.append(&mut applied.events);
    Ok(sorted.expired.len())
}

pub(super) async fn backlog(store: &Store, now: Time) -> Result<Backlog, Error> {
    let pool = &store.pool;
    let row = sqlx::query(BACKLOG).bind(now.0).fetch_one(pool).await?;
    let next: Option<i64> = sqlx::query(NEXT_DUE).bind(now.0).fetch_one(pool).await?.try_get(0)?;
    Ok(Backlog {
        due: row.try_get::<i64, _>(0)? + store.outside.count(pool, now).await?,
        oldest: row.try_get::<Option<i64>, _>(1)?.map(Time),
        next_due: next.filter(|&at| at != i64::MAX).map(Time),
    })
}

pub(super) async fn requeue(
    store: &Store,
    asked: &[(TaskId, i64)],
    reason: &str,
    at: Time,
) -> Result<Vec<Event>, Error> {
    let ids: Vec<&TaskId> = asked.iter().map(|(id, _)| id).collect();
    let mut tx = pool::begin(&store.pool).await?;
    let places = tasks::numbers_of(&mut tx, &numbers::keys(ids.iter().copied())).await?;
    sqlx::query(LOCK).bind(places.into_values().collect::<Vec<_>>()).execute(&mut *tx).await?;
    let mut found = learn::lock(&mut tx, &ids).await?;
    let numbers: Vec<i64> = found.iter().map(|task| task.no).collect();
    let (low, high) = numbers::span(&numbers);
    let with_messages = sqlx::query(WITH_MESSAGES).bind(numbers).bind(low).bind(high).fetch_all(&mut *tx).await?;
    let with_messages = with_messages.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<i64>, _>>()?;
    found.retain(|task| with_messages.contains(&task.no));
    let (mut applied, places) = Applied::requeued(found, asked, reason, at);
    let numbers: Vec<i64> = places.into_iter().map(|(number, _)| number).collect();
    sqlx::query(GONE).bind(&numbers).execute(&mut *tx).await?;
    save::save(&mut tx, store, &mut applied, 0).await?;
    sqlx::query(REMEMBER).bind(numbers).bind(at.0).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(applied.events)
}

pub(super) async fn remark(store: &Store, ids: &[TaskId], reason: &str, at: Time) -> Result<Vec<Event>, Error> {
    let mut tx = pool::begin(&store.pool).await?;
    let mut applied = Applied::new(learn::lock(&mut tx, &ids.iter().collect::<Vec<_>>()).await?);
    for id in ids {
        applied.remark(id, reason, at);
    }
    save::save(&mut tx, store, &mut applied, 0).await?;
    tx.commit().await?;
    Ok(applied.events)
}
