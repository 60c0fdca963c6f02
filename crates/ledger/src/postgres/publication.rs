//! What was published is written down: the outbox's rows go, tasks become `queued`, and other replicas hear of it.
//!
//! A task that a worker had before that stays where it is, and only the time of its publication is added.

use std::collections::HashSet;

use sqlx::postgres::PgRow;
use sqlx::{PgExecutor, Row};

use crate::history::{self, Told};
use crate::{Error, Event};
use celery::task::Phase;
use runtime::clock::Time;

use super::columns::{between, named};
use super::lane::Lane;
use super::pool::Tx;
use super::rows::{self, subject_columns};
use super::{Store, numbers};

/// `$1` numbers, ascending; `$2` when each was pushed, `$3` what its event says; `$4` what names this replica in the notification, `$5`
/// whether the commit need not wait for the disk; `$6` and `$7` bound the numbers. The rows of the outbox go first: everybody locks
/// them before tasks. A task that a worker has already is passed over: [`LATE`].
pub(super) const PUBLISHED: &str = concat!(
    "with gone as (delete from taskgate.outbox where task_no = any($1) returning 1), \
     e as materialized (select f.task_no, f.seq + 1 as seq, f.delivery, f.retries, i.at, \
     int4send(f.seq + 1) || int2send(least(f.delivery, 32767)::int2) || int2send(least(f.retries, 32767)::int2) || i.told as told \
     from unnest($1::bigint[], $2::bigint[], $3::bytea[]) as i(task_no, at, told) cross join lateral (select * from taskgate.flight f \
     where f.task_no = i.task_no and f.phase in ('accepted', 'held') for no key update) f where (select count(*) from gone) >= 0), \
     moved as (insert into taskgate.flight as f (task_no, queued_at, seq, delivery, retries, phase, history) \
     select task_no, at, seq, delivery, retries, 'queued', told from e on conflict (task_no) do update set phase = 'queued', \
     seq = excluded.seq, reason = null, queued_at = coalesce(f.queued_at, excluded.queued_at), \
     history = coalesce(f.history, '') || excluded.history), \
     written as (insert into taskgate.feed (pos, at, events) \
     select (pg_current_xact_id()::text::bigint << 20) + l.feed_offset + p.place, p.at, p.events from \
     (select min(r.place) as place, max(r.at) as at, string_agg(int8send(r.task_no) || r.told, '' order by r.place) as events \
     from (select e.*, row_number() over (order by e.task_no) as place from e) r group by (r.place - 1) / 1000) p, taskgate.ledger l), \
     n as materialized (select ",
    subject_columns!(),
    ", e.seq, e.delivery, e.retries, e.at from e cross join lateral (select * from taskgate.task t where t.task_no = e.task_no and ",
    between!("$6", "$7"),
    " offset 0) t",
    named!(),
    "), \
     word as (select pg_notify('taskgate', $4 || e'\\n' || case when sum(length(n.task_id) + 1) > 7800 then '*' \
     else string_agg(n.task_id, e'\\n') end), \
     case when $5 then set_config('synchronous_commit', 'off', true) end as mode from n having count(*) > 0) \
     select n.*, (select w.mode from word w) from n order by n.task_no"
);

/// The time of publication of tasks that a worker had before it was written down.
pub(super) const LATE: &str = "with i as materialized (select * from unnest($1::bigint[], $2::bigint[]) as i(task_no, at)), \
     f as (insert into taskgate.flight as f (task_no, queued_at, seq, delivery, retries, phase) \
     select i.task_no, i.at, f.seq, f.delivery, f.retries, f.phase from i cross join lateral (select * from taskgate.flight f \
     where f.task_no = i.task_no and f.queued_at is null and f.phase not in ('accepted', 'held') for no key update) f \
     on conflict (task_no) do update set queued_at = excluded.queued_at) \
     update taskgate.ended e set queued_at = i.at from i where e.task_no = i.task_no and e.task_no = any($1) and e.queued_at is null \
     and e.task_no >> 32 >= $3 and e.task_no >> 32 < $4";

