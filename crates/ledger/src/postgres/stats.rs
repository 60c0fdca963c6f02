//! Statistics; each event is counted exactly once.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::Row;

use super::events::{Entry, Stretch};
use super::rows::Subject;
use super::{PostgresLedger, events, numbers, pool};
use crate::history::Told;
use crate::rows::clean;
use crate::statements::statements;
use crate::stats::{read_ended, read_failure_kind, read_figure};
use crate::{Count, Counted, End, Ended, Error, FailureKind, Figure, REJECTED, Span, Stats, Tally, Window};
use celery::task::Phase;
use runtime::clock::Time;

statements! {
    FOLDED = "select feed from taskgate.stat_mark";
    /// `$1` numbers.
    ENDED = "select t.task_no, t.submitted_at, t.due_at, e.started_at, e.finished_at, e.runtime, e.failure_type, \
         e.failure_message, e.traceback from taskgate.task t join taskgate.ended e on e.task_no = t.task_no \
         and e.task_no >> 32 >= $2 and e.task_no >> 32 < $3 where t.task_no = any($1) and t.task_no >> 32 >= $2 and t.task_no >> 32 < $3";
    MOVE_MARK = "update taskgate.stat_mark set feed = $2 where feed = $1";
    /// The rows of a call must be distinct.
    ADD = "insert into taskgate.stat as s (span, at, measure, bucket, name, queue, amount) \
         select * from unnest($1::int[], $2::bigint[], $3::text[], $4::smallint[], $5::text[], $6::text[], $7::bigint[]) \
         on conflict (span, measure, at, name, queue, bucket) do update set amount = s.amount + excluded.amount";
    NOTE = "insert into taskgate.failure_kind as k (fingerprint, name, type, frame, message, first_at, last_at, last_task_id) \
         values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (fingerprint) do update set \
         first_at = least(k.first_at, excluded.first_at), last_at = greatest(k.last_at, excluded.last_at), \
         message = case when excluded.last_at >= k.last_at then excluded.message else k.message end, \
         last_task_id = case when excluded.last_at >= k.last_at then excluded.last_task_id else k.last_task_id end";
    /// An empty list of names or queues means all.
    FIGURES = "select at - at % $5 as slot, measure, bucket, case when $6 then name else '' end as shown, \
         case when $9 then queue else '' end as shown_queue, sum(amount)::bigint from taskgate.stat where span = $1 and measure = any($2) and at >= $3 and at < $4 \
         and (cardinality($7::text[]) = 0 or name = any($7)) and (cardinality($8::text[]) = 0 or queue = any($8)) group by 1, 2, 3, 4, 5 order by 1";
    KINDS = "select fingerprint, name, type, frame, message, first_at, last_at, last_task_id \
         from taskgate.failure_kind where fingerprint = any($1)";
    FORGET = "delete from taskgate.stat where span = $1 and measure = any($3) and at < $2";
}

#[async_trait]
impl Stats for PostgresLedger {
    async fn folded(&self) -> Result<i64, Error> {
        Ok(sqlx::query(FOLDED).fetch_one(&self.pool).await?.try_get(0)?)
    }

