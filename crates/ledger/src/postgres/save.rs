//! Writes the contents of an [`Applied`]: present or final states of tasks, their histories, the feed.

use std::collections::{HashMap, HashSet};

use sqlx::Row;

use crate::applied::{Applied, Entry};
use crate::derived;
use crate::history;
use crate::rows::{labels_text, options_text};
use crate::statements::statements;
use crate::{Error, Event, Task};
use celery::task::{GroupId, Phase, TaskId};

use super::pool::Tx;
use super::{Store, notify, numbers, ordinary};

statements! {
    /// Writes all changes of a batch of transitions in one round trip: states, histories, the feed, and the notification of other replicas.
    /// Returns how many rows were found as expected.
    ///
    /// Parameters: `$1` numbers, then one array for each column of the task. `$22` whether the row stays in `flight` or moves to `ended`. `$23`
    /// its new events. `$24` the `seq` that a row without a lock must still have. `$25` numbers and `$26` ids of tasks that ended. `$27` how
    /// many events this transaction wrote before. `$28` indexes, `$29` times and `$30` bytes of rows of the feed. `$31` the notification. `$32`
    /// whether all events can be derived from the columns, so that a null history stays null; `$33` if not, the events that were derived until
    /// now. `$34` numbers of tasks that are no longer in the broker.
    ///
    /// Failure and traceback are written only with a new outcome, progress and children only if there are new ones: they may be large and
    /// are not loaded for a transition. A long history continues in the table `history`. A row is found by its number and changed at its `ctid`,
    /// whatever the planner believes of the table's size: a row that another transaction moved is not counted. `xmin` is compared too, because
    /// PostgreSQL before November 2025 follows such a row without checking its `ctid` again.
    /// Only rows that were really changed or removed go on into `history` and `ended`: if another transaction has ended the task meanwhile, its
    /// row is there already.
    TRANSITION = "with n as materialized (select n.*, f.* from unnest($1::bigint[], $2::text[], $3::text[], $4::int[], \
         $5::int[], $6::int[], $7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::float8[], $13::bool[], \
         $14::text[], $15::text[], $16::text[], $17::bool[], $18::text[], $19::text[], $20::text[], $21::text[], $22::smallint[], \
         $23::bytea[], $24::int[], $32::bool[], $33::bytea[]) as n(task_no, phase, status, seq, delivery, retries, worker, queued_at, received_at, started_at, \
         finished_at, runtime, corrected, reason, progress, children, outcome, result, failure_type, failure_message, traceback, move, \
         events, assumed, is_plain, derived) cross join lateral (select f.ctid as place, f.xmin as version, f.seq as old_seq, f.revoke_requested_at, f.retried_as, \
         f.queued_at as old_queued_at, f.progress as old_progress, f.children as old_children, f.history as old_history \
         from taskgate.flight f where f.task_no = n.task_no \
         and (n.assumed is null or (f.seq = n.assumed and f.revoke_requested_at is null)) offset 0) f), \
         moved as (update taskgate.flight f set phase = n.phase, status = n.status, seq = n.seq, delivery = n.delivery, \
         retries = n.retries, worker = n.worker, \
         queued_at = case when n.assumed is null then n.queued_at else coalesce(n.queued_at, n.old_queued_at) end, \
         received_at = n.received_at, started_at = n.started_at, runtime = n.runtime, corrected = n.corrected, reason = n.reason, \
         at_worker = n.phase in ('received', 'running', 'retrying'), waits = n.phase = 'waiting', \
         progress = coalesce(n.progress, f.progress), children = coalesce(n.children, f.children), \
         failure_type = case when n.outcome then n.failure_type else f.failure_type end, \
         failure_message = case when n.outcome then n.failure_message else f.failure_message end, \
         traceback = case when n.outcome then n.traceback else f.traceback end, \
         history = case when octet_length(n.old_history) > 2000 then n.events when n.old_history is null and n.is_plain then null \
         else coalesce(n.old_history, n.derived, '') || n.events end \
         from n where f.ctid = n.place and f.xmin = n.version and n.move = 0 returning n.task_no, n.old_seq, n.old_history), \
         gone as (delete from taskgate.flight f using n where f.ctid = n.place and f.xmin = n.version and n.move = 1 returning n.*), \
         piece as (insert into taskgate.history (task_no, last_seq, events) select d.task_no, d.old_seq, d.old_history \
         from (select m.task_no, m.old_seq, m.old_history from moved m union all select g.task_no, g.old_seq, g.old_history from gone g) d \
         where octet_length(d.old_history) > 2000), \
         over as (insert into taskgate.ended (task_no, queued_at, received_at, started_at, finished_at, revoke_requested_at, runtime, \
         seq, delivery, retries, corrected, dead, phase, status, worker, reason, retried_as, failure_type, failure_message, traceback, \
         progress, children, history, result) select n.task_no, \
         case when n.assumed is null then n.queued_at else coalesce(n.queued_at, n.old_queued_at) end, n.received_at, n.started_at, \
         n.finished_at, n.revoke_requested_at, n.runtime, n.seq, n.delivery, n.retries, n.corrected, n.phase in ('failed', 'lost'), \
         n.phase, n.status, n.worker, n.reason, n.retried_as, n.failure_type, n.failure_message, n.traceback, \
         coalesce(n.progress, n.old_progress), coalesce(n.children, n.old_children), \
         case when octet_length(n.old_history) > 2000 then n.events when n.old_history is null and n.is_plain then null \
         else coalesce(n.old_history, n.derived, '') || n.events end, n.result \
         from gone n), \
         let_go as (delete from taskgate.gate_hold where task_no = any($25::bigint[])), \
         taken as (delete from taskgate.window_slot where task_no = any($34::bigint[])), \
         freed as (delete from taskgate.unique_key where task_id = any($26::text[]) and expires_at = 9223372036854775807), \
         told as (insert into taskgate.feed (pos, at, events) \
         select (pg_current_xact_id()::text::bigint << 20) + l.feed_offset + $27::bigint + p.place, p.at, p.events \
         from unnest($28::bigint[], $29::bigint[], $30::bytea[]) as p(place, at, events), taskgate.ledger l) \
         select (select count(*) from moved) + (select count(*) from gone) as done, \
         case when $31::text is not null then cast(pg_notify('taskgate', $31) as text) end as told";
    /// The same for tasks that had ended before, which is rare: `$1` to `$21` as above, `$22` events, `$23` and `$24` bounds of the numbers,
    /// `$25` like `$33` above.
    AGAIN = "update taskgate.ended e set phase = n.phase, status = n.status, seq = n.seq, delivery = n.delivery, \
         retries = n.retries, worker = n.worker, queued_at = n.queued_at, received_at = n.received_at, started_at = n.started_at, \
         finished_at = n.finished_at, runtime = n.runtime, corrected = n.corrected, reason = n.reason, \
         dead = case when e.phase = n.phase then e.dead else n.phase in ('failed', 'lost') end, \
         progress = coalesce(n.progress, e.progress), children = coalesce(n.children, e.children), \
         result = case when n.outcome then n.result else e.result end, \
         failure_type = case when n.outcome then n.failure_type else e.failure_type end, \
         failure_message = case when n.outcome then n.failure_message else e.failure_message end, \
         traceback = case when n.outcome then n.traceback else e.traceback end, history = coalesce(e.history, n.derived, '') || n.events \
         from unnest($1::bigint[], $2::text[], $3::text[], $4::int[], \
         $5::int[], $6::int[], $7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::float8[], $13::bool[], \
         $14::text[], $15::text[], $16::text[], $17::bool[], $18::text[], $19::text[], $20::text[], $21::text[], $22::bytea[], $25::bytea[]) \
         as n(task_no, phase, status, seq, delivery, retries, worker, queued_at, received_at, started_at, finished_at, \
         runtime, corrected, reason, progress, children, outcome, result, failure_type, failure_message, traceback, events, derived) \
         where e.task_no = n.task_no and e.task_no = any($1) and e.task_no >> 32 >= $23 and e.task_no >> 32 < $24";
    COMPLETE = "update taskgate.task t set kind_no = n.kind_no, root_id = n.root_id, \
         parent_id = n.parent_id, group_id = n.group_id, argsrepr = n.argsrepr, kwargsrepr = n.kwargsrepr, priority = n.priority \
         from unnest($1::bigint[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::smallint[]) \
         as n(task_no, kind_no, root_id, parent_id, group_id, argsrepr, kwargsrepr, priority) where t.task_no = n.task_no";
    /// Inserts an adopted task; [`TRANSITION`] then writes its state. Returns no row if the id is taken or was pruned.
    ADOPT = "with new as (insert into taskgate.task (task_no, submitted_at, id, given_id, kind_no, priority, \
         ignore_result, adopted, root_id, parent_id, group_id, argsrepr, kwargsrepr, labels, options) \
         select nextval('taskgate.task_no'), $1, $2, $3, $4, $5, false, true, $6, $7, $8, $9, $10, $11, $12 \
         where taskgate.pruned_at($2) is null and not exists (select 1 from taskgate.task t where t.id = $2) \
         on conflict do nothing returning task_no) \
         insert into taskgate.flight (task_no, seq, delivery, retries, phase) select task_no, 1, 1, 0, 'queued' from new returning task_no";
}

