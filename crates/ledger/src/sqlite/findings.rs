//! Findings of reconcilers.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::SqliteLedger;
use crate::statements::statements;
use crate::{Error, Finding, Findings};
use runtime::clock::Time;

statements! {
    FORGET = "delete from finding where source = $1";
    NOTE = "insert into finding (source, kind, subject, since, detail) values ($1, $2, $3, $4, $5) \
         on conflict (source, kind, subject) do update set detail = excluded.detail";
    OF_SOURCE = "select kind, subject, since, detail from finding where source = $1";
    FINDINGS =
        "select kind, subject, since, detail from finding order by kind, subject, source limit $1";
}

#[async_trait]
impl Findings for SqliteLedger {
    async fn note_findings(&self, source: &str, findings: &[Finding]) -> Result<(), Error> {
        let mut tx = self.pools.begin().await?;
        let rows = sqlx::query(OF_SOURCE).bind(source).fetch_all(&mut *tx).await?;
        let before = rows.iter().map(finding).collect::<Result<Vec<Finding>, Error>>()?;
        sqlx::query(FORGET).bind(source).execute(&mut *tx).await?;
        for finding in findings {
            let known = before.iter().find(|known| known.kind == finding.kind && known.subject == finding.subject);
            let since = known.map_or(finding.since, |known| known.since);
            let query = sqlx::query(NOTE).bind(source).bind(&finding.kind).bind(&finding.subject).bind(since.0);
            query.bind(&finding.detail).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    async fn findings(&self, limit: i64) -> Result<Vec<Finding>, Error> {
        sqlx::query(FINDINGS).bind(limit).fetch_all(&self.pools.read).await?.iter().map(finding).collect()
    }
}

fn finding(row: &SqliteRow) -> Result<Finding, Error> {
    Ok(Finding {
        kind: row.try_get(0)?,
        subject: row.try_get(1)?,
        since: Time(row.try_get(2)?),
        detail: row.try_get(3)?,
    })
}
