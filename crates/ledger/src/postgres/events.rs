//! Histories of tasks, and the feed of all events.
//!
//! A feed position is (id of the writing transaction, index within it). It becomes visible when no older transaction of a ledger can
//! still commit, so a reader that continues after its last position misses nothing. A row of the feed has many events; a page may end
//! in the middle of a row.

use std::collections::HashMap;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments, PgExecutor, Postgres, QueryBuilder, Row};

use crate::derived::derived;
use crate::history::{self, Told};
use crate::rows::clean;
use crate::statements::statements;
use crate::{EVENTS_BYTES, Error, Event, Filter};
use celery::task::{Phase, TaskId};

use super::columns::{between, fact_columns, named, standing, state_columns};
use super::conditions;
use super::numbers::{self, ANYWHERE};
use super::pooled::Pool;
use super::rows::{self, Subject, subject_columns};

/// How many bytes of rows with many events are read at once.
const ROW_BYTES: i64 = 2 * EVENTS_BYTES;

statements! {
    /// `$1` the id's key; `$2` and `$3` bound the number.
    SUBJECT = concat!(
        "select ",
        subject_columns!(),
        " from taskgate.task t",
        named!(),
        "where t.id = $1 and ",
        between!("$2", "$3")
    );
    /// The pieces of a history that may have events after `$2`, oldest first, up to `$4` bytes. `$1` number, `$3` its day.
    HISTORY = "select events from (select p.last_seq, p.events, \
         sum(octet_length(p.events)) over (order by p.last_seq rows between unbounded preceding and 1 preceding) as before from (\
         select h.last_seq, h.events from taskgate.history h where h.task_no = $1 and h.task_no >> 32 = $3 and h.last_seq > $2 \
         union all select f.seq, f.history from taskgate.flight f where f.task_no = $1 and f.history is not null \
         union all select e.seq, e.history from taskgate.ended e \
         where e.task_no = $1 and e.task_no >> 32 = $3 and e.history is not null) p) q \
         where coalesce(q.before, 0) < $4 order by q.last_seq";
    /// The histories of tasks `$1`, in pieces; `$2` and `$3` bound their numbers, `$4` pieces at most.
    HISTORIES = "select p.task_no, p.events from (\
         select h.task_no, h.last_seq, h.events from taskgate.history h where h.task_no = any($1) and h.task_no >> 32 >= $2 and h.task_no >> 32 < $3 \
         union all select f.task_no, f.seq, f.history from taskgate.flight f where f.task_no = any($1) and f.history is not null \
         union all select e.task_no, e.seq, e.history from taskgate.ended e \
         where e.task_no = any($1) and e.task_no >> 32 >= $2 and e.task_no >> 32 < $3 and e.history is not null) p \
         order by p.task_no, p.last_seq limit $4";
    /// The end of the visible feed: the position of the oldest running transaction that may still add events.
    ///
    /// Transactions of other applications (also in other databases) take ids from the same counter and may stay open for hours. Their locks
    /// tell them apart: a transaction of the ledger locks a table of the schema before it gets an id and until it ends, so a running transaction
    /// without such a lock is not the ledger's. Locks on the inbox alone do not count: an application holds them until it commits its call, and
    /// the service that empties the inbox writes tasks in its own transactions. A transaction without any locks has just ended, and still
    /// counts. Use the answer in a later statement, which sees everything that has ended by then.
    FEED_END = "with held as materialized (\
         select locktype, transactionid, pid, relation, mode from pg_locks where granted \
         and (locktype = 'transactionid' or (locktype = 'relation' \
         and database = (select oid from pg_database where datname = current_database()) \
         and relation in (select oid from pg_class where relnamespace = 'taskgate'::regnamespace and relname not like 'inbox%')))), \
         here as (select pg_current_snapshot() as shot) \
         select (coalesce(min(running.id::text::bigint), max(pg_snapshot_xmax(here.shot)::text::bigint)) << 20) \
         + max(l.feed_offset) from here cross join taskgate.ledger l \
         left join lateral (select x.id from pg_snapshot_xip(here.shot) as x(id) where not exists (\
         select 1 from held own where own.locktype = 'transactionid' and own.transactionid = x.id::xid \
         and not exists (select 1 from held r where r.pid = own.pid and r.locktype = 'relation' \
         and r.mode in ('RowShareLock', 'RowExclusiveLock')))) running on true";
    NEWEST = "select pos, events from taskgate.feed where pos < $1 order by pos desc limit 1";
    /// Rows with events after `$1` and before `$2`: at most `$3` rows and `$4` bytes. The first row may begin before `$1`.
    ROWS = "select pos, events from (select pos, events, \
         sum(octet_length(events)) over (order by pos rows between unbounded preceding and 1 preceding) as before \
         from taskgate.feed where pos >= coalesce((select pos from taskgate.feed where pos <= $1 order by pos desc limit 1), 0) \
         and pos < $2 order by pos limit $3) as page where coalesce(before, 0) < $4 order by pos";
    /// `$1` numbers.
    SUBJECTS = concat!(
        "select ",
        subject_columns!(),
        " from taskgate.task t",
        named!(),
        "where t.task_no = any($1) and ",
        between!("$2", "$3")
    );
    /// The state of tasks `$1` without a history. Read in one snapshot: a history may begin between two reads, and then the columns no
    /// longer determine all events.
    PLAIN = concat!(
        "select ",
        fact_columns!(),
        ", ",
        state_columns!(),
        " from ",
        standing!(light, "$2", "$3"),
        " where t.task_no = any($1) and ",
        between!("$2", "$3"),
        " and not exists (select 1 from taskgate.flight h where h.task_no = t.task_no and h.history is not null) \
         and not exists (select 1 from taskgate.ended h where h.task_no = t.task_no and h.task_no >> 32 >= $2 \
         and h.task_no >> 32 < $3 and h.history is not null) order by t.task_no"
    );
}