/// What happens to a row: it stays in flight, it ends, or it had ended.
const STAYS: i16 = 0;
const ENDS: i16 = 1;
const HAD_ENDED: i16 = 2;

/// Events in one row of the feed.
pub(super) const FEED_ROW: usize = 1_000;

/// Writes the changes and notifies other replicas. The caller has locked the rows, or they are new; `written` is the number of events that
/// this transaction wrote before.
///
/// # Errors
/// Errors of the database, and [`Error::Refused`] when a row was not as expected.
pub(super) async fn save(tx: &mut Tx, store: &Store, applied: &mut Applied, written: i64) -> Result<(), Error> {
    if try_save(tx, store, applied, written).await? {
        return Ok(());
    }
    Err(Error::Refused("the row of a locked task was moved or deleted".into()))
}

/// As [`save`], also for tasks that were not locked. False when a row was not as assumed; then the caller must roll back.
pub(super) async fn try_save(tx: &mut Tx, store: &Store, applied: &mut Applied, written: i64) -> Result<bool, Error> {
    adopt(tx, store, applied).await?;
    let touched: Vec<&Entry> = applied.entries.iter().filter(|entry| entry.touched).collect();
    if touched.is_empty() {
        return Ok(true);
    }
    let is_done = transition(tx, store, &touched, &applied.events, written).await?;
    complete(tx, store, &touched).await?;
    Ok(is_done)
}

