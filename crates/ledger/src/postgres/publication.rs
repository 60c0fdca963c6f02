//! Records publications: deletes outbox rows, sets tasks to `queued`, and notifies other replicas.
//!
//! If a worker already has the task, its phase does not change; only the time of publication is added.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use sqlx::postgres::PgRow;
use sqlx::{PgExecutor, Row};

use crate::history::{self, Told};
use crate::statements::statements;
use crate::{Error, Event};
use celery::task::Phase;
use runtime::clock::Time;

use super::lane::Lane;
use super::pool::{Tx, is_deadlock};
use super::rows::Subject;
use super::save::FEED_ROW;
use super::{Store, events, notify, numbers};

statements! {
    /// `$1` numbers, ascending, each once, at most as many as a row of the feed has events; `$2` when each was pushed; `$3` the events' bytes
    /// before their time; `$4` the notification; `$5` whether the commit need not wait for the disk; `$6` the bytes for the feed if all tasks
    /// are moved from their first event on, which is nearly always so: otherwise the bytes are put together here; `$7` how many events this
    /// transaction wrote before. Outbox rows are deleted first, because all transactions lock them before tasks. A task that a worker
    /// already has is left to [`LATE`]. There is no join: each row finds its time by its index among the numbers.
    PUBLISHED = "with gone as (delete from taskgate.outbox where task_no = any($1::bigint[]) returning 1), \
         moved as (update taskgate.flight f set phase = 'queued', seq = f.seq + 1, reason = null, \
         queued_at = coalesce(f.queued_at, ($2::bigint[])[width_bucket(f.task_no, $1)]), \
         history = case when f.history is null and f.seq = 1 then null else coalesce(f.history, '') || int4send(f.seq + 1) || int2send(least(f.delivery, 32767)::int2) \
         || int2send(least(f.retries, 32767)::int2) || $3::bytea || int8send(($2::bigint[])[width_bucket(f.task_no, $1)]) end \
         where f.task_no = any($1) and f.phase in ('accepted', 'held') and (select count(*) from gone) >= 0 \
         returning f.task_no, f.seq, f.delivery, f.retries, ($2::bigint[])[width_bucket(f.task_no, $1)] as at), \
         written as (insert into taskgate.feed (pos, at, events) \
         select (pg_current_xact_id()::text::bigint << 20) + l.feed_offset + $7::bigint + 1, (select max(m.at) from moved m), \
         case when (select count(*) from moved m where m.seq = 2 and m.delivery = 1 and m.retries = 0) \
         = cardinality($1) then $6::bytea else (select string_agg(int8send(m.task_no) || int4send(m.seq) \
         || int2send(least(m.delivery, 32767)::int2) || int2send(least(m.retries, 32767)::int2) || $3 || int8send(m.at), '' \
         order by m.task_no) from moved m) end from taskgate.ledger l where exists (select 1 from moved)) \
         select m.task_no, m.seq, m.delivery, m.retries, m.at, \
         (select case when $5 then set_config('synchronous_commit', 'off', true) end) as mode, \
         (select case when $4::text is not null then cast(pg_notify('taskgate', $4) as text) end) as told from moved m";
    /// Adds the time of publication to tasks that a worker had before the publication was recorded.
    LATE = "with i as materialized (select * from unnest($1::bigint[], $2::bigint[]) as i(task_no, at)), \
         f as (insert into taskgate.flight as f (task_no, queued_at, seq, delivery, retries, phase) \
         select i.task_no, i.at, f.seq, f.delivery, f.retries, f.phase from i cross join lateral (select * from taskgate.flight f \
         where f.task_no = i.task_no and f.queued_at is null and f.phase not in ('accepted', 'held') for no key update) f \
         on conflict (task_no) do update set queued_at = excluded.queued_at) \
         update taskgate.ended e set queued_at = i.at from i where e.task_no = i.task_no and e.task_no = any($1) and e.queued_at is null \
         and e.task_no >> 32 >= $3 and e.task_no >> 32 < $4";
}

/// The commit does not wait for the disk: after a crash the task is `accepted` again, and the broker's marker prevents a second publication.
pub(super) async fn published(store: &Store, lane: &Lane, pushed: &[(i64, Time)]) -> Result<Vec<Event>, Error> {
    if pushed.is_empty() {
        return Ok(Vec::new());
    }
    let pushed = Pushed::new(store, pushed);
    let mut moved = Vec::with_capacity(pushed.numbers.len());
    for part in pushed.parts() {
        let some = match mark_alone(store, lane, &pushed, part.clone()).await {
            // The transaction lost a deadlock with steps of the same tasks, so it is repeated.
            Err(error) if is_deadlock(&error) => mark_alone(store, lane, &pushed, part).await,
            some => some,
        };
        moved.extend(some.inspect_err(|_| store.known.clear())?);
    }
    if let Some(late) = pushed.without(&moved)? {
        note_late(&store.pool, late).await?;
    }
    let unknown = pushed.unknown(&moved)?;
    let events = pushed.events(&moved, &events::subjects(&store.pool, &unknown).await?)?;
    store.known.note_queued(&events);
    Ok(events)
}

/// Records publications in a separate transaction.
async fn mark_alone(store: &Store, lane: &Lane, pushed: &Pushed, part: Range<usize>) -> Result<Vec<PgRow>, Error> {
    let Some(mut connection) = lane.take().await? else {
        return Ok(mark_published(&store.pool, store, pushed, part, true).await?);
    };
    let moved = lane.limited(mark_published(&mut *connection, store, pushed, part, true)).await;
    connection.keep(&moved);
    Ok(moved?)
}

