//! The outbox: tasks to publish, the passes over them, and rows that leave it in other ways.
//!
//! Two locks replace row locks: the writer's connection for each transaction, and `carrying` around a whole pass and around each
//! withdrawal. A pass must not keep the writer's connection while the carrier waits for the broker.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Row, SqlitePool};

use crate::applied::Applied;
use crate::change::was_taken;
use crate::limits::Rules;
use crate::line_reads;
use crate::lines::Lines;
use crate::passing::{self, Due, Passed};
use crate::rate_gates::{RateGate, Stopped, gates_of};
use crate::rows::light_task_columns;
use crate::statements::statements;
use crate::{
    Backlog, Carrier, Drained, Error, Event, NewGroup, News, Outgoing, REFUSED_FOR, Source, Task, Withdrawn, refusal,
};
use celery::task::{Phase, QueueName, TaskId, TaskName};
use runtime::clock::Time;

use super::pool::{Pools, Tx, list};
use super::{control, groups, learn, limits, lines, rate_gates, rows, save};

/// Timeout of the carrier. After it an unknown part is published: the rows stay, and the broker's markers prevent duplicates.
const CARRY: Duration = Duration::from_secs(10);

statements! {
    GONE = "delete from outbox where task_no = $1";
    PUBLISHED = "update task set queued_at = coalesce(queued_at, $2), seq = seq + (phase in ('accepted', 'held')), \
         reason = case when phase in ('accepted', 'held') then null else reason end, \
         phase = case when phase in ('accepted', 'held') then 'queued' else phase end where task_no = $1";
    /// `$1` now, `$2` accepted before, `$3` limit. Tasks that were held at first are not on the direct path.
    DUE = "select o.task_no, o.accepted_at, p.queue is not null as paused, o.gate, o.gate_max from outbox o \
         left join queue_pause p on p.queue = o.queue \
         where o.wake_at <= $1 and (o.accepted_at <= $2 or o.wake_at > o.accepted_at) order by o.wake_at, o.task_no limit $3";
    /// As [`DUE`], for these rows.
    THESE = "select o.task_no, o.accepted_at, p.queue is not null as paused, o.gate, o.gate_max from outbox o \
         left join queue_pause p on p.queue = o.queue \
         where o.task_no in (select value from json_each($1)) order by o.task_no";
    TASKS = concat!(
        "select ",
        light_task_columns!(),
        " from task t where t.task_no in (select value from json_each($1)) order by t.task_no"
    );
    MESSAGES =
        "select task_no, headers, body from message where task_no in (select value from json_each($1))";
    /// Rows of a paused queue sleep until it is resumed, or until they expire.
    PARK = "update outbox set parked = 1, gate = null, gate_max = null, \
         line = null, rank = null, share = null, wake_at = coalesce((select expires_at from task t \
         where t.task_no = outbox.task_no), 9223372036854775807) where task_no in (select value from json_each($1))";
    /// Rows that must not be published now sleep until `$2`, or until they expire.
    SLEEP = "update outbox set line = null, rank = null, share = null, wake_at = min($2, coalesce((select expires_at from task t \
         where t.task_no = outbox.task_no), $2)) where task_no in (select value from json_each($1))";
    BACKLOG = "select count(*), min(accepted_at) from outbox where wake_at <= $1";
    NEXT_DUE = "select min(wake_at) from outbox where wake_at > $1";
    TAKE = "delete from outbox where task_no = (select task_no from task where task_id = $1)";
    /// Not on the direct path: see [`DUE`].
    REMEMBER = "insert into outbox (task_no, wake_at, accepted_at, queue) values ($1, $2, $3, $4)";
    WITH_MESSAGES =
        "select task_no from message where task_no in (select value from json_each($1)) and headers is not null";
}

pub(super) async fn published(pools: &Pools, pushed: &[(i64, Time)]) -> Result<Vec<Event>, Error> {
    let mut tx = pools.begin().await?;
    let events = mark_published(&mut tx, pushed).await?;
    tx.commit().await?;
    Ok(events)
}