/// Inserts new tasks. A task that another replica adopted meanwhile is dropped with its events, because the other's news counts.
async fn adopt(tx: &mut Tx, store: &Store, applied: &mut Applied) -> Result<(), Error> {
    let mut gone = Vec::new();
    let mut order: Vec<usize> = (0..applied.entries.len()).filter(|&index| applied.entries[index].new).collect();
    // In the same order on every replica, to avoid deadlocks.
    order.sort_by(|&a, &b| applied.entries[a].task.id.cmp(&applied.entries[b].task.id));
    for index in order {
        let entry = &mut applied.entries[index];
        let task = &entry.task;
        let kind_no = store.kinds.numbers(&store.pool, &[pair(task)]).await?[0];
        let number: Option<i64> = sqlx::query(ADOPT)
            .bind(task.submitted_at.0)
            .bind(numbers::key(task.id.as_str()))
            .bind(numbers::given(&task.id))
            .bind(kind_no)
            .bind(i16::from(task.priority.get()))
            .bind(task.root_id.as_ref().map(TaskId::as_str))
            .bind(task.parent_id.as_ref().map(TaskId::as_str))
            .bind(task.group_id.as_ref().map(GroupId::as_str))
            .bind(&task.argsrepr)
            .bind(&task.kwargsrepr)
            .bind(labels_text(&task.labels))
            .bind(options_text(&task.options))
            .fetch_optional(&mut **tx)
            .await?
            .map(|row| row.try_get(0))
            .transpose()?;
        match number {
            Some(number) => entry.task.no = number,
            None => gone.push(entry.task.id.clone()),
        }
    }
    applied.forget(&gone);
    applied.number_events();
    Ok(())
}

/// Name and queue, empty if unknown.
fn pair(task: &Task) -> (&str, &str) {
    (task.name.as_deref().unwrap_or_default(), task.queue.as_deref().unwrap_or_default())
}

fn becomes(entry: &Entry) -> i16 {
    match (entry.task.phase.is_final(), entry.before.is_final() && !entry.new) {
        (false, _) => STAYS,
        (true, false) => ENDS,
        (true, true) => HAD_ENDED,
    }
}

