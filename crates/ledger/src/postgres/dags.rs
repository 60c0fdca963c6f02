//! DAGs. The replica that deletes a part's row sends the part. Only one can: the others wait for the row's lock and then find no row.

use async_trait::async_trait;
use sqlx::Row;

use super::pool::{self, Tx};
use super::{PostgresLedger, learn, numbers, save};
use crate::dags::released;
use crate::statements::statements;
use crate::{Dags, Error, Event, ReadyPart, Release, Submission, headers};
use celery::task::TaskId;
use runtime::clock::Time;

statements! {
    INSERT =
        "insert into taskgate.dag (root_id, root_key, submitted_at, document) values ($1, $2, $3, $4)";
    PARTS =
        "insert into taskgate.dag_part (task_no, document) select * from unnest($1::bigint[], $2::text[])";
    JOINS = "insert into taskgate.edge (from_no, to_no, kind) select t.task_no, n.to_no, 'after' \
         from unnest($1::uuid[], $2::bigint[]) as n(id, to_no) join taskgate.task t on t.id = n.id on conflict do nothing";
    DAG = "select document from taskgate.dag where root_id = $1";
    ANY = "select exists (select 1 from taskgate.dag_part)";
    /// Parts whose predecessors have all succeeded. The first tasks of a part wait for the same predecessors, so one of them is checked.
    READY = "select p.part_no, p.document from taskgate.dag_part p where p.part_no > $1 and not exists \
         (select 1 from taskgate.edge e where e.to_no = p.task_no and e.kind = 'after' \
         and (exists (select 1 from taskgate.flight f where f.task_no = e.from_no) \
         or exists (select 1 from taskgate.ended d where d.task_no = e.from_no and d.phase <> 'succeeded'))) \
         order by p.part_no limit $2";
    TAKE = "delete from taskgate.dag_part where part_no = $1";
    CUT = "delete from taskgate.dag_part where part_no in (select p.part_no from taskgate.dag_part p \
         where exists (select 1 from taskgate.edge e join taskgate.ended d on d.task_no = e.from_no \
         where e.to_no = p.task_no and e.kind = 'after' and d.phase <> 'succeeded') order by p.part_no limit $1 for update skip locked)";
    /// `$6` is the day of the number.
    SEND =
        "update taskgate.task set headers = $2, body = $3, due_at = $4, expires_at = $5 where task_no = $1 and task_no >> 32 = $6";
    OUTBOX = "insert into taskgate.outbox (task_no, wake_at, accepted_at) values ($1, $2, $3)";
    FORGET = "delete from taskgate.dag where root_id in (select d.root_id from taskgate.dag d \
         where d.submitted_at < $1 and not exists (select 1 from taskgate.task t where t.id = d.root_key) limit $2)";
}

/// Inserts a DAG in the transaction of its submission.
pub(super) async fn insert(tx: &mut Tx, submission: &Submission, numbers: &[i64]) -> Result<(), sqlx::Error> {
    let Some(dag) = &submission.dag else { return Ok(()) };
    let (root, key) = (dag.root_id.as_str(), numbers::key(dag.root_id.as_str()));
    let query = sqlx::query(INSERT).bind(root).bind(key).bind(submission.at.0).bind(&dag.document);
    query.execute(&mut **tx).await?;
    let parts = || dag.parts.iter().filter_map(|part| Some((numbers[*part.entries.first()?], part.document.as_str())));
    let (firsts, documents): (Vec<i64>, Vec<&str>) = parts().unzip();
    sqlx::query(PARTS).bind(firsts).bind(documents).execute(&mut **tx).await?;
    if dag.joins.is_empty() {
        return Ok(());
    }
    let keys: Vec<uuid::Uuid> = dag.joins.iter().map(|(from, _)| numbers::key(from.as_str())).collect();
    let followers: Vec<i64> = dag.joins.iter().map(|(_, to)| numbers[*to]).collect();
    sqlx::query(JOINS).bind(keys).bind(followers).execute(&mut **tx).await?;
    Ok(())
}

#[async_trait]
impl Dags for PostgresLedger {
    async fn dag(&self, root: &TaskId) -> Result<Option<String>, Error> {
        let row = sqlx::query(DAG).bind(root.as_str()).fetch_optional(&self.pool).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    async fn has_parts(&self) -> Result<bool, Error> {
        Ok(sqlx::query(ANY).fetch_one(&self.pool).await?.try_get(0)?)
    }

    async fn ready_parts(&self, after: i64, limit: i64) -> Result<Vec<ReadyPart>, Error> {
        let rows = sqlx::query(READY).bind(after).bind(limit).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(ReadyPart { no: row.try_get(0)?, document: row.try_get(1)? })).collect()
    }

    async fn release_part(&self, no: i64, releases: &[Release], at: Time) -> Result<Vec<Event>, Error> {
        let mut tx = pool::begin(&self.pool).await?;
        if sqlx::query(TAKE).bind(no).execute(&mut *tx).await?.rows_affected() == 0 {
            tx.rollback().await?;
            return Ok(Vec::new());
        }
        let ids: Vec<&TaskId> = releases.iter().map(|release| &release.id).collect();
        let (mut applied, sent) = released(learn::lock(&mut tx, &ids).await?, releases, at);
        save::save(&mut tx, &self.store, &mut applied, 0).await?;
        for (no, release) in sent {
            let packed = release.message.headers.as_deref().map(|text| headers::pack(text, release.id.as_str(), ""));
            sqlx::query(SEND)
                .bind(no)
                .bind(packed)
                .bind(&release.message.body)
                .bind(release.due_at.map(|at| at.0))
                .bind(release.expires_at.map(|at| at.0))
                .bind(no >> 32)
                .execute(&mut *tx)
                .await?;
            sqlx::query(OUTBOX).bind(no).bind(release.wake_at(at)).bind(at.0).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(applied.events)
    }

    async fn drop_parts(&self, limit: i64) -> Result<u64, Error> {
        Ok(sqlx::query(CUT).bind(limit).execute(&self.pool).await?.rows_affected())
    }

    async fn forget_dags(&self, before: Time, limit: i64) -> Result<u64, Error> {
        Ok(sqlx::query(FORGET).bind(before.0).bind(limit).execute(&self.pool).await?.rows_affected())
    }
}
