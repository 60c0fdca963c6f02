//! Writes what a [`Book`] holds: changed tasks, the small tables that follow a task's phase, events.

use sqlx::Row;

use crate::Error;
use crate::book::{Book, Entry};
use crate::rows::{clean, labels_text, options_text};
use crate::{Event, Task};
use celery::task::{Phase, TaskId};

use super::notify;
use super::pool::Tx;

/// All that a batch of transitions changes, in one round trip: the tasks, the small tables that follow their phases, the events,
/// and the word to other replicas.
///
/// `$1` numbers, then one array per column of the task; `$23` numbers of tasks that stand elsewhere now (`$39` at a worker, `$40`
/// behind a predecessor), `$24` numbers and `$25` ids of those that ended, `$26` the number of events that this transaction wrote before, then one array per column of the event,
/// `$38` the notification. Result, failure and traceback are written only with a new outcome, progress and children only when
/// there are new ones: they may be large and are not loaded for a transition.
pub(super) const TRANSITION: &str = "with moved as (update taskgate.task t set phase = n.phase, status = n.status, seq = n.seq, \
     delivery = n.delivery, retries = n.retries, worker = n.worker, queued_at = n.queued_at, received_at = n.received_at, \
     started_at = n.started_at, finished_at = n.finished_at, due_at = n.due_at, runtime = n.runtime, \
     corrected = n.corrected, reason = n.reason, \
     progress = coalesce(n.progress, t.progress), children = coalesce(n.children, t.children), \
     result = case when n.outcome then n.result else t.result end, \
     failure_type = case when n.outcome then n.failure_type else t.failure_type end, \
     failure_message = case when n.outcome then n.failure_message else t.failure_message end, \
     traceback = case when n.outcome then n.traceback else t.traceback end \
     from unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::int[], $6::int[], $7::text[], $8::bigint[], \
     $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::float8[], $14::bool[], $15::text[], $16::text[], \
     $17::text[], $18::bool[], $19::text[], $20::text[], $21::text[], $22::text[]) as n(task_no, phase, status, seq, delivery, \
     retries, worker, queued_at, received_at, started_at, finished_at, due_at, runtime, corrected, reason, progress, \
     children, outcome, result, failure_type, failure_message, traceback) where t.task_no = n.task_no), \
     stands as (update taskgate.unfinished u set at_worker = s.at_worker, waits = s.waits \
     from unnest($23::bigint[], $39::bool[], $40::bool[]) as s(task_no, at_worker, waits) where u.task_no = s.task_no), \
     ended as (delete from taskgate.unfinished where task_no = any($24::bigint[])), \
     let_go as (delete from taskgate.gate_hold where task_no = any($24)), \
     freed as (delete from taskgate.unique_key where task_id = any($25::text[]) and expires_at = 9223372036854775807), \
     told as (insert into taskgate.event (feed, task_no, seq, at, delivery, retries, corrected, phase, status, \
     worker, reason, meta) \
     select (pg_current_xact_id()::text::bigint << 20) + l.feed_offset + $26::bigint + e.place, e.task_no, e.seq, e.at, \
     e.delivery, e.retries, e.corrected, e.phase, e.status, e.worker, e.reason, e.meta \
     from unnest($27::bigint[], $28::bigint[], $29::bigint[], $30::int[], $31::int[], $32::bool[], $33::text[], \
     $34::text[], $35::text[], $36::text[], $37::text[]) with ordinality \
     as e(task_no, seq, at, delivery, retries, corrected, phase, status, worker, reason, meta, place), taskgate.ledger l) \
     select pg_notify('taskgate', p.payload) from (values ($38::text)) as p(payload) where p.payload is not null";

pub(super) const COMPLETE: &str = "update taskgate.task t set name = n.name, queue = n.queue, root_id = n.root_id, \
     parent_id = n.parent_id, group_id = n.group_id, argsrepr = n.argsrepr, kwargsrepr = n.kwargsrepr \
     from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[]) \
     as n(task_no, name, queue, root_id, parent_id, group_id, argsrepr, kwargsrepr) where t.task_no = n.task_no";