const CHOSEN: &str = concat!(
    "select ",
    subject_columns!(),
    " from ",
    standing!(light, "$2", "$3"),
    " where t.task_no = any($1) and ",
    between!("$2", "$3")
);

/// An event of the feed, before its task is known.
pub(super) struct Entry {
    pub feed: i64,
    pub task_no: i64,
    pub told: Told,
}

/// A section of the feed.
#[derive(Default)]
pub(super) struct Stretch {
    pub entries: Vec<Entry>,
    /// The position of the last event; `None` when there is nothing new.
    pub end: Option<i64>,
}

pub(super) async fn events(pool: &Pool, id: &TaskId, after: i64, limit: i64) -> Result<Vec<Event>, Error> {
    let Some(subject) = subject(pool, id).await? else { return Ok(Vec::new()) };
    let no = subject.task_no;
    let mut found = pieces(pool, no, after).await?;
    let mut told: Vec<Told> = subject.submitted().into_iter().collect();
    if found.is_empty() {
        match said_by_columns(pool, &[no]).await?.remove(&no) {
            Some(said) => told.extend(said),
            // The first event to be stored came between the two reads.
            None => found = pieces(pool, no, after).await?,
        }
    }
    for row in &found {
        read_all(row.try_get(0)?, no, &mut told)?;
    }
    told.retain(|event| event.seq > after);
    let told = told.into_iter().take(usize::try_from(limit).unwrap_or(0));
    let mut budget = Budget::default();
    Ok(told.take_while(|told| budget.allows(told)).map(|told| subject.event(told, 0)).collect())
}

async fn pieces(pool: &Pool, no: i64, after: i64) -> Result<Vec<PgRow>, Error> {
    let query = sqlx::query(HISTORY).bind(no).bind(i32::try_from(after).unwrap_or(i32::MAX));
    Ok(query.bind(no >> 32).bind(ROW_BYTES).fetch_all(pool).await?)
}

/// Counts [`EVENTS_BYTES`] of progress reports; when they are used up, the page ends.
#[derive(Default)]
struct Budget(i64);

impl Budget {
    fn allows(&mut self, told: &Told) -> bool {
        let before = self.0;
        let length = told.meta.as_ref().map_or(0, |meta| meta.get().len());
        self.0 = before.saturating_add(i64::try_from(length).unwrap_or(i64::MAX));
        before < EVENTS_BYTES
    }
}

fn read_all(mut bytes: &[u8], task_no: i64, told: &mut Vec<Told>) -> Result<(), Error> {
    while !bytes.is_empty() {
        told.push(history::read(&mut bytes).map_err(|_| corrupt("history", task_no))?);
    }
    Ok(())
}

