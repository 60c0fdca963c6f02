//! The lag of a streaming replica.

use std::time::Duration;

use sqlx::Row;

use super::pooled::Pool;
use crate::Error;
use crate::statements::statements;

statements! {
    /// Null on a primary. A connected replica that has replayed everything it received is up to date; else the lag is the age of its last
    /// replayed commit.
    LAG = "select case when not pg_is_in_recovery() then null \
         when pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() and exists (select 1 from pg_stat_wal_receiver) then 0 \
         else greatest(extract(epoch from clock_timestamp() - coalesce(pg_last_xact_replay_timestamp(), pg_postmaster_start_time())), 0) end::float8 as lag \
         from taskgate.ledger";
}

pub(super) async fn lag(pool: &Pool) -> Result<Option<Duration>, Error> {
    let seconds: Option<f64> = sqlx::query(LAG).fetch_one(pool).await?.try_get(0)?;
    Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
}