async fn transition(
    tx: &mut Tx,
    store: &Store,
    entries: &[&Entry],
    events: &[Event],
    written: i64,
) -> Result<bool, Error> {
    let plain = plain(entries, events);
    let is_plain = |entry: &Entry| plain.contains(&entry.task.no);
    let (over, open): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(|entry| becomes(entry) == HAD_ENDED);
    let (usual, others): (Vec<&Entry>, Vec<&Entry>) =
        open.iter().partition(|entry| ordinary::is_ordinary(entry, is_plain(entry)));
    // The first statement sends the notification, so the second need not.
    let mut told = told(store, events, written);
    let mut done = 0;
    if !usual.is_empty() {
        done += ordinary::write(tx, &usual, std::mem::take(&mut told)).await?;
    }
    let mut histories = histories(events);
    if usual.is_empty() || !others.is_empty() {
        done += general(tx, &others, is_plain, &mut histories, told).await?;
    }
    if !over.is_empty() {
        again(tx, &over, &mut histories).await?;
    }
    Ok(done == i64::try_from(open.len()).unwrap_or(i64::MAX))
}

/// What a statement says about events: to the feed, and to other replicas, if there are any.
fn told(store: &Store, events: &[Event], written: i64) -> ordinary::Told {
    let changed = || notify::payload(&store.replica, events.iter().map(|event| &event.task_id));
    let word = if store.others.listen() { changed() } else { None };
    (written, feed_rows(events), word)
}

/// The changed tasks and what is told about them, if [`ordinary::write_alone`] can write all of it. A task whose publication is not recorded
/// yet is changed by that at this moment, and the server logs each statement that is undone, so such a task goes the other way.
pub(super) fn alone<'a>(store: &Store, applied: &'a Applied) -> Option<(Vec<&'a Entry>, ordinary::Told)> {
    let touched: Vec<&Entry> = applied.entries.iter().filter(|entry| entry.touched).collect();
    let plain = plain(&touched, &applied.events);
    let is_ordinary =
        |entry: &&Entry| !entry.was.phase.is_ours() && ordinary::is_ordinary(entry, plain.contains(&entry.task.no));
    let is_alone = !touched.is_empty() && touched.iter().all(is_ordinary);
    is_alone.then(|| (touched, told(store, &applied.events, 0)))
}

/// Writes tasks of which anything may have changed. Returns how many rows were at their expected places.
async fn general(
    tx: &mut Tx,
    open: &[&Entry],
    is_plain: impl Fn(&Entry) -> bool,
    histories: &mut HashMap<i64, Vec<u8>>,
    (written, (places, times, texts), word): ordinary::Told,
) -> Result<i64, Error> {
    let tasks = || open.iter().map(|entry| &entry.task);
    let ended = || open.iter().filter(|entry| becomes(entry) == ENDS).map(|entry| &entry.task);
    let out_of_broker = tasks().filter(|task| task.phase != Phase::Queued);
    let derived = |entry: &&Entry| if is_plain(entry) { None } else { Some(before(entry)) };
    let row = columns(sqlx::query(TRANSITION), open)
        .bind(open.iter().map(|entry| becomes(entry)).collect::<Vec<_>>())
        .bind(tasks().map(|task| histories.remove(&task.no).unwrap_or_default()).collect::<Vec<_>>())
        .bind(open.iter().map(|entry| entry.assumed.map(seq)).collect::<Vec<_>>())
        .bind(ended().map(|task| task.no).collect::<Vec<_>>())
        .bind(ended().map(|task| task.id.as_str()).collect::<Vec<_>>())
        .bind(written)
        .bind(places)
        .bind(times)
        .bind(texts)
        .bind(word)
        .bind(open.iter().map(|entry| is_plain(entry)).collect::<Vec<_>>())
        .bind(open.iter().map(derived).collect::<Vec<_>>())
        .bind(out_of_broker.map(|task| task.no).collect::<Vec<_>>())
        .fetch_one(&mut **tx)
        .await?;
    Ok(row.try_get(0)?)
}