/// Answers nothing when the id was taken meanwhile.
pub(super) const ADOPT: &str = "insert into taskgate.task (task_no, submitted_at, seq, delivery, retries, priority, \
     ignore_result, adopted, corrected, task_id, phase, status, name, queue, root_id, parent_id, group_id, argsrepr, \
     kwargsrepr, finished_at, labels, options) \
     select nextval('taskgate.task_no'), $1, 1, 1, 0, $2, false, true, false, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, \
     $13, $14, $15 where not exists (select 1 from taskgate.tombstone where task_id = $3) \
     on conflict (task_id) do nothing returning task_no";

pub(super) const START_UNFINISHED: &str =
    "insert into taskgate.unfinished (task_no) select unnest($1::bigint[]) on conflict do nothing";

pub(super) const TROUBLE: &str = "insert into taskgate.trouble (task_no, phase, dead) \
     select n.task_no, n.phase, n.phase in ('failed', 'lost') from unnest($1::bigint[], $2::text[]) as n(task_no, phase) \
     on conflict (task_no) do update set phase = excluded.phase, dead = excluded.dead";

pub(super) const NO_TROUBLE: &str = "delete from taskgate.trouble where task_no = any($1)";

/// Writes all of it and tells the other replicas. The rows are locked by the caller, or new; `written` events of this transaction
/// came before.
pub(super) async fn save(tx: &mut Tx, replica: &str, book: &mut Book, written: i64) -> Result<(), Error> {
    adopt(tx, book).await?;
    let touched: Vec<&Entry> = book.entries.iter().filter(|entry| entry.touched).collect();
    if touched.is_empty() {
        return Ok(());
    }
    transition(tx, replica, &touched, &book.events, written).await?;
    complete(tx, &touched).await?;
    rare(tx, &touched).await
}

/// Inserts new tasks. One that another replica adopted meanwhile is dropped with its events: the other's news counts.
async fn adopt(tx: &mut Tx, book: &mut Book) -> Result<(), Error> {
    let mut gone = Vec::new();
    let mut order: Vec<usize> = (0..book.entries.len()).filter(|&index| book.entries[index].new).collect();
    // In one order on every replica, so that two of them never wait for each other.
    order.sort_by(|&a, &b| book.entries[a].task.id.cmp(&book.entries[b].task.id));
    let mut numbers = Vec::with_capacity(order.len());
    for index in order {
        let entry = &mut book.entries[index];
        let task = &entry.task;
        let number: Option<i64> = sqlx::query(ADOPT)
            .bind(task.submitted_at.0)
            .bind(i16::from(task.priority.get()))
            .bind(task.id.as_str())
            .bind(task.phase.as_str())
            .bind(&task.status)
            .bind(&task.name)
            .bind(&task.queue)
            .bind(task.root_id.as_ref().map(TaskId::as_str))
            .bind(task.parent_id.as_ref().map(TaskId::as_str))
            .bind(task.group_id.as_ref().map(celery::task::GroupId::as_str))
            .bind(&task.argsrepr)
            .bind(&task.kwargsrepr)
            .bind(task.finished_at.map(|at| at.0))
            .bind(labels_text(&task.labels))
            .bind(options_text(&task.options))
            .fetch_optional(&mut **tx)
            .await?
            .map(|row| row.try_get(0))
            .transpose()?;
        match number {
            Some(number) => {
                entry.task.no = number;
                numbers.push(number);
            }
            None => gone.push(entry.task.id.clone()),
        }
    }
    book.forget(&gone);
    book.number_events();
    if !numbers.is_empty() {
        sqlx::query(START_UNFINISHED).bind(numbers).execute(&mut **tx).await?;
    }
    Ok(())
}