/// Messages that are in the broker, by number, with the time of their push and what the cache has of them.
struct Pushed {
    numbers: Vec<i64>,
    times: Vec<i64>,
    known: HashMap<i64, Subject>,
}

/// Numbers of tasks, and the time of each push.
type Late = (Vec<i64>, Vec<i64>);

impl Pushed {
    fn new(store: &Store, pushed: &[(i64, Time)]) -> Self {
        let mut pushed = pushed.to_vec();
        pushed.sort_unstable_by_key(|(no, _)| *no);
        pushed.dedup_by_key(|(no, _)| *no);
        let (numbers, times): (Vec<i64>, Vec<i64>) = pushed.into_iter().map(|(no, at)| (no, at.0)).unzip();
        let known = store.known.subjects(&numbers);
        Self { numbers, times, known }
    }

    /// The parts that are written by one statement each.
    fn parts(&self) -> impl Iterator<Item = Range<usize>> {
        let count = self.numbers.len();
        (0..count).step_by(FEED_ROW).map(move |start| start..count.min(start + FEED_ROW))
    }

    /// The bytes of a row of the feed, if each of these tasks is moved from its first event on.
    fn feed_row(&self, part: Range<usize>) -> Vec<u8> {
        let mut row = Vec::with_capacity(part.len() * 32);
        for (no, at) in self.numbers[part.clone()].iter().zip(&self.times[part]) {
            history::write_second(&mut row, *no, Phase::Queued, Time(*at));
        }
        row
    }

    /// The notification for other replicas, if there are any.
    fn word(&self, store: &Store, part: Range<usize>) -> Option<String> {
        let replica = &store.replica;
        if !store.others.listen() {
            return None;
        }
        let ids = self.numbers[part].iter().map(|no| self.known.get(no).map(|subject| &subject.task_id));
        match ids.collect::<Option<Vec<_>>>() {
            Some(ids) => notify::payload(replica, ids.into_iter()),
            None => Some(notify::any(replica)),
        }
    }

    /// The tasks that were not set to `queued`.
    fn without(&self, moved: &[PgRow]) -> Result<Option<Late>, Error> {
        if moved.len() >= self.numbers.len() {
            return Ok(None);
        }
        let moved = moved.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<i64>, _>>()?;
        Ok(Some(self.numbers.iter().zip(&self.times).filter(|(no, _)| !moved.contains(no)).unzip()))
    }

    fn unknown(&self, moved: &[PgRow]) -> Result<Vec<i64>, Error> {
        let numbers = moved.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
        Ok(numbers.into_iter().filter(|no| !self.known.contains_key(no)).collect())
    }

    fn events(&self, moved: &[PgRow], read: &HashMap<i64, Subject>) -> Result<Vec<Event>, Error> {
        let event = |row: &PgRow| -> Result<Option<Event>, Error> {
            let (task_no, told): (i64, Told) = (row.try_get(0)?, told(row)?);
            let subject = self.known.get(&task_no).or_else(|| read.get(&task_no));
            Ok(subject.map(|subject| subject.event(told, 0)))
        };
        let mut events = moved.iter().filter_map(|row| event(row).transpose()).collect::<Result<Vec<_>, _>>()?;
        events.sort_unstable_by_key(|event| event.task_no);
        Ok(events)
    }
}

/// Writes the time of publication of tasks that a worker had before the publication was recorded.
async fn note_late(executor: impl PgExecutor<'_>, (numbers, times): Late) -> Result<(), Error> {
    let (low, high) = numbers::span(&numbers);
    sqlx::query(LATE).bind(&numbers).bind(&times).bind(low).bind(high).execute(executor).await?;
    Ok(())
}

async fn mark_published(
    executor: impl PgExecutor<'_>,
    store: &Store,
    pushed: &Pushed,
    part: Range<usize>,
    relaxed: bool,
) -> Result<Vec<PgRow>, sqlx::Error> {
    // A relaxed publication is a transaction by itself, the others follow each other in one.
    let written = if relaxed { 0 } else { i64::try_from(part.start).unwrap_or(i64::MAX) };
    let query = sqlx::query(PUBLISHED).bind(&pushed.numbers[part.clone()]).bind(&pushed.times[part.clone()]);
    let query = query.bind(history::head(Phase::Queued)).bind(pushed.word(store, part.clone())).bind(relaxed);
    query.bind(pushed.feed_row(part)).bind(written).fetch_all(executor).await
}

fn told(row: &PgRow) -> Result<Told, Error> {
    let phase = Phase::Queued;
    Ok(Told {
        seq: row.try_get::<i32, _>(1)?.into(),
        delivery: row.try_get(2)?,
        retries: row.try_get(3)?,
        phase,
        corrected: false,
        at: Time(row.try_get(4)?),
        status: phase.status().to_owned(),
        worker: None,
        reason: None,
        meta: None,
    })
}

/// Records publications in the transaction of the pass that made them.
pub(super) async fn carried(
    tx: &mut Tx,
    store: &Store,
    numbers: &[i64],
    now: Time,
    is_relaxed: bool,
) -> Result<Vec<Event>, Error> {
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let pushed = Pushed::new(store, &numbers.iter().map(|no| (*no, now)).collect::<Vec<_>>());
    let mut moved = Vec::with_capacity(pushed.numbers.len());
    for part in pushed.parts() {
        moved.extend(mark_published(&mut **tx, store, &pushed, part, is_relaxed).await?);
    }
    if let Some(late) = pushed.without(&moved)? {
        note_late(&mut **tx, late).await?;
    }
    let unknown = pushed.unknown(&moved)?;
    pushed.events(&moved, &events::subjects(&mut **tx, &unknown).await?)
}
