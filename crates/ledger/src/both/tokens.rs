//! Tokens and tickets.

use async_trait::async_trait;
use sqlx::Row;

use super::audit;
use super::dialect::{Adapter, AdapterRow, among_hashes, hash_list};
use crate::statements::statements;
use crate::tokens::{read_token_row, scopes_text, tasks_text};
use crate::{Error, SecretHash, Token, Tokens};
use runtime::clock::Time;

macro_rules! columns {
    () => {
        "token_id, name, hash, scopes, tasks, rate, created_at, expires_at, revoked_at, last_used_at, namespace, person"
    };
}

statements! {
    MAKE_ROOM = "update token set revoked_at = expires_at \
         where name = $1 and revoked_at is null and expires_at <= $2";
    FORGET_SESSIONS = "delete from token where person is not null and expires_at <= $1";
    CREATE = concat!(
        "insert into token (",
        columns!(),
        ") values ($1, $2, $3, $4, $5, $6, $7, $8, null, null, $9, $10) on conflict do nothing"
    );
    CHANGED = "update token_change set version = version + 1";
    VERSION = "select version from token_change";
    BY_HAND = concat!(
        "select ",
        columns!(),
        " from token where person is null order by created_at desc, token_id desc limit $1"
    );
    BY_ID = concat!("select ", columns!(), " from token where token_id = $1 and person is null");
    ANY_VALID = "select count(*) from (select 1 from token where revoked_at is null \
         and (expires_at is null or expires_at > $1) limit 1) valid";
    BY_HASH = concat!("select ", columns!(), " from token where hash ", among_hashes!("$1"));
    REVOKE = concat!(
        "update token set revoked_at = $2 where (token_id = $1 or name = $1) and revoked_at is null returning ",
        columns!()
    );
    NOTE = "update token set last_used_at = $2 where token_id = $1 and coalesce(last_used_at, 0) < $2";
    FORGET_TICKETS = "delete from stream_ticket where expires_at <= $1";
    ADD_TICKET = "insert into stream_ticket (hash, token_hash, expires_at) values ($1, $2, $3)";
    TAKE_TICKET = "delete from stream_ticket where hash = $1 returning token_hash, expires_at";
}

#[async_trait]
impl Tokens for Adapter {
    async fn create_token(&self, token: &Token) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        sqlx::query(MAKE_ROOM).bind(&token.name).bind(token.created_at.0).execute(&mut *tx).await?;
        if token.person.is_some() {
            sqlx::query(FORGET_SESSIONS).bind(token.created_at.0).execute(&mut *tx).await?;
        }
        let created = sqlx::query(CREATE)
            .bind(&token.id)
            .bind(&token.name)
            .bind(token.hash.as_slice())
            .bind(scopes_text(token))
            .bind(tasks_text(token))
            .bind(&token.rate)
            .bind(token.created_at.0)
            .bind(token.expires_at.map(|at| at.0))
            .bind(&token.namespace)
            .bind(&token.person)
            .execute(&mut *tx)
            .await?;
        sqlx::query(CHANGED).execute(&mut *tx).await?;
        audit::open_current(&mut tx).await?;
        tx.commit().await?;
        Ok(created.rows_affected() == 1)
    }

    async fn tokens(&self, limit: i64) -> Result<Vec<Token>, Error> {
        sqlx::query(BY_HAND).bind(limit).fetch_all(self.reads()).await?.iter().map(token).collect()
    }

    async fn token(&self, id: &str) -> Result<Option<Token>, Error> {
        sqlx::query(BY_ID).bind(id).fetch_optional(self.reads()).await?.as_ref().map(token).transpose()
    }

    async fn has_valid_token(&self, now: Time) -> Result<bool, Error> {
        Ok(sqlx::query(ANY_VALID).bind(now.0).fetch_one(self.reads()).await?.try_get::<i64, _>(0)? > 0)
    }

    async fn tokens_by_hash(&self, hashes: &[SecretHash]) -> Result<Vec<Token>, Error> {
        sqlx::query(BY_HASH).bind(hash_list(hashes)).fetch_all(self.reads()).await?.iter().map(token).collect()
    }

    async fn token_version(&self) -> Result<i64, Error> {
        Ok(sqlx::query(VERSION).fetch_one(self.reads()).await?.try_get(0)?)
    }

    async fn revoke_token(&self, id_or_name: &str, at: Time) -> Result<Option<Token>, Error> {
        let mut tx = self.begin().await?;
        let revoked = sqlx::query(REVOKE).bind(id_or_name).bind(at.0).fetch_all(&mut *tx).await?;
        sqlx::query(CHANGED).execute(&mut *tx).await?;
        audit::open_current(&mut tx).await?;
        tx.commit().await?;
        revoked.first().map(token).transpose()
    }

    async fn note_token_uses(&self, uses: &[(String, Time)]) -> Result<(), Error> {
        let mut uses: Vec<&(String, Time)> = uses.iter().collect();
        // All replicas update in the same order, so that there are no deadlocks.
        uses.sort_unstable();
        let mut tx = self.begin().await?;
        for (id, at) in uses {
            sqlx::query(NOTE).bind(id).bind(at.0).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    async fn add_ticket(
        &self,
        ticket: &SecretHash,
        token: &SecretHash,
        now: Time,
        expires_at: Time,
    ) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        sqlx::query(FORGET_TICKETS).bind(now.0).execute(&mut *tx).await?;
        let query = sqlx::query(ADD_TICKET).bind(ticket.as_slice()).bind(token.as_slice()).bind(expires_at.0);
        query.execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn take_ticket(&self, ticket: &SecretHash, now: Time) -> Result<Option<SecretHash>, Error> {
        let row = sqlx::query(TAKE_TICKET).bind(ticket.as_slice()).fetch_optional(self.writes()).await?;
        let Some(row) = row else { return Ok(None) };
        let (hash, expires_at): (Vec<u8>, i64) = (row.try_get(0)?, row.try_get(1)?);
        Ok(if now.0 < expires_at { hash.try_into().ok() } else { None })
    }
}

fn token(row: &AdapterRow) -> Result<Token, Error> {
    read_token_row!(row).try_into()
}