async fn mark_published(tx: &mut Tx, pushed: &[(i64, Time)]) -> Result<Vec<Event>, Error> {
    let mut events = Vec::with_capacity(pushed.len());
    let times: HashMap<i64, Time> = pushed.iter().copied().collect();
    let numbers: Vec<i64> = times.keys().copied().collect();
    let tasks = rows::tasks(&sqlx::query(TASKS).bind(list(&numbers)).fetch_all(&mut **tx).await?)?;
    for task in tasks {
        let at = times[&task.no];
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

/// Publications with the same time.
fn at_once(numbers: &[i64], at: Time) -> Vec<(i64, Time)> {
    numbers.iter().map(|no| (*no, at)).collect()
}

struct Claimed {
    task_no: i64,
    accepted_at: Time,
    paused: bool,
    gate: Option<String>,
    gate_max: Option<i32>,
}

pub(super) async fn drain(
    pools: &Pools,
    now: Time,
    settle: Duration,
    limit: i64,
    carrier: &dyn Carrier,
) -> Result<Drained, Error> {
    let mut tx = pools.read.begin().await?;
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
    let outgoing = if passed.due.is_empty() { Vec::new() } else { outgoing(&mut tx, &claimed, &passed.due).await? };
    tx.commit().await?;
    let mut carried = carry(carrier, &outgoing).await;
    carried.extend(sorted.taken.iter().map(|task| task.no));
    let mut tx = pools.begin().await?;
    let resumed = let_go(&mut tx, &mut sorted).await?.then_some(now);
    let next_opening = [waits.next_opening, passed.passes.opening, resumed].into_iter().flatten().min();
    let Passed { due, stopped, entering, windowed, passes } = passed;
    rate_gates::settle(&mut tx, passes.settled(&carried, now)).await?;
    for no in sorted.over.iter().chain(sorted.expired.iter().map(|task| &task.no)) {
        sqlx::query(GONE).bind(no).execute(&mut *tx).await?;
    }
    let mut events = mark_published(&mut tx, &at_once(&carried, now)).await?;
    let occupied: Vec<(i64, String)> = windowed.into_iter().filter(|(no, _)| carried.contains(no)).collect();
    lines::settle(&mut tx, &lines, &carried, &occupied, &entering).await?;
    let expired = expire(&mut tx, &sorted, &stopped, now, &mut events).await?;
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
        rows = sqlx::query(THESE).bind(list(&numbers)).fetch_all(&mut **tx).await?;
    }
    rows.extend(sqlx::query(DUE).bind(now.0).bind(now.minus(settle).0).bind(limit).fetch_all(&mut **tx).await?);
    let mut seen = HashSet::new();
    let claimed = |row: &sqlx::sqlite::SqliteRow| {
        Ok(Claimed {
            task_no: row.try_get(0)?,
            accepted_at: Time(row.try_get(1)?),
            paused: row.try_get(2)?,
            gate: row.try_get(3)?,
            gate_max: row.try_get(4)?,
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
            Some(task) if was_taken(&task, row.accepted_at) => sorted.taken.push(task),
            Some(task) if row.paused => sorted.parked.push(task),
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
                queue: QueueName::stored(task.queue.as_deref().unwrap_or_default())
                    .map_err(|_| corrupt(task, "queue"))?,
                spread: task.options.spread.clone(),
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

/// Ends expired tasks, parks paused ones, puts refused ones to sleep and records stopped ones. Returns how many expired.
async fn expire(
    tx: &mut Tx,
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
    let mut applied = Applied::new(learn::load(tx, &both).await?);
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
    let parked: Vec<i64> = sorted.parked.iter().map(|task| task.no).collect();
    sqlx::query(PARK).bind(list(&parked)).execute(&mut **tx).await?;
    let refused: Vec<i64> = sorted.refused.iter().map(|(task, _)| task.no).collect();
    sqlx::query(SLEEP).bind(list(&refused)).bind(now.plus(REFUSED_FOR).0).execute(&mut **tx).await?;
    save::save(tx, &mut applied).await?;
    events.append(&mut applied.events);
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
    if !task.phase.is_ours() || (!taken && task.phase != Phase::Waiting) || task.is_replaced() {
        tx.rollback().await?;
        return Ok(Withdrawn::Published(Box::new(task)));
    }
    let mut applied = Applied::new(vec![task]);
    applied.learn(&news);
    save::save(&mut tx, &mut applied).await?;
    tx.commit().await?;
    Ok(Withdrawn::Done(applied.events))
}

pub(super) async fn requeue(
    pools: &Pools,
    tasks: &[(TaskId, i64)],
    reason: &str,
    at: Time,
) -> Result<Vec<Event>, Error> {
    let mut tx = pools.begin().await?;
    let mut found = learn::load(&mut tx, &tasks.iter().map(|(id, _)| id).collect::<Vec<_>>()).await?;
    let numbers: Vec<i64> = found.iter().map(|task| task.no).collect();
    let with_messages = sqlx::query(WITH_MESSAGES).bind(list(&numbers)).fetch_all(&mut *tx).await?;
    let with_messages = with_messages.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<i64>, _>>()?;
    found.retain(|task| with_messages.contains(&task.no));
    let (mut applied, places) = Applied::requeued(found, tasks, reason, at);
    save::save(&mut tx, &mut applied).await?;
    for (no, queue) in places {
        sqlx::query(GONE).bind(no).execute(&mut *tx).await?;
        sqlx::query(REMEMBER).bind(no).bind(at.0.saturating_add(1)).bind(at.0).bind(queue).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(applied.events)
}

pub(super) async fn remark(pools: &Pools, ids: &[TaskId], reason: &str, at: Time) -> Result<Vec<Event>, Error> {
    let mut tx = pools.begin().await?;
    let mut applied = Applied::new(learn::load(&mut tx, &ids.iter().collect::<Vec<_>>()).await?);
    for id in ids {
        applied.remark(id, reason, at);
    }
    save::save(&mut tx, &mut applied).await?;
    tx.commit().await?;
    Ok(applied.events)
}
