//! The progress of the trace export, and whole histories for it.

use async_trait::async_trait;
use sqlx::Row;

use super::SqliteLedger;
use super::pool::list;
use super::rows::{self, event_columns};
use crate::statements::statements;
use crate::{Error, Event, PoolUse, Traces};

statements! {
    MARK = "select feed from trace_mark";
    BEGIN = "insert into trace_mark (feed) values ($1) on conflict (only_row) do nothing";
    MOVE = "update trace_mark set feed = $1 where feed = $2";
    /// Whole histories, without custom states, which are progress reports.
    HISTORIES = concat!(
        "select ",
        event_columns!(),
        " from task t join event e on e.task_no = t.task_no where t.task_no in (select value from json_each($1)) \
         and (e.phase <> 'running' or e.status = 'STARTED') order by e.task_no, e.seq limit $2"
    );
}

#[async_trait]
impl Traces for SqliteLedger {
    async fn traced(&self) -> Result<Option<i64>, Error> {
        let row = sqlx::query(MARK).fetch_optional(&self.pools.read).await?;
        row.map(|row| Ok(row.try_get(0)?)).transpose()
    }

    async fn note_traced(&self, from: Option<i64>, to: i64) -> Result<bool, Error> {
        let query = match from {
            None => sqlx::query(BEGIN).bind(to),
            Some(from) => sqlx::query(MOVE).bind(to).bind(from),
        };
        Ok(query.execute(&self.pools.write).await?.rows_affected() > 0)
    }

    async fn histories(&self, task_nos: &[i64], limit: i64) -> Result<Vec<Event>, Error> {
        let found = sqlx::query(HISTORIES).bind(list(task_nos)).bind(limit).fetch_all(&self.pools.read).await?;
        found.iter().map(rows::event).collect()
    }

    fn pools(&self) -> Vec<PoolUse> {
        let used = |name, pool: &sqlx::SqlitePool| PoolUse {
            name,
            open: pool.size(),
            idle: u32::try_from(pool.num_idle()).unwrap_or(u32::MAX),
            most: pool.options().get_max_connections(),
        };
        vec![used("ledger", &self.pools.write), used("ledger_read", &self.pools.read)]
    }
}