    async fn tally(&self, from: i64, limit: i64) -> Result<Tally, Error> {
        let Stretch { entries, end: Some(to) } = events::stretch(&self.pool, from, limit).await? else {
            return Ok(Tally { to: from, ..Tally::default() });
        };
        let (ends, others): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| entry.told.phase.is_final());
        let first_ends = ends.iter().filter(|entry| entry.told.seq == 1);
        let counted: Vec<&Entry> = others.iter().filter(|entry| is_counted(&entry.told)).chain(first_ends).collect();
        let numbers = events::task_nos(counted.iter().copied().chain(&ends));
        let subjects = self.subjects(&numbers).await?;
        let ended = self.ended(&events::task_nos(ends.iter())).await?;
        let ended: HashMap<i64, Ended> = ended.into_iter().map(|end| (end.task_no, end)).collect();
        let end = |entry: Entry| {
            let subject = subjects.get(&entry.task_no)?;
            Some(End {
                at: entry.told.at,
                phase: entry.told.phase,
                task_id: subject.task_id.as_str().to_owned(),
                name: subject.name.clone(),
                queue: subject.queue.clone(),
                ended: ended.get(&entry.task_no)?.clone(),
            })
        };
        Ok(Tally { to, counts: counts(&counted, &subjects), ends: ends.into_iter().filter_map(end).collect() })
    }

    async fn ended(&self, task_nos: &[i64]) -> Result<Vec<Ended>, Error> {
        let (low, high) = numbers::span(task_nos);
        let rows = sqlx::query(ENDED).bind(task_nos).bind(low).bind(high).fetch_all(&self.pool).await?;
        rows.iter().map(|row| read_ended!(row)).collect()
    }

    async fn fold(
        &self,
        from: i64,
        to: i64,
        amounts: &[(Counted, i64)],
        failures: &[FailureKind],
    ) -> Result<bool, Error> {
        let mut tx = pool::begin(&self.pool).await?;
        if sqlx::query(MOVE_MARK).bind(from).bind(to).execute(&mut *tx).await?.rows_affected() == 0 {
            return Ok(false);
        }
        add(amounts).execute(&mut *tx).await?;
        for kind in failures {
            note(kind).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    async fn sample(&self, amounts: &[(Counted, i64)]) -> Result<(), Error> {
        add(amounts).execute(&self.pool).await?;
        Ok(())
    }

    async fn figures(&self, window: &Window) -> Result<Vec<Figure>, Error> {
        let query = sqlx::query(FIGURES).bind(window.span.secs()).bind(&window.measures).bind(window.from.0);
        let query = query.bind(window.to.0).bind(window.step_micros).bind(window.by_name);
        let rows = query.bind(&window.names).bind(&window.queues).bind(window.by_queue).fetch_all(&self.pool).await?;
        rows.iter().map(|row| read_figure!(row)).collect()
    }

    async fn failure_kinds(&self, fingerprints: &[String]) -> Result<Vec<FailureKind>, Error> {
        let rows = sqlx::query(KINDS).bind(fingerprints).fetch_all(&self.pool).await?;
        rows.iter().map(|row| read_failure_kind!(row)).collect()
    }

    async fn forget_figures(&self, span: Span, before: Time) -> Result<i64, Error> {
        let query = sqlx::query(FORGET).bind(span.secs()).bind(before.0).bind(crate::MEASURES);
        let done = query.execute(&self.pool).await?;
        Ok(i64::try_from(done.rows_affected()).unwrap_or(i64::MAX))
    }
}

impl PostgresLedger {
    /// The tasks of events. Most are recent, so the cache has them: their names and queues do not change.
    async fn subjects(&self, task_nos: &[i64]) -> Result<HashMap<i64, Subject>, Error> {
        let mut subjects = self.store.known.subjects(task_nos);
        let others: Vec<i64> = task_nos.iter().copied().filter(|no| !subjects.contains_key(no)).collect();
        subjects.extend(events::subjects(&self.pool, &others).await?);
        Ok(subjects)
    }
}

/// Whether an event is counted by minute, name and queue: it is a task's first event, or has a counted phase. Ends are returned one by one.
fn is_counted(told: &Told) -> bool {
    told.seq == 1
        || matches!(told.phase, Phase::Received | Phase::Retrying)
        || (told.phase == Phase::Running && [Phase::Running.status(), REJECTED].contains(&told.status.as_str()))
}

fn counts(entries: &[&Entry], subjects: &HashMap<i64, Subject>) -> Vec<Count> {
    const MINUTE: i64 = 60_000_000;
    let mut amounts: HashMap<Alike<'_>, i64> = HashMap::new();
    for Entry { task_no, told, .. } in entries {
        let Some(subject) = subjects.get(task_no) else { continue };
        let alike = Alike {
            minute: told.at.0 - told.at.0 % MINUTE,
            is_first: told.seq == 1,
            phase: told.phase,
            status: &told.status,
            name: subject.name.as_deref(),
            queue: subject.queue.as_deref(),
        };
        *amounts.entry(alike).or_default() += 1;
    }
    let count = |(alike, amount): (Alike<'_>, i64)| Count {
        at: Time(alike.minute),
        is_first: alike.is_first,
        phase: alike.phase,
        status: alike.status.to_owned(),
        name: alike.name.map(str::to_owned),
        queue: alike.queue.map(str::to_owned),
        amount,
    };
    amounts.into_iter().map(count).collect()
}

/// The common fields of events that are counted together.
#[derive(PartialEq, Eq, Hash)]
struct Alike<'a> {
    minute: i64,
    is_first: bool,
    phase: Phase,
    status: &'a str,
    name: Option<&'a str>,
    queue: Option<&'a str>,
}

type Statement<'a> = sqlx::query::Query<'a, sqlx::Postgres, <sqlx::Postgres as sqlx::Database>::Arguments>;

/// The statement that adds amounts.
fn add(amounts: &[(Counted, i64)]) -> Statement<'_> {
    let (mut spans, mut ats, mut measures, mut buckets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut names, mut queues, mut sums) = (Vec::new(), Vec::new(), Vec::new());
    for (counted, amount) in amounts {
        spans.push(counted.span.secs());
        ats.push(counted.at.0);
        measures.push(counted.measure);
        buckets.push(counted.bucket);
        names.push(counted.name.as_str());
        queues.push(counted.queue.as_str());
        sums.push(*amount);
    }
    let query = sqlx::query(ADD).bind(spans).bind(ats).bind(measures).bind(buckets).bind(names).bind(queues);
    query.bind(sums)
}

/// The statement that records a kind of failure.
fn note(kind: &FailureKind) -> Statement<'_> {
    let query = sqlx::query(NOTE).bind(&kind.fingerprint).bind(clean(&kind.name)).bind(clean(&kind.kind));
    let query = query.bind(kind.frame.as_deref().map(clean)).bind(clean(&kind.message)).bind(kind.first_at.0);
    query.bind(kind.last_at.0).bind(&kind.last_task_id)
}
