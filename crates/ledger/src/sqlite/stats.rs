//! Statistics; each event is counted exactly once.

use async_trait::async_trait;
use sqlx::Row;

use super::pool::list;
use super::{SqliteLedger, events};
use crate::rows::clean;
use crate::statements::statements;
use crate::stats::{read_count, read_end, read_ended, read_failure_kind, read_figure};
use crate::{Counted, Ended, Error, FailureKind, Figure, Span, Stats, Tally, Window};
use runtime::clock::Time;

statements! {
    FOLDED = "select feed from stat_mark";
    ENDED = "select task_no, submitted_at, due_at, started_at, finished_at, runtime, failure_type, \
         failure_message, traceback from task where task_no in (select value from json_each($1))";
    /// Counts events after `$1` up to `$2` by minute, name and queue. Ends are left out, unless they are first events.
    COUNTS = "select e.at - e.at % 60000000 as minute, e.seq = 1 as is_first, e.phase, e.status, t.name, t.queue, \
         count(*) from event e join task t on t.task_no = e.task_no where e.feed > $1 and e.feed <= $2 \
         and (e.seq = 1 or e.phase in ('received', 'retrying') or (e.phase = 'running' and e.status in ('STARTED', 'REJECTED'))) \
         group by 1, 2, 3, 4, 5, 6";
    ENDS = "select t.task_no, t.submitted_at, t.due_at, t.started_at, t.finished_at, t.runtime, \
         t.failure_type, t.failure_message, t.traceback, e.at, e.phase, t.task_id, t.name, t.queue \
         from event e join task t on t.task_no = e.task_no where e.feed > $1 and e.feed <= $2 \
         and e.phase in ('succeeded', 'failed', 'revoked', 'expired', 'skipped', 'lost', 'ignored') order by e.feed";
    MOVE_MARK = "update stat_mark set feed = $2 where feed = $1";
    /// The rows of a call must be distinct.
    ADD = "insert into stat as s (span, at, measure, bucket, name, queue, amount) \
         select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6 \
         from json_each($1) where true on conflict (span, measure, at, name, queue, bucket) do update set amount = s.amount + excluded.amount";
    NOTE = "insert into failure_kind as k (fingerprint, name, type, frame, message, first_at, last_at, last_task_id) \
         values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (fingerprint) do update set \
         first_at = min(k.first_at, excluded.first_at), last_at = max(k.last_at, excluded.last_at), \
         message = case when excluded.last_at >= k.last_at then excluded.message else k.message end, \
         last_task_id = case when excluded.last_at >= k.last_at then excluded.last_task_id else k.last_task_id end";
    /// An empty list of names or queues means all.
    FIGURES = "select at - at % $5 as slot, measure, bucket, case when $6 then name else '' end as shown, \
         case when $9 then queue else '' end as shown_queue, sum(amount) from stat where span = $1 and measure in (select value from json_each($2)) and at >= $3 and at < $4 \
         and ($7 = '[]' or name in (select value from json_each($7))) and ($8 = '[]' or queue in (select value from json_each($8))) group by 1, 2, 3, 4, 5 order by 1";
    KINDS = "select fingerprint, name, type, frame, message, first_at, last_at, last_task_id \
         from failure_kind where fingerprint in (select value from json_each($1))";
    FORGET =
        "delete from stat where span = $1 and measure in (select value from json_each($3)) and at < $2";
}

#[async_trait]
impl Stats for SqliteLedger {
    async fn folded(&self) -> Result<i64, Error> {
        Ok(sqlx::query(FOLDED).fetch_one(&self.pools.read).await?.try_get(0)?)
    }

    async fn tally(&self, from: i64, limit: i64) -> Result<Tally, Error> {
        let Some(to) = events::window(&self.pools.read, from, limit).await? else {
            return Ok(Tally { to: from, ..Tally::default() });
        };
        let counts = sqlx::query(COUNTS).bind(from).bind(to).fetch_all(&self.pools.read).await?;
        let ends = sqlx::query(ENDS).bind(from).bind(to).fetch_all(&self.pools.read).await?;
        Ok(Tally {
            to,
            counts: counts.iter().map(|row| read_count!(row)).collect::<Result<_, Error>>()?,
            ends: ends.iter().map(|row| read_end!(row)).collect::<Result<_, Error>>()?,
        })
    }

    async fn ended(&self, task_nos: &[i64]) -> Result<Vec<Ended>, Error> {
        let rows = sqlx::query(ENDED).bind(list(task_nos)).fetch_all(&self.pools.read).await?;
        rows.iter().map(|row| read_ended!(row)).collect()
    }

    async fn fold(
        &self,
        from: i64,
        to: i64,
        amounts: &[(Counted, i64)],
        failures: &[FailureKind],
    ) -> Result<bool, Error> {
        let mut tx = self.pools.begin().await?;
        if sqlx::query(MOVE_MARK).bind(from).bind(to).execute(&mut *tx).await?.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query(ADD).bind(added(amounts)).execute(&mut *tx).await?;
        for kind in failures {
            note(kind).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    async fn sample(&self, amounts: &[(Counted, i64)]) -> Result<(), Error> {
        sqlx::query(ADD).bind(added(amounts)).execute(&self.pools.write).await?;
        Ok(())
    }

    async fn figures(&self, window: &Window) -> Result<Vec<Figure>, Error> {
        let query = sqlx::query(FIGURES).bind(window.span.secs()).bind(list(&window.measures)).bind(window.from.0);
        let query = query.bind(window.to.0).bind(window.step_micros).bind(window.by_name);
        let rows = query
            .bind(list(&window.names))
            .bind(list(&window.queues))
            .bind(window.by_queue)
            .fetch_all(&self.pools.read)
            .await?;
        rows.iter().map(|row| read_figure!(row)).collect()
    }

    async fn failure_kinds(&self, fingerprints: &[String]) -> Result<Vec<FailureKind>, Error> {
        let rows = sqlx::query(KINDS).bind(list(fingerprints)).fetch_all(&self.pools.read).await?;
        rows.iter().map(|row| read_failure_kind!(row)).collect()
    }

    async fn forget_figures(&self, span: Span, before: Time) -> Result<i64, Error> {
        let query = sqlx::query(FORGET).bind(span.secs()).bind(before.0).bind(list(&crate::MEASURES));
        let done = query.execute(&self.pools.write).await?;
        Ok(i64::try_from(done.rows_affected()).unwrap_or(i64::MAX))
    }
}

/// The amounts as the JSON that [`ADD`] reads.
fn added(amounts: &[(Counted, i64)]) -> String {
    let row = |(one, amount): &(Counted, i64)| {
        (one.span.secs(), one.at.0, one.measure, one.bucket, one.name.clone(), one.queue.clone(), *amount)
    };
    list(&amounts.iter().map(row).collect::<Vec<_>>())
}

/// The statement that records a kind of failure.
fn note(kind: &FailureKind) -> sqlx::query::Query<'_, sqlx::Sqlite, <sqlx::Sqlite as sqlx::Database>::Arguments> {
    let query = sqlx::query(NOTE).bind(&kind.fingerprint).bind(clean(&kind.name)).bind(clean(&kind.kind));
    let query = query.bind(kind.frame.as_deref().map(clean)).bind(clean(&kind.message)).bind(kind.first_at.0);
    query.bind(kind.last_at.0).bind(&kind.last_task_id)
}
