//! Workers, queues that pauses removed from them, and revokes that still apply. The adapter's `worker_writes` has the rest.

use async_trait::async_trait;
use sqlx::Row;

use super::dialect::{Adapter, AdapterRow, keys, list};
use super::worker_writes::{self, FORGET_REVOCATIONS, OPEN};
use crate::statements::statements;
use crate::{Control, Error, Revocation, Worker};
use celery::task::TaskId;
use runtime::clock::Time;

statements! {
    WORKERS = "select hostname, seen_at, offline_at, facts from worker order by hostname";
    FORGET_WORKERS = "delete from worker where seen_at < $1";
    NOTE_PAUSED = concat!(
        "insert into pause_consumer (queue, hostname) select $1, k.key from ",
        keys!("$2"),
        " where true on conflict do nothing"
    );
    TAKE_PAUSED = "delete from pause_consumer where queue = $1 returning hostname";
}

#[async_trait]
impl Control for Adapter {
    async fn note_workers(&self, workers: &[Worker]) -> Result<(), Error> {
        if workers.is_empty() {
            return Ok(());
        }
        worker_writes::note(self.writes(), workers).await
    }

    async fn workers(&self) -> Result<Vec<Worker>, Error> {
        sqlx::query(WORKERS).fetch_all(self.reads()).await?.iter().map(worker).collect()
    }

    async fn forget_workers(&self, before: Time) -> Result<i64, Error> {
        let gone = sqlx::query(FORGET_WORKERS).bind(before.0).execute(self.writes()).await?.rows_affected();
        Ok(i64::try_from(gone).unwrap_or(i64::MAX))
    }

    async fn note_paused_consumers(&self, queue: &str, hostnames: &[String]) -> Result<(), Error> {
        sqlx::query(NOTE_PAUSED).bind(queue).bind(list(hostnames)).execute(self.writes()).await?;
        Ok(())
    }

    async fn take_paused_consumers(&self, queue: &str) -> Result<Vec<String>, Error> {
        let rows = sqlx::query(TAKE_PAUSED).bind(queue).fetch_all(self.writes()).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    async fn remember_revocation(&self, revocation: &Revocation) -> Result<(), Error> {
        worker_writes::remember(self.writes(), revocation).await
    }

    async fn open_revocations(&self, limit: i64) -> Result<Vec<Revocation>, Error> {
        sqlx::query(OPEN).bind(limit).fetch_all(self.reads()).await?.iter().map(revocation).collect()
    }

    async fn forget_revocations(&self, before: Time) -> Result<i64, Error> {
        let gone = sqlx::query(FORGET_REVOCATIONS).bind(before.0).execute(self.writes()).await?.rows_affected();
        Ok(i64::try_from(gone).unwrap_or(i64::MAX))
    }
}

pub(super) fn facts(worker: &Worker) -> String {
    serde_json::to_string(&worker.facts).expect("facts are JSON")
}

fn worker(row: &AdapterRow) -> Result<Worker, Error> {
    let hostname: String = row.try_get(0)?;
    let facts = serde_json::from_str(row.try_get::<&str, _>(3)?);
    Ok(Worker {
        facts: facts.map_err(|_| Error::Corrupt { table: "worker", column: "facts", row: hostname.clone() })?,
        hostname,
        seen_at: Time(row.try_get(1)?),
        offline_at: row.try_get::<Option<i64>, _>(2)?.map(Time),
    })
}

fn revocation(row: &AdapterRow) -> Result<Revocation, Error> {
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
