//! Steps that wait. Each change is one statement, whose condition decides who may make it.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::{PostgresLedger, pool};
use crate::rows::clean;
use crate::waits::{read_wait_row, wait_columns};
use crate::{EndedWait, Error, NewWait, Wait, WaitState, Waits};
use celery::task::{Json, TaskId};
use runtime::clock::Time;

pub(super) const BEGIN: &str = "insert into taskgate.wait \
     (task_id, is_sleep, name, since, expires_at, schema, on_timeout, input, token, headers, body, state) \
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'open') on conflict (task_id) do nothing";
pub(super) const ONE: &str = concat!("select ", wait_columns!(), " from taskgate.wait where task_id = $1");
pub(super) const OPEN: &str = concat!(
    "select ",
    wait_columns!(),
    " from taskgate.wait where state = 'open' and not is_sleep and ($1::text is null or token = $1) \
     and ($2::bigint is null or (since, task_id) > ($2, $3)) order by since, task_id limit $4"
);
pub(super) const END: &str =
    "update taskgate.wait set state = $2, answer = $3, ended_at = $4 where task_id = $1 and state = 'open'";
pub(super) const EXPIRE: &str =
    "update taskgate.wait set state = 'expired', ended_at = $1 where state = 'open' and expires_at <= $1";
pub(super) const NEXT: &str = "select min(expires_at) from taskgate.wait where state = 'open'";
pub(super) const CLAIM: &str = concat!(
    "update taskgate.wait set claimed_by = $1, claimed_until = $3 where task_id in (select task_id from taskgate.wait \
     where state <> 'open' and not settled and (claimed_until is null or claimed_until <= $2 or claimed_by = $1) \
     order by coalesce(claimed_until, 0), ended_at limit $4 for update skip locked) returning ",
    wait_columns!()
);
pub(super) const SETTLE: &str = "update taskgate.wait set settled = true, claimed_until = null where task_id = $1";
pub(super) const FORGET: &str = "delete from taskgate.wait where task_id in (select task_id from taskgate.wait \
     where settled and ended_at < $1 order by ended_at limit $2)";
pub(super) const ADD_SECRET: &str =
    "insert into taskgate.secret (name, value) values ($1, $2) on conflict (name) do nothing";
pub(super) const SECRET: &str = "select value from taskgate.secret where name = $1";

#[async_trait]
impl Waits for PostgresLedger {
    async fn begin_waits(&self, waits: &[NewWait]) -> Result<(), Error> {
        let mut tx = pool::begin(&self.pool).await?;
        for wait in waits {
            sqlx::query(BEGIN)
                .bind(wait.task_id.as_str())
                .bind(wait.is_sleep)
                .bind(clean(&wait.name))
                .bind(wait.since.0)
                .bind(wait.expires_at.0)
                .bind(wait.schema.as_ref().map(|json| json.get()))
                .bind(wait.on_timeout.as_str())
                .bind(wait.input.as_ref().map(|json| json.get()))
                .bind(&wait.token)
                .bind(&wait.headers)
                .bind(&wait.body)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    async fn wait(&self, id: &TaskId) -> Result<Option<Wait>, Error> {
        sqlx::query(ONE).bind(id.as_str()).fetch_optional(&self.pool).await?.as_ref().map(wait).transpose()
    }

    async fn open_waits(
        &self,
        after: Option<(Time, &TaskId)>,
        token: Option<&str>,
        limit: i64,
    ) -> Result<Vec<Wait>, Error> {
        let (at, id) = after.map_or((None, ""), |(at, id)| (Some(at.0), id.as_str()));
        let query = sqlx::query(OPEN).bind(token).bind(at).bind(id).bind(limit);
        query.fetch_all(&self.pool).await?.iter().map(wait).collect()
    }

    async fn end_wait(
        &self,
        id: &TaskId,
        state: WaitState,
        answer: Option<&Json>,
        at: Time,
    ) -> Result<Option<EndedWait>, Error> {
        let answer = answer.map(|json| json.get());
        let query = sqlx::query(END).bind(id.as_str()).bind(state.as_str()).bind(answer).bind(at.0);
        let is_first = query.execute(&self.pool).await?.rows_affected() == 1;
        Ok(self.wait(id).await?.map(|wait| EndedWait { is_first, wait }))
    }

    async fn expire_waits(&self, now: Time) -> Result<u64, Error> {
        Ok(sqlx::query(EXPIRE).bind(now.0).execute(&self.pool).await?.rows_affected())
    }

    async fn next_expiry(&self) -> Result<Option<Time>, Error> {
        let row = sqlx::query(NEXT).fetch_one(&self.pool).await?;
        Ok(row.try_get::<Option<i64>, _>(0)?.map(Time))
    }

    async fn claim_waits(&self, holder: &str, now: Time, until: Time, limit: i64) -> Result<Vec<Wait>, Error> {
        let query = sqlx::query(CLAIM).bind(holder).bind(now.0).bind(until.0).bind(limit);
        query.fetch_all(&self.pool).await?.iter().map(wait).collect()
    }

    async fn settle_wait(&self, id: &TaskId) -> Result<(), Error> {
        sqlx::query(SETTLE).bind(id.as_str()).execute(&self.pool).await?;
        Ok(())
    }

    async fn forget_waits(&self, before: Time, limit: i64) -> Result<u64, Error> {
        Ok(sqlx::query(FORGET).bind(before.0).bind(limit).execute(&self.pool).await?.rows_affected())
    }

    async fn shared_secret(&self, name: &str, fresh: &[u8]) -> Result<Vec<u8>, Error> {
        sqlx::query(ADD_SECRET).bind(name).bind(fresh).execute(&self.pool).await?;
        Ok(sqlx::query(SECRET).bind(name).fetch_one(&self.pool).await?.try_get(0)?)
    }
}

fn wait(row: &PgRow) -> Result<Wait, Error> {
    read_wait_row!(row).try_into()
}