pub(super) fn corrupt(table: &'static str, row: i64) -> Error {
    Error::Corrupt { table, column: "events", row: row.to_string() }
}

async fn subject(pool: &Pool, id: &TaskId) -> Result<Option<Subject>, Error> {
    let key = numbers::key(id.as_str());
    for (low, high) in [numbers::place(&[key]), ANYWHERE] {
        let row = sqlx::query(SUBJECT).bind(key).bind(low).bind(high).fetch_optional(pool).await?;
        if let Some(row) = row {
            return rows::subject(&row).map(Some);
        }
    }
    Ok(None)
}

/// The events after the first, of tasks without a stored history.
async fn said_by_columns(pool: &Pool, task_nos: &[i64]) -> Result<HashMap<i64, Vec<Told>>, Error> {
    if task_nos.is_empty() {
        return Ok(HashMap::new());
    }
    let (low, high) = numbers::span(task_nos);
    let found = sqlx::query(PLAIN).bind(task_nos).bind(low).bind(high).fetch_all(pool).await?;
    let tasks = rows::tasks(&found)?;
    Ok(tasks.iter().filter_map(|task| Some((task.no, derived(task)?))).collect())
}

/// The histories of these tasks, task by task, up to `limit` pieces.
pub(super) async fn histories(pool: &Pool, task_nos: &[i64], limit: i64) -> Result<Vec<Event>, Error> {
    let (low, high) = numbers::span(task_nos);
    let mut by_task: HashMap<i64, Vec<Told>> = HashMap::new();
    let found = read_histories(pool, task_nos, (low, high), limit, &mut by_task).await?;
    // A task cut off by the limit may still have a history.
    let is_cut = found >= limit;
    let last = by_task.keys().max().copied().filter(|_| is_cut).unwrap_or(i64::MAX);
    let without = task_nos.iter().copied().filter(|no| *no <= last && !by_task.contains_key(no));
    let mut without: Vec<i64> = without.collect();
    let said = said_by_columns(pool, &without).await?;
    without.retain(|no| !said.contains_key(no));
    by_task.extend(said);
    if !without.is_empty() {
        // These tasks got stored histories between the reads.
        read_histories(pool, &without, (low, high), limit, &mut by_task).await?;
    }
    let subjects = subjects(pool, task_nos).await?;
    let mut order: Vec<&Subject> = subjects.values().collect();
    order.sort_by_key(|subject| subject.task_no);
    let history = |subject: &Subject| {
        let later = by_task.remove(&subject.task_no).unwrap_or_default();
        subject.submitted().into_iter().chain(later).map(|told| subject.event(told, 0)).collect::<Vec<_>>()
    };
    Ok(order.into_iter().flat_map(history).collect())
}

/// Reads up to `limit` pieces; returns how many there were.
async fn read_histories(
    pool: &Pool,
    task_nos: &[i64],
    (low, high): (i64, i64),
    limit: i64,
    by_task: &mut HashMap<i64, Vec<Told>>,
) -> Result<i64, Error> {
    let found = sqlx::query(HISTORIES).bind(task_nos).bind(low).bind(high).bind(limit).fetch_all(pool).await?;
    for row in &found {
        let task_no: i64 = row.try_get(0)?;
        read_all(row.try_get(1)?, task_no, by_task.entry(task_no).or_default())?;
    }
    Ok(i64::try_from(found.len()).unwrap_or(i64::MAX))
}

pub(super) async fn horizon(pool: &Pool) -> Result<i64, Error> {
    Ok(sqlx::query(FEED_END).fetch_one(pool).await?.try_get(0)?)
}

pub(super) async fn feed_end(pool: &Pool) -> Result<i64, Error> {
    let newest = sqlx::query(NEWEST).bind(horizon(pool).await?).fetch_optional(pool).await?;
    let Some(row) = newest else { return Ok(0) };
    let position: i64 = row.try_get(0)?;
    let mut bytes: &[u8] = row.try_get(1)?;
    let (mut count, mut worker) = (0, None);
    while !bytes.is_empty() {
        history::read_told(&mut bytes, &mut worker).map_err(|_| corrupt("feed", position))?;
        count += 1;
    }
    Ok(position + count - 1)
}

