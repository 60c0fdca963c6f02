//! Workers, queues that pauses removed from them, and revokes that still apply.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::{PostgresLedger, numbers};
use crate::statements::statements;
use crate::{Control, Error, Revocation, Worker};
use celery::task::TaskId;
use runtime::clock::Time;

statements! {
    NOTE = "insert into taskgate.worker as w (hostname, seen_at, offline_at, facts) \
         select * from unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[]) as n(hostname, seen_at, offline_at, facts) \
         order by hostname on conflict (hostname) do update set seen_at = excluded.seen_at, offline_at = excluded.offline_at, \
         facts = excluded.facts where w.seen_at <= excluded.seen_at";
    WORKERS = "select hostname, seen_at, offline_at, facts from taskgate.worker order by hostname";
    FORGET_WORKERS = "delete from taskgate.worker where seen_at < $1";
    NOTE_PAUSED = "insert into taskgate.pause_consumer (queue, hostname) \
         select $1, unnest($2::text[]) on conflict do nothing";
    TAKE_PAUSED = "delete from taskgate.pause_consumer where queue = $1 returning hostname";
    REMEMBER = "insert into taskgate.revocation (task_id, requested_at, terminate, signal, reason, id) \
         values ($1, $2, $3, $4, $5, $6) on conflict (task_id) do update set requested_at = excluded.requested_at, \
         terminate = taskgate.revocation.terminate or excluded.terminate, signal = excluded.signal, reason = excluded.reason";
    OPEN = "select r.task_id, r.requested_at, r.terminate, r.signal, r.reason from taskgate.revocation r \
         left join lateral (select e.finished_at from taskgate.task t join taskgate.ended e on e.task_no = t.task_no where t.id = r.id) e \
         on true where e.finished_at is null or r.requested_at >= e.finished_at order by r.requested_at desc limit $1";
    FORGET_REVOCATIONS = "delete from taskgate.revocation r where r.requested_at < $1 \
         or exists (select 1 from taskgate.task t join taskgate.ended e on e.task_no = t.task_no where t.id = r.id and e.finished_at < $1)";
}

#[async_trait]
impl Control for PostgresLedger {
    async fn note_workers(&self, workers: &[Worker]) -> Result<(), Error> {
        if workers.is_empty() {
            return Ok(());
        }
        sqlx::query(NOTE)
            .bind(workers.iter().map(|worker| worker.hostname.as_str()).collect::<Vec<_>>())
            .bind(workers.iter().map(|worker| worker.seen_at.0).collect::<Vec<_>>())
            .bind(workers.iter().map(|worker| worker.offline_at.map(|at| at.0)).collect::<Vec<_>>())
            .bind(workers.iter().map(facts).collect::<Vec<_>>())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn workers(&self) -> Result<Vec<Worker>, Error> {
        sqlx::query(WORKERS).fetch_all(&self.pool).await?.iter().map(worker).collect()
    }

    async fn forget_workers(&self, before: Time) -> Result<i64, Error> {
        let gone = sqlx::query(FORGET_WORKERS).bind(before.0).execute(&self.pool).await?.rows_affected();
        Ok(i64::try_from(gone).unwrap_or(i64::MAX))
    }

    async fn note_paused_consumers(&self, queue: &str, hostnames: &[String]) -> Result<(), Error> {
        sqlx::query(NOTE_PAUSED).bind(queue).bind(hostnames).execute(&self.pool).await?;
        Ok(())
    }

    async fn take_paused_consumers(&self, queue: &str) -> Result<Vec<String>, Error> {
        let rows = sqlx::query(TAKE_PAUSED).bind(queue).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    async fn remember_revocation(&self, revocation: &Revocation) -> Result<(), Error> {
        sqlx::query(REMEMBER)
            .bind(revocation.task_id.as_str())
            .bind(revocation.requested_at.0)
            .bind(revocation.terminate)
            .bind(&revocation.signal)
            .bind(&revocation.reason)
            .bind(numbers::key(revocation.task_id.as_str()))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn open_revocations(&self, limit: i64) -> Result<Vec<Revocation>, Error> {
        sqlx::query(OPEN).bind(limit).fetch_all(&self.pool).await?.iter().map(revocation).collect()
    }

    async fn forget_revocations(&self, before: Time) -> Result<i64, Error> {
        let gone = sqlx::query(FORGET_REVOCATIONS).bind(before.0).execute(&self.pool).await?.rows_affected();
        Ok(i64::try_from(gone).unwrap_or(i64::MAX))
    }
}

fn facts(worker: &Worker) -> String {
    serde_json::to_string(&worker.facts).expect("facts are JSON")
}

fn worker(row: &PgRow) -> Result<Worker, Error> {
    let hostname: String = row.try_get(0)?;
    let facts = serde_json::from_str(row.try_get::<&str, _>(3)?);
    Ok(Worker {
        facts: facts.map_err(|_| Error::Corrupt { table: "worker", column: "facts", row: hostname.clone() })?,
        hostname,
        seen_at: Time(row.try_get(1)?),
        offline_at: row.try_get::<Option<i64>, _>(2)?.map(Time),
    })
}

fn revocation(row: &PgRow) -> Result<Revocation, Error> {
    let id: String = row.try_get(0)?;
    let corrupt = |_| Error::Corrupt { table: "revocation", column: "task_id", row: id.clone() };
    Ok(Revocation {
        task_id: TaskId::parse(&id).map_err(corrupt)?,
        requested_at: Time(row.try_get(1)?),
        terminate: row.try_get(2)?,
        signal: row.try_get(3)?,
        reason: row.try_get(4)?,
    })
}
