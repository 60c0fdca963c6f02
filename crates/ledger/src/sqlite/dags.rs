//! DAGs. Only one connection writes, so each part is deleted, and sent, once.

use async_trait::async_trait;
use sqlx::Row;

use super::pool::Tx;
use super::{SqliteLedger, learn, save};
use crate::dags::released;
use crate::statements::statements;
use crate::{Dags, Error, Event, ReadyPart, Release, Submission};
use celery::task::TaskId;
use runtime::clock::Time;

statements! {
    INSERT = "insert into dag (root_id, submitted_at, document) values ($1, $2, $3)";
    PART = "insert into dag_part (task_no, document) values ($1, $2)";
    JOIN = "insert into edge (from_no, to_no, kind) \
         select task_no, $2, 'after' from task where task_id = $1 on conflict do nothing";
    DAG = "select document from dag where root_id = $1";
    ANY = "select exists (select 1 from dag_part)";
    /// Parts whose predecessors have all succeeded. The first tasks of a part wait for the same predecessors, so one of them is checked.
    READY = "select p.part_no, p.document from dag_part p where p.part_no > $1 and not exists (select 1 from edge e \
         join task t on t.task_no = e.from_no where e.to_no = p.task_no and e.kind = 'after' and t.phase <> 'succeeded') \
         order by p.part_no limit $2";
    TAKE = "delete from dag_part where part_no = $1";
    CUT = "delete from dag_part where part_no in (select p.part_no from dag_part p where exists (select 1 from edge e \
         join task t on t.task_no = e.from_no where e.to_no = p.task_no and e.kind = 'after' and t.phase in \
         ('failed', 'revoked', 'expired', 'skipped', 'lost', 'ignored')) order by p.part_no limit $1)";
    MESSAGE = "update message set headers = $2, body = $3 where task_no = $1";
    TIMES = "update task set due_at = $2, expires_at = $3 where task_no = $1";
    SEND = "insert into outbox (task_no, wake_at, accepted_at, queue) \
         select task_no, $2, $3, queue from task where task_no = $1";
    FORGET = "delete from dag where root_id in (select d.root_id from dag d \
         where d.submitted_at < $1 and not exists (select 1 from task t where t.task_id = d.root_id) limit $2)";
}

/// Inserts a DAG in the transaction of its submission.
pub(super) async fn insert(tx: &mut Tx, submission: &Submission, numbers: &[i64]) -> Result<(), Error> {
    let Some(dag) = &submission.dag else { return Ok(()) };
    let query = sqlx::query(INSERT).bind(dag.root_id.as_str()).bind(submission.at.0).bind(&dag.document);
    query.execute(&mut **tx).await?;
    for part in &dag.parts {
        let Some(&first) = part.entries.first() else { continue };
        sqlx::query(PART).bind(numbers[first]).bind(&part.document).execute(&mut **tx).await?;
    }
    for (from, to) in &dag.joins {
        sqlx::query(JOIN).bind(from.as_str()).bind(numbers[*to]).execute(&mut **tx).await?;
    }
    Ok(())
}

#[async_trait]
impl Dags for SqliteLedger {
    async fn dag(&self, root: &TaskId) -> Result<Option<String>, Error> {
        let row = sqlx::query(DAG).bind(root.as_str()).fetch_optional(&self.pools.read).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    async fn has_parts(&self) -> Result<bool, Error> {
        Ok(sqlx::query(ANY).fetch_one(&self.pools.read).await?.try_get(0)?)
    }

    async fn ready_parts(&self, after: i64, limit: i64) -> Result<Vec<ReadyPart>, Error> {
        let rows = sqlx::query(READY).bind(after).bind(limit).fetch_all(&self.pools.read).await?;
        rows.iter().map(|row| Ok(ReadyPart { no: row.try_get(0)?, document: row.try_get(1)? })).collect()
    }

    async fn release_part(&self, no: i64, releases: &[Release], at: Time) -> Result<Vec<Event>, Error> {
        let mut tx = self.pools.begin().await?;
        if sqlx::query(TAKE).bind(no).execute(&mut *tx).await?.rows_affected() == 0 {
            tx.rollback().await?;
            return Ok(Vec::new());
        }
        let ids: Vec<&TaskId> = releases.iter().map(|release| &release.id).collect();
        let (mut applied, sent) = released(learn::lock(&mut tx, &ids).await?, releases, at);
        save::save(&mut tx, &mut applied).await?;
        for (no, release) in sent {
            let (headers, body) = (&release.message.headers, &release.message.body);
            sqlx::query(MESSAGE).bind(no).bind(headers).bind(body).execute(&mut *tx).await?;
            let (due, expires) = (release.due_at.map(|at| at.0), release.expires_at.map(|at| at.0));
            sqlx::query(TIMES).bind(no).bind(due).bind(expires).execute(&mut *tx).await?;
            sqlx::query(SEND).bind(no).bind(release.wake_at(at)).bind(at.0).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(applied.events)
    }

    async fn drop_parts(&self, limit: i64) -> Result<u64, Error> {
        Ok(sqlx::query(CUT).bind(limit).execute(&self.pools.write).await?.rows_affected())
    }

    async fn forget_dags(&self, before: Time, limit: i64) -> Result<u64, Error> {
        Ok(sqlx::query(FORGET).bind(before.0).bind(limit).execute(&self.pools.write).await?.rows_affected())
    }
}