/// At most `limit` visible events after a position, fewer if their progress reports are large.
pub(super) async fn stretch(pool: &Pool, after: i64, limit: i64) -> Result<Stretch, Error> {
    let horizon = horizon(pool).await?;
    let rows_limit = limit.saturating_add(1);
    let found = sqlx::query(ROWS).bind(after).bind(horizon).bind(rows_limit).bind(ROW_BYTES).fetch_all(pool).await?;
    let (mut stretch, mut budget) = (Stretch::default(), Budget::default());
    for row in &found {
        let first: i64 = row.try_get(0)?;
        let (mut bytes, mut feed, mut worker): (&[u8], i64, _) = (row.try_get(1)?, first, None);
        while !bytes.is_empty() {
            let (task_no, told) = history::read_told(&mut bytes, &mut worker).map_err(|_| corrupt("feed", first))?;
            if feed > after {
                let is_full = i64::try_from(stretch.entries.len()).unwrap_or(i64::MAX) >= limit;
                if is_full || !budget.allows(&told) {
                    return Ok(stretch);
                }
                stretch.end = Some(feed);
                stretch.entries.push(Entry { feed, task_no, told });
            }
            feed += 1;
        }
    }
    Ok(stretch)
}

/// The tasks of events, by number; pruned ones are missing.
pub(super) async fn subjects(executor: impl PgExecutor<'_>, task_nos: &[i64]) -> Result<HashMap<i64, Subject>, Error> {
    if task_nos.is_empty() {
        return Ok(HashMap::new());
    }
    let (low, high) = numbers::span(task_nos);
    let found = sqlx::query(SUBJECTS).bind(task_nos).bind(low).bind(high).fetch_all(executor).await?;
    by_number(&found)
}

fn by_number(found: &[sqlx::postgres::PgRow]) -> Result<HashMap<i64, Subject>, Error> {
    found.iter().map(|row| rows::subject(row).map(|subject| (subject.task_no, subject))).collect()
}

/// The numbers of these entries' tasks, once each.
pub(super) fn task_nos<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<i64> {
    let mut numbers: Vec<i64> = entries.map(|entry| entry.task_no).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Reads `limit` events; returns the matching ones, and the position up to which it read.
pub(super) async fn feed(pool: &Pool, after: i64, filter: &Filter, limit: i64) -> Result<(Vec<Event>, i64), Error> {
    let Stretch { mut entries, end: Some(end) } = stretch(pool, after, limit).await? else {
        return Ok((Vec::new(), after));
    };
    entries.retain(|entry| is_wanted(&entry.told, filter));
    let numbers = task_nos(entries.iter());
    let subjects = chosen(pool, &numbers, filter).await?;
    let event = |entry: Entry| subjects.get(&entry.task_no).map(|subject| subject.event(entry.told, entry.feed));
    Ok((entries.into_iter().filter_map(event).collect(), end))
}

/// The tasks among these that match the filter.
async fn chosen(pool: &Pool, numbers: &[i64], filter: &Filter) -> Result<HashMap<i64, Subject>, Error> {
    if numbers.is_empty() || *filter == Filter::default() {
        return subjects(pool, numbers).await;
    }
    let span = numbers::span(numbers);
    let mut query = bounded(CHOSEN, numbers)?;
    conditions::on_task(&mut query, filter, span);
    by_number(&query.build().fetch_all(pool).await?)
}

/// Begins a statement whose first parameters are numbers and their bounds.
pub(super) fn bounded(statement: &'static str, numbers: &[i64]) -> Result<QueryBuilder<Postgres>, Error> {
    let (low, high) = numbers::span(numbers);
    let mut arguments = PgArguments::default();
    for added in [arguments.add(numbers.to_vec()), arguments.add(low), arguments.add(high)] {
        added.map_err(Error::Refused)?;
    }
    Ok(QueryBuilder::with_arguments(statement, arguments))
}

/// Whether an event matches the filter's conditions on the task's state at that time.
fn is_wanted(told: &Told, filter: &Filter) -> bool {
    let is_status = filter.status.is_empty() || filter.status.iter().any(|status| clean(status) == told.status);
    let is_phase = filter.phase.is_empty() || filter.phase.contains(&told.phase);
    let is_worker = filter.worker.is_empty()
        || told.worker.as_ref().is_some_and(|worker| filter.worker.iter().any(|wanted| clean(wanted) == *worker));
    let is_dead = !filter.dead_letters || matches!(told.phase, Phase::Failed | Phase::Lost);
    is_status && is_phase && is_worker && is_dead
}
