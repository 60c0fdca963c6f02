//! The progress of the trace export, and whole histories for it.

use async_trait::async_trait;
use sqlx::Row;

use super::{PostgresLedger, events};
use crate::statements::statements;
use crate::{Error, Event, PoolUse, Traces};
use celery::task::Phase;

statements! {
    MARK = "select feed from taskgate.trace_mark";
    BEGIN = "insert into taskgate.trace_mark (feed) values ($1) on conflict (only_row) do nothing";
    MOVE = "update taskgate.trace_mark set feed = $1 where feed = $2";
}

#[async_trait]
impl Traces for PostgresLedger {
    async fn traced(&self) -> Result<Option<i64>, Error> {
        let row = sqlx::query(MARK).fetch_optional(&self.pool).await?;
        row.map(|row| Ok(row.try_get(0)?)).transpose()
    }

    async fn note_traced(&self, from: Option<i64>, to: i64) -> Result<bool, Error> {
        let query = match from {
            None => sqlx::query(BEGIN).bind(to),
            Some(from) => sqlx::query(MOVE).bind(to).bind(from),
        };
        Ok(query.execute(&self.pool).await?.rows_affected() > 0)
    }

    async fn histories(&self, task_nos: &[i64], limit: i64) -> Result<Vec<Event>, Error> {
        // A custom state is a report of progress.
        let is_step = |event: &Event| event.phase != Phase::Running || event.status == Phase::Running.status();
        Ok(events::histories(&self.pool, task_nos, limit).await?.into_iter().filter(is_step).collect())
    }

    fn pools(&self) -> Vec<PoolUse> {
        let (open, idle) = self.pool.usage();
        vec![PoolUse { name: "ledger", open, idle, most: self.config.max_connections }]
    }
}
