//! Operations on many tasks.

use async_trait::async_trait;
use sqlx::Row;

use super::audit;
use super::dialect::{Adapter, AdapterRow};
use crate::bulk::{bulk_columns, read_bulk};
use crate::statements::statements;
use crate::{Bulk, BulkState, BulkStep, Bulks, Error, NewBulk};
use runtime::clock::Time;

statements! {
    CREATE = "insert into bulk (bulk_id, action, state, plan, fingerprint, who, who_id, total, created_at, changed_at) \
         values ($1, $2, 'running', $3, $4, $5, $6, $7, $8, $8) on conflict (bulk_id) do nothing";
    BULK = concat!("select ", bulk_columns!(), " from bulk where bulk_id = $1");
    BULKS = concat!("select ", bulk_columns!(), " from bulk where cast($2 as text) is null or who_id = $2 order by bulk_no desc limit $1");
    NEXT =
        concat!("select ", bulk_columns!(), " from bulk where state = 'running' and bulk_no > $1 order by bulk_no limit 1");
    ADVANCE = "update bulk set steps = steps + 1, at_no = $3, done = $4, skipped = $5, failed = $6, \
         outcomes = $7, errors = $8, state = $9, changed_at = $10, finished_at = case when $9 = 'done' then cast($10 as bigint) end \
         where bulk_no = $1 and steps = $2 and state = 'running'";
    SET = "update bulk set state = $2, changed_at = $3, \
         finished_at = case when $2 = 'cancelled' then cast($3 as bigint) end \
         where bulk_id = $1 and state in ('running', 'paused')";
}

#[async_trait]
impl Bulks for Adapter {
    async fn create_bulk(&self, bulk: &NewBulk) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let created = sqlx::query(CREATE)
            .bind(&bulk.id)
            .bind(bulk.action.as_str())
            .bind(&bulk.plan)
            .bind(&bulk.fingerprint)
            .bind(&bulk.who)
            .bind(&bulk.who_id)
            .bind(bulk.total)
            .bind(bulk.at.0)
            .execute(&mut *tx)
            .await?;
        audit::open_current(&mut tx).await?;
        tx.commit().await?;
        Ok(created.rows_affected() == 1)
    }

    async fn bulk(&self, id: &str) -> Result<Option<Bulk>, Error> {
        sqlx::query(BULK).bind(id).fetch_optional(self.reads()).await?.as_ref().map(bulk).transpose()
    }

    async fn bulks(&self, limit: i64, who_id: Option<&str>) -> Result<Vec<Bulk>, Error> {
        sqlx::query(BULKS).bind(limit).bind(who_id).fetch_all(self.reads()).await?.iter().map(bulk).collect()
    }

    async fn next_bulk(&self, after: i64) -> Result<Option<Bulk>, Error> {
        sqlx::query(NEXT).bind(after).fetch_optional(self.reads()).await?.as_ref().map(bulk).transpose()
    }

    async fn advance_bulk(&self, bulk: &Bulk, step: &BulkStep) -> Result<bool, Error> {
        let state = if step.is_last { BulkState::Done } else { BulkState::Running };
        let noted = sqlx::query(ADVANCE)
            .bind(bulk.no)
            .bind(bulk.steps)
            .bind(step.at_no)
            .bind(step.done)
            .bind(step.skipped)
            .bind(step.failed)
            .bind(&step.outcomes)
            .bind(&step.errors)
            .bind(state.as_str())
            .bind(step.at.0)
            .execute(self.writes())
            .await?;
        Ok(noted.rows_affected() == 1)
    }

    async fn set_bulk_state(&self, id: &str, state: BulkState, at: Time) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let set = sqlx::query(SET).bind(id).bind(state.as_str()).bind(at.0).execute(&mut *tx).await?;
        audit::open_current(&mut tx).await?;
        tx.commit().await?;
        Ok(set.rows_affected() == 1)
    }
}

fn bulk(row: &AdapterRow) -> Result<Bulk, Error> {
    read_bulk!(row)
}
