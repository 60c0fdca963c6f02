//! Steps that wait. Each change is one statement; its condition lets only one caller make the change.

use async_trait::async_trait;
use sqlx::Row;

use super::dialect::{Adapter, AdapterRow, skipping};
use crate::rows::clean;
use crate::statements::statements;
use crate::waits::{read_wait_row, wait_columns};
use crate::{EndedWait, Error, NewWait, Wait, WaitState, Waits};
use celery::task::{Json, TaskId};
use runtime::clock::Time;

statements! {
    BEGIN = "insert into wait \
         (task_id, is_sleep, name, since, expires_at, schema, on_timeout, input, token, headers, body, state) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'open') on conflict (task_id) do nothing";
    ONE = concat!("select ", wait_columns!(), " from wait where task_id = $1");
    OPEN = concat!(
        "select ",
        wait_columns!(),
        " from wait where state = 'open' and not is_sleep and (cast($1 as text) is null or token = $1) \
         and (cast($2 as bigint) is null or (since, task_id) > ($2, $3)) order by since, task_id limit $4"
    );
    END =
        "update wait set state = $2, answer = $3, ended_at = $4 where task_id = $1 and state = 'open'";
    EXPIRE =
        "update wait set state = 'expired', ended_at = $1 where state = 'open' and expires_at <= $1";
    NEXT = "select min(expires_at) from wait where state = 'open'";
    CLAIM = concat!(
        "update wait set claimed_by = $1, claimed_until = $3 where task_id in (select task_id from wait \
         where state <> 'open' and not settled and (claimed_until is null or claimed_until <= $2 or claimed_by = $1) \
         order by coalesce(claimed_until, 0), ended_at limit $4",
        skipping!(),
        ") returning ",
        wait_columns!()
    );
    SETTLE = "update wait set settled = true, claimed_until = null where task_id = $1";
    FORGET = "delete from wait where task_id in (select task_id from wait \
         where settled and ended_at < $1 order by ended_at limit $2)";
    ADD_SECRET = "insert into secret (name, value) values ($1, $2) on conflict (name) do nothing";
    SECRET = "select value from secret where name = $1";
}

#[async_trait]
impl Waits for Adapter {
    async fn begin_waits(&self, waits: &[NewWait]) -> Result<(), Error> {
        let mut tx = self.begin().await?;
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
        sqlx::query(ONE).bind(id.as_str()).fetch_optional(self.reads()).await?.as_ref().map(wait).transpose()
    }

    async fn open_waits(
        &self,
        after: Option<(Time, &TaskId)>,
        token: Option<&str>,
        limit: i64,
    ) -> Result<Vec<Wait>, Error> {
        let (at, id) = after.map_or((None, ""), |(at, id)| (Some(at.0), id.as_str()));
        let query = sqlx::query(OPEN).bind(token).bind(at).bind(id).bind(limit);
        query.fetch_all(self.reads()).await?.iter().map(wait).collect()
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
        let is_first = query.execute(self.writes()).await?.rows_affected() == 1;
        Ok(self.wait(id).await?.map(|wait| EndedWait { is_first, wait }))
    }

    async fn expire_waits(&self, now: Time) -> Result<u64, Error> {
        Ok(sqlx::query(EXPIRE).bind(now.0).execute(self.writes()).await?.rows_affected())
    }

    async fn next_expiry(&self) -> Result<Option<Time>, Error> {
        let row = sqlx::query(NEXT).fetch_one(self.reads()).await?;
        Ok(row.try_get::<Option<i64>, _>(0)?.map(Time))
    }

    async fn claim_waits(&self, holder: &str, now: Time, until: Time, limit: i64) -> Result<Vec<Wait>, Error> {
        let query = sqlx::query(CLAIM).bind(holder).bind(now.0).bind(until.0).bind(limit);
        query.fetch_all(self.writes()).await?.iter().map(wait).collect()
    }

    async fn settle_wait(&self, id: &TaskId) -> Result<(), Error> {
        sqlx::query(SETTLE).bind(id.as_str()).execute(self.writes()).await?;
        Ok(())
    }

    async fn forget_waits(&self, before: Time, limit: i64) -> Result<u64, Error> {
        Ok(sqlx::query(FORGET).bind(before.0).bind(limit).execute(self.writes()).await?.rows_affected())
    }

    async fn shared_secret(&self, name: &str, fresh: &[u8]) -> Result<Vec<u8>, Error> {
        sqlx::query(ADD_SECRET).bind(name).bind(fresh).execute(self.writes()).await?;
        Ok(sqlx::query(SECRET).bind(name).fetch_one(self.reads()).await?.try_get(0)?)
    }
}

fn wait(row: &AdapterRow) -> Result<Wait, Error> {
    read_wait_row!(row).try_into()
}