/// Writes changes of tasks that had ended before.
async fn again(tx: &mut Tx, over: &[&Entry], histories: &mut HashMap<i64, Vec<u8>>) -> Result<(), Error> {
    let (low, high) = numbers::span(&over.iter().map(|entry| entry.task.no).collect::<Vec<_>>());
    columns(sqlx::query(AGAIN), over)
        .bind(over.iter().map(|entry| histories.remove(&entry.task.no).unwrap_or_default()).collect::<Vec<_>>())
        .bind(low)
        .bind(high)
        .bind(over.iter().map(|entry| before(entry)).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The tasks whose columns still determine all their events.
fn plain(entries: &[&Entry], events: &[Event]) -> HashSet<i64> {
    let mut by_task: HashMap<i64, Vec<&Event>> = HashMap::new();
    for event in events {
        by_task.entry(event.task_no).or_default().push(event);
    }
    let of = |entry: &Entry| by_task.get(&entry.task.no).map_or(&[][..], Vec::as_slice).iter().copied();
    entries.iter().filter(|entry| derived::is_derivable(entry, of(entry))).map(|entry| entry.task.no).collect()
}

/// The events that were derived from the task's columns until now, encoded.
fn before(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    derived::derived(&entry.was).unwrap_or_default().iter().for_each(|told| history::write_derived(&mut out, told));
    out
}

pub(super) fn seq(seq: i64) -> i32 {
    i32::try_from(seq).unwrap_or(i32::MAX)
}

type Statement<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// Binds the states of the tasks, one array per column.
fn columns<'q>(query: Statement<'q>, entries: &[&'q Entry]) -> Statement<'q> {
    let tasks = || entries.iter().map(|entry| &entry.task);
    let status = |task: &'q Task| Some(task.status.as_str()).filter(|status| *status != task.phase.status());
    query
        .bind(tasks().map(|task| task.no).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.phase.as_str()).collect::<Vec<_>>())
        .bind(tasks().map(status).collect::<Vec<_>>())
        .bind(tasks().map(|task| seq(task.seq)).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.delivery).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.retries).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.worker.as_deref()).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.queued_at.map(|at| at.0)).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.received_at.map(|at| at.0)).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.started_at.map(|at| at.0)).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.finished_at.map(|at| at.0)).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.runtime).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.corrected).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.reason.as_deref()).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.progress.as_ref().map(|json| json.get())).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.children.as_ref().map(|json| json.get())).collect::<Vec<_>>())
        .bind(entries.iter().map(|entry| entry.outcome).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.result.as_ref().map(|json| json.get())).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.failure.as_ref().map(|failure| failure.kind.as_str())).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.failure.as_ref().map(|failure| failure.message.as_str())).collect::<Vec<_>>())
        .bind(tasks().map(|task| task.traceback.as_deref()).collect::<Vec<_>>())
}

/// The new bytes of each task's history.
fn histories(events: &[Event]) -> HashMap<i64, Vec<u8>> {
    let mut all: HashMap<i64, Vec<u8>> = HashMap::new();
    for event in events {
        history::write(all.entry(event.task_no).or_default(), event);
    }
    all
}

/// Indexes, times and bytes of the new rows of the feed.
fn feed_rows(events: &[Event]) -> (Vec<i64>, Vec<i64>, Vec<Vec<u8>>) {
    let (mut places, mut times, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for (index, row) in events.chunks(FEED_ROW).enumerate() {
        let mut text = Vec::with_capacity(row.len() * 32);
        let mut before = None;
        for event in row {
            history::write_told(&mut text, event, before);
            before = event.worker.as_deref();
        }
        places.push(i64::try_from(index * FEED_ROW).unwrap_or(i64::MAX) + 1);
        times.push(row.iter().map(|event| event.at.0).max().unwrap_or_default());
        texts.push(text);
    }
    (places, times, texts)
}

/// Writes new data of adopted tasks: names, queues, priorities, parents and groups.
async fn complete(tx: &mut Tx, store: &Store, entries: &[&Entry]) -> Result<(), Error> {
    let adopted: Vec<&Task> = entries.iter().filter(|e| e.task.adopted && !e.new).map(|e| &e.task).collect();
    if adopted.is_empty() {
        return Ok(());
    }
    let pairs: Vec<(&str, &str)> = adopted.iter().map(|task| pair(task)).collect();
    sqlx::query(COMPLETE)
        .bind(adopted.iter().map(|task| task.no).collect::<Vec<_>>())
        .bind(store.kinds.numbers(&store.pool, &pairs).await?)
        .bind(adopted.iter().map(|task| task.root_id.as_ref().map(TaskId::as_str)).collect::<Vec<_>>())
        .bind(adopted.iter().map(|task| task.parent_id.as_ref().map(TaskId::as_str)).collect::<Vec<_>>())
        .bind(adopted.iter().map(|task| task.group_id.as_ref().map(GroupId::as_str)).collect::<Vec<_>>())
        .bind(adopted.iter().map(|task| task.argsrepr.as_deref()).collect::<Vec<_>>())
        .bind(adopted.iter().map(|task| task.kwargsrepr.as_deref()).collect::<Vec<_>>())
        .bind(adopted.iter().map(|task| i16::from(task.priority.get())).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    Ok(())
}
