//! Workers, queues that pauses removed from them, and revokes that still apply.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::SqliteLedger;
use super::pool::list;
use crate::statements::statements;
use crate::{Control, Error, Revocation, Worker};
use celery::task::TaskId;
use runtime::clock::Time;

statements! {
    NOTE = "insert into worker (hostname, seen_at, offline_at, facts) \
         select value ->> 0, value ->> 1, value ->> 2, value ->> 3 from json_each($1) where true \
         on conflict (hostname) do update set seen_at = excluded.seen_at, offline_at = excluded.offline_at, \
         facts = excluded.facts where worker.seen_at <= excluded.seen_at";
    WORKERS = "select hostname, seen_at, offline_at, facts from worker order by hostname";
    FORGET_WORKERS = "delete from worker where seen_at < $1";
    NOTE_PAUSED = "insert into pause_consumer (queue, hostname) \
         select $1, value from json_each($2) where true on conflict do nothing";
    TAKE_PAUSED = "delete from pause_consumer where queue = $1 returning hostname";
    REMEMBER = "insert into revocation (task_id, requested_at, terminate, signal, reason) \
         values ($1, $2, $3, $4, $5) on conflict (task_id) do update set requested_at = excluded.requested_at, \
         terminate = revocation.terminate or excluded.terminate, signal = excluded.signal, reason = excluded.reason";
    OPEN = "select r.task_id, r.requested_at, r.terminate, r.signal, r.reason from revocation r \
         left join task t on t.task_id = r.task_id \
         where t.finished_at is null or r.requested_at >= t.finished_at order by r.requested_at desc limit $1";
    FORGET_REVOCATIONS = "delete from revocation where requested_at < $1 \
         or exists (select 1 from task t where t.task_id = revocation.task_id and t.finished_at < $1)";
}

#[async_trait]
impl Control for SqliteLedger {
    async fn note_workers(&self, workers: &[Worker]) -> Result<(), Error> {
        if workers.is_empty() {
            return Ok(());
        }
        let rows = |worker: &Worker| {
            (worker.hostname.clone(), worker.seen_at.0, worker.offline_at.map(|at| at.0), facts(worker))
        };
        let rows: Vec<_> = workers.iter().map(rows).collect();
        sqlx::query(NOTE).bind(list(&rows)).execute(&self.pools.write).await?;
        Ok(())
    }

    async fn workers(&self) -> Result<Vec<Worker>, Error> {
        sqlx::query(WORKERS).fetch_all(&self.pools.read).await?.iter().map(worker).collect()
    }

    async fn forget_workers(&self, before: Time) -> Result<i64, Error> {
        let gone = sqlx::query(FORGET_WORKERS).bind(before.0).execute(&self.pools.write).await?.rows_affected();
        Ok(i64::try_from(gone).unwrap_or(i64::MAX))
    }

    async fn note_paused_consumers(&self, queue: &str, hostnames: &[String]) -> Result<(), Error> {
        sqlx::query(NOTE_PAUSED).bind(queue).bind(list(hostnames)).execute(&self.pools.write).await?;
        Ok(())
    }

    async fn take_paused_consumers(&self, queue: &str) -> Result<Vec<String>, Error> {
        let rows = sqlx::query(TAKE_PAUSED).bind(queue).fetch_all(&self.pools.write).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    async fn remember_revocation(&self, revocation: &Revocation) -> Result<(), Error> {
        sqlx::query(REMEMBER)
            .bind(revocation.task_id.as_str())
            .bind(revocation.requested_at.0)
            .bind(revocation.terminate)
            .bind(&revocation.signal)
            .bind(&revocation.reason)
            .execute(&self.pools.write)
            .await?;
        Ok(())
    }

    async fn open_revocations(&self, limit: i64) -> Result<Vec<Revocation>, Error> {
        sqlx::query(OPEN).bind(limit).fetch_all(&self.pools.read).await?.iter().map(revocation).collect()
    }

    async fn forget_revocations(&self, before: Time) -> Result<i64, Error> {
        let gone = sqlx::query(FORGET_REVOCATIONS).bind(before.0).execute(&self.pools.write).await?.rows_affected();
        Ok(i64::try_from(gone).unwrap_or(i64::MAX))
    }
}

fn facts(worker: &Worker) -> String {
    serde_json::to_string(&worker.facts).expect("facts are JSON")
}

fn worker(row: &SqliteRow) -> Result<Worker, Error> {
    let hostname: String = row.try_get(0)?;
    let facts = serde_json::from_str(row.try_get::<&str, _>(3)?);
    Ok(Worker {
        facts: facts.map_err(|_| Error::Corrupt { table: "worker", column: "facts", row: hostname.clone() })?,
        hostname,
        seen_at: Time(row.try_get(1)?),
        offline_at: row.try_get::<Option<i64>, _>(2)?.map(Time),
    })
}

fn revocation(row: &SqliteRow) -> Result<Revocation, Error> {
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