async fn transition(
    tx: &mut Tx,
    replica: &str,
    entries: &[&Entry],
    events: &[Event],
    written: i64,
) -> Result<(), Error> {
    let tasks = || entries.iter().map(|entry| &entry.task);
    let failure = |task: &Task, message: bool| {
        task.failure.as_ref().map(|failure| if message { failure.message.clone() } else { failure.kind.clone() })
    };
    let moved = || {
        let is_moved = |entry: &&&Entry| {
            let phase = entry.task.phase;
            !phase.is_final() && (entry.new || place(entry.before) != place(phase))
        };
        entries.iter().filter(is_moved).map(|entry| &entry.task)
    };
    let ended = || {
        let is_over = |entry: &&&Entry| entry.task.phase.is_final() && (entry.new || !entry.before.is_final());
        entries.iter().filter(is_over).map(|entry| &entry.task)
    };
    sqlx::query(TRANSITION)
        .bind(tasks().map(|task| task.no).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.phase.as_str()).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.status.as_str()).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.seq).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.delivery).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.retries).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.worker.as_deref()).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.queued_at.map(|at| at.0)).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.received_at.map(|at| at.0)).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.started_at.map(|at| at.0)).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.finished_at.map(|at| at.0)).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.due_at.map(|at| at.0)).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.runtime).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.corrected).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.reason.as_deref()).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.progress.as_ref().map(|json| json.get())).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.children.as_ref().map(|json| json.get())).collect::<Vec<_>>())
        .bind(entries.iter().map(|entry| entry.outcome).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.result.as_ref().map(|json| json.get())).collect::<Vec<_>>())
        .bind(tasks().map(|task| failure(task, false)).collect::<Vec<_>>())
        .bind(tasks().map(|task| failure(task, true)).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.traceback.as_deref()).collect::<Vec<_>>())
        .bind(moved().map(|task| task.no).collect::<Vec<_>>())
        .bind(ended().map(|task| task.no).collect::<Vec<_>>())
        .bind(ended().map(|task| task.id.as_str()).collect::<Vec<_>>())
        .bind(written)
        .bind(events.iter().map(|event| event.task_no).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.seq).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.at.0).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.delivery).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.retries).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.corrected).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.phase.as_str()).collect::<Vec<_>>())
        .bind(events.iter().map(|event| clean(&event.status)).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.worker.as_deref()).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.reason.as_deref()).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.meta.as_ref().map(|json| json.get())).collect::<Vec<_>>())
        .bind(notify::payload(replica, events))
        .bind(moved().map(|task| place(task.phase).0).collect::<Vec<_>>())
        .bind(moved().map(|task| place(task.phase).1).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// What was learnt of adopted tasks' names.
async fn complete(tx: &mut Tx, entries: &[&Entry]) -> Result<(), Error> {
    let adopted: Vec<&Task> = entries.iter().filter(|e| e.task.adopted && !e.new).map(|e| &e.task).collect();
    if adopted.is_empty() {
        return Ok(());
    }
    sqlx::query(COMPLETE)
        .bind(adopted.iter().map(|task| task.no).collect::<Vec<_>>())
        .bind(adopted.iter().map(|task| task.name.as_deref()).collect::<Vec<_>>())
        .bind(adopted.iter().map(|task| task.queue.as_deref()).collect::<Vec<_>>())
        .bind(adopted.iter().map(|task| task.root_id.as_ref().map(TaskId::as_str)).collect::<Vec<_>>())
        .bind(adopted.iter().map(|task| task.parent_id.as_ref().map(TaskId::as_str)).collect::<Vec<_>>())
        .bind(adopted.iter().map(|task| task.group_id.as_ref().map(celery::task::GroupId::as_str)).collect::<Vec<_>>())
        .bind(adopted.iter().map(|task| task.argsrepr.as_deref()).collect::<Vec<_>>())
        .bind(adopted.iter().map(|task| task.kwargsrepr.as_deref()).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Where an unfinished task stands: at a worker, or behind a predecessor.
fn place(phase: Phase) -> (bool, bool) {
    (phase.is_at_worker(), phase == Phase::Waiting)
}

/// What seldom happens: an end is bad, or turns out to be good.
async fn rare(tx: &mut Tx, entries: &[&Entry]) -> Result<(), Error> {
    let numbers = |wanted: &dyn Fn(&Entry) -> bool| -> Vec<i64> {
        entries.iter().filter(|entry| wanted(entry)).map(|entry| entry.task.no).collect()
    };
    let is_trouble = |entry: &Entry| {
        let phase = entry.task.phase;
        phase.is_final() && phase != Phase::Succeeded && (entry.new || entry.before != phase)
    };
    let troubled = numbers(&is_trouble);
    if !troubled.is_empty() {
        let phases: Vec<&str> =
            entries.iter().filter(|entry| is_trouble(entry)).map(|entry| entry.task.phase.as_str()).collect();
        sqlx::query(TROUBLE).bind(troubled).bind(phases).execute(&mut **tx).await?;
    }
    let healed = numbers(&|entry| entry.before.is_final() && entry.task.phase == Phase::Succeeded && !entry.new);
    if !healed.is_empty() {
        sqlx::query(NO_TROUBLE).bind(healed).execute(&mut **tx).await?;
    }
    Ok(())
}