/// Not durable: after a crash the row is still in the outbox, and the broker's marker turns its second publication away.
pub(super) async fn published(store: &Store, lane: &Lane, pushed: &[(i64, Time)]) -> Result<Vec<Event>, Error> {
    if pushed.is_empty() {
        return Ok(Vec::new());
    }
    let pushed = Pushed::new(pushed);
    let moved = match lane.take().await? {
        Some(mut connection) => {
            let moved = lane.limited(mark_published(&mut *connection, store, &pushed, true)).await;
            connection.keep(&moved);
            moved
        }
        None => mark_published(&store.pool, store, &pushed, true).await,
    };
    let events = events(&moved?)?;
    if let Some(late) = pushed.without(&events) {
        late.note(&store.pool).await?;
    }
    Ok(events)
}

/// Messages that are in the broker, by number, and since when.
struct Pushed {
    numbers: Vec<i64>,
    times: Vec<i64>,
}

impl Pushed {
    fn new(pushed: &[(i64, Time)]) -> Self {
        let mut pushed = pushed.to_vec();
        pushed.sort_unstable_by_key(|(no, _)| *no);
        let (numbers, times) = pushed.into_iter().map(|(no, at)| (no, at.0)).unzip();
        Self { numbers, times }
    }

    /// Those that the ledger did not move to `queued`.
    fn without(&self, events: &[Event]) -> Option<Self> {
        if events.len() >= self.numbers.len() {
            return None;
        }
        let moved: HashSet<i64> = events.iter().map(|event| event.task_no).collect();
        let late = self.numbers.iter().zip(&self.times).filter(|(no, _)| !moved.contains(no));
        let (numbers, times) = late.unzip();
        Some(Self { numbers, times })
    }

    async fn note(&self, executor: impl PgExecutor<'_>) -> Result<(), Error> {
        let (low, high) = numbers::span(&self.numbers);
        sqlx::query(LATE).bind(&self.numbers).bind(&self.times).bind(low).bind(high).execute(executor).await?;
        Ok(())
    }
}

async fn mark_published(
    executor: impl PgExecutor<'_>,
    store: &Store,
    pushed: &Pushed,
    relaxed: bool,
) -> Result<Vec<PgRow>, sqlx::Error> {
    let told: Vec<Vec<u8>> = pushed.times.iter().map(|at| history::body(Phase::Queued, Time(*at))).collect();
    let (low, high) = numbers::span(&pushed.numbers);
    let query = sqlx::query(PUBLISHED).bind(&pushed.numbers).bind(&pushed.times).bind(told);
    query.bind(&*store.replica).bind(relaxed).bind(low).bind(high).fetch_all(executor).await
}

fn events(moved: &[PgRow]) -> Result<Vec<Event>, Error> {
    let event = |row: &PgRow| {
        let phase = Phase::Queued;
        let told = Told {
            seq: row.try_get::<i32, _>("seq")?.into(),
            delivery: row.try_get("delivery")?,
            retries: row.try_get("retries")?,
            phase,
            corrected: false,
            at: Time(row.try_get("at")?),
            status: phase.status().to_owned(),
            worker: None,
            reason: None,
            meta: None,
        };
        Ok(rows::subject(row)?.event(told, 0))
    };
    moved.iter().map(event).collect()
}

/// As a part of the pass that carried them.
pub(super) async fn carried(tx: &mut Tx, store: &Store, numbers: &[i64], now: Time) -> Result<Vec<Event>, Error> {
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let pushed = Pushed::new(&numbers.iter().map(|no| (*no, now)).collect::<Vec<_>>());
    let events = events(&mark_published(&mut **tx, store, &pushed, false).await?)?;
    if let Some(late) = pushed.without(&events) {
        late.note(&mut **tx).await?;
    }
    Ok(events)
}
