//! Findings of reconcilers.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::PostgresLedger;
use super::pool;
use crate::statements::statements;
use crate::{Error, Finding, Findings};
use runtime::clock::Time;

statements! {
    FORGET = "delete from taskgate.finding f where f.source = $1 and not exists (\
         select 1 from unnest($2::text[], $3::text[]) as n(kind, subject) where n.kind = f.kind and n.subject = f.subject)";
    NOTE = "insert into taskgate.finding (source, kind, subject, since, detail) \
         select $1, n.kind, n.subject, n.since, n.detail \
         from unnest($2::text[], $3::text[], $4::bigint[], $5::text[]) as n(kind, subject, since, detail) \
         on conflict (source, kind, subject) do update set detail = excluded.detail";
    FINDINGS =
        "select kind, subject, since, detail from taskgate.finding order by kind, subject, source limit $1";
}

#[async_trait]
impl Findings for PostgresLedger {
    async fn note_findings(&self, source: &str, findings: &[Finding]) -> Result<(), Error> {
        let texts = |part: fn(&Finding) -> &str| findings.iter().map(part).collect::<Vec<_>>();
        let (kinds, subjects) = (texts(|finding| &finding.kind), texts(|finding| &finding.subject));
        let mut tx = pool::begin(&self.pool).await?;
        sqlx::query(FORGET).bind(source).bind(&kinds).bind(&subjects).execute(&mut *tx).await?;
        if !findings.is_empty() {
            sqlx::query(NOTE)
                .bind(source)
                .bind(&kinds)
                .bind(&subjects)
                .bind(findings.iter().map(|finding| finding.since.0).collect::<Vec<_>>())
                .bind(texts(|finding| &finding.detail))
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    async fn findings(&self, limit: i64) -> Result<Vec<Finding>, Error> {
        sqlx::query(FINDINGS).bind(limit).fetch_all(&self.pool).await?.iter().map(finding).collect()
    }
}

fn finding(row: &PgRow) -> Result<Finding, Error> {
    Ok(Finding {
        kind: row.try_get(0)?,
        subject: row.try_get(1)?,
        since: Time(row.try_get(2)?),
        detail: row.try_get(3)?,
    })
}
