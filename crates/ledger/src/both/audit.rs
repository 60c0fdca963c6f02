//! The audit log. The transaction that has locked the head row appends the next entry of the chain.

use async_trait::async_trait;
use sqlx::Row;

use super::dialect::{Adapter, AdapterRow, Tx, locking};
use crate::audit::{audit_columns, read_act};
use crate::statements::statements;
use crate::{Act, Audits, ChainHash, Error, NewAct, Seal, audit};
use runtime::clock::Time;

statements! {
    OPEN = "insert into audit (audit_id, opened_at, who, who_id, what, target, origin) \
         values ($1, $2, $3, $4, $5, $6, $7) on conflict (audit_id) do nothing";
    HEAD = "select chain_no, hash from audit_head";
    LOCK_HEAD = concat!("select chain_no, hash from audit_head", locking!());
    SEAL = "update audit set chain_no = $2, sealed_at = $3, status = $4, verdict = $5, detail = $6, hash = $7 \
         where audit_id = $1 and chain_no is null";
    MOVE_HEAD = "update audit_head set chain_no = $1, hash = $2";
    NEWEST =
        concat!("select ", audit_columns!(), " from audit where audit_no < $1 order by audit_no desc limit $2");
    UNSEALED = concat!(
        "select ",
        audit_columns!(),
        " from audit where chain_no is null and opened_at < $1 order by opened_at limit $2"
    );
    CHAIN = concat!(
        "select ",
        audit_columns!(),
        " from audit where chain_no is not null and chain_no > $1 order by chain_no limit $2"
    );
}

/// Opens the row of the current act, if any, in the caller's transaction.
pub(super) async fn open_current(tx: &mut Tx) -> Result<(), Error> {
    match audit::current() {
        Some(act) => open(tx, &act).await,
        None => Ok(()),
    }
}

async fn open(tx: &mut Tx, act: &NewAct) -> Result<(), Error> {
    sqlx::query(OPEN)
        .bind(&act.id)
        .bind(act.at.0)
        .bind(&act.who)
        .bind(&act.who_id)
        .bind(&act.what)
        .bind(&act.target)
        .bind(&act.origin)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

#[async_trait]
impl Audits for Adapter {
    async fn open_act(&self, act: &NewAct) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        open(&mut tx, act).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn seal_act(&self, act: &NewAct, seal: &Seal) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        open(&mut tx, act).await?;
        let head = sqlx::query(LOCK_HEAD).fetch_one(&mut *tx).await?;
        let (chain_no, previous): (i64, ChainHash) = (head.try_get::<i64, _>(0)? + 1, head.try_get(1)?);
        let hash = audit::hash(&previous, chain_no, act, seal);
        let sealed = sqlx::query(SEAL)
            .bind(&act.id)
            .bind(chain_no)
            .bind(seal.at.0)
            .bind(seal.status)
            .bind(&seal.verdict)
            .bind(&seal.detail)
            .bind(&hash)
            .execute(&mut *tx)
            .await?;
        if sealed.rows_affected() == 1 {
            sqlx::query(MOVE_HEAD).bind(chain_no).bind(&hash).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    async fn acts(&self, before: Option<i64>, limit: i64) -> Result<Vec<Act>, Error> {
        let query = sqlx::query(NEWEST).bind(before.unwrap_or(i64::MAX)).bind(limit);
        query.fetch_all(self.reads()).await?.iter().map(act).collect()
    }

    async fn open_acts(&self, before: Time, limit: i64) -> Result<Vec<Act>, Error> {
        sqlx::query(UNSEALED).bind(before.0).bind(limit).fetch_all(self.reads()).await?.iter().map(act).collect()
    }

    async fn chain(&self, after: i64, limit: i64) -> Result<Vec<Act>, Error> {
        sqlx::query(CHAIN).bind(after).bind(limit).fetch_all(self.reads()).await?.iter().map(act).collect()
    }

    async fn chain_head(&self) -> Result<(i64, ChainHash), Error> {
        let head = sqlx::query(HEAD).fetch_one(self.reads()).await?;
        Ok((head.try_get(0)?, head.try_get(1)?))
    }
}

fn act(row: &AdapterRow) -> Result<Act, Error> {
    read_act!(row)
}
