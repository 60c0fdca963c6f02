//! Edges between tasks.

use async_trait::async_trait;
use sqlx::Row;

use super::pool::list;
use super::{SqliteLedger, rows};
use crate::rows::{clean, light_task_columns};
use crate::statements::statements;
use crate::{EdgeKind, Error, Message, Neighbour, Steps};
use celery::task::TaskId;

statements! {
    SUCCESSORS = concat!(
        "select e.from_no as asked, e.kind, ",
        light_task_columns!(),
        " from edge e join task t on t.task_no = e.to_no where e.from_no in (select value from json_each($1)) order by e.from_no, e.to_no"
    );
    PREDECESSORS = concat!(
        "select e.to_no as asked, e.kind, ",
        light_task_columns!(),
        " from edge e join task t on t.task_no = e.from_no where e.to_no in (select value from json_each($1)) order by e.to_no, e.from_no"
    );
    KEEP_MESSAGE = "update message set headers = $2, body = $3 \
         where task_no = (select task_no from task where task_id = $1) and headers is null";
    EXPLAIN =
        "update task set reason = $2 where task_id = $1 and reason is null and phase = 'failed'";
}

#[async_trait]
impl Steps for SqliteLedger {
    async fn successors(&self, task_nos: &[i64]) -> Result<Vec<Neighbour>, Error> {
        self.neighbours(SUCCESSORS, task_nos).await
    }

    async fn predecessors(&self, task_nos: &[i64]) -> Result<Vec<Neighbour>, Error> {
        self.neighbours(PREDECESSORS, task_nos).await
    }

    async fn keep_message(&self, id: &TaskId, message: &Message) -> Result<bool, Error> {
        let Message { headers, body } = message;
        let done =
            sqlx::query(KEEP_MESSAGE).bind(id.as_str()).bind(headers).bind(body).execute(&self.pools.write).await?;
        Ok(done.rows_affected() == 1)
    }

    async fn explain(&self, id: &TaskId, reason: &str) -> Result<bool, Error> {
        let done = sqlx::query(EXPLAIN).bind(id.as_str()).bind(clean(reason)).execute(&self.pools.write).await?;
        Ok(done.rows_affected() == 1)
    }
}

impl SqliteLedger {
    async fn neighbours(&self, statement: &'static str, task_nos: &[i64]) -> Result<Vec<Neighbour>, Error> {
        if task_nos.is_empty() {
            return Ok(Vec::new());
        }
        let found = sqlx::query(statement).bind(list(task_nos)).fetch_all(&self.pools.read).await?;
        let neighbour = |row| {
            let of: i64 = Row::try_get(row, "asked")?;
            let corrupt = || Error::Corrupt { table: "edge", column: "kind", row: of.to_string() };
            let kind = EdgeKind::parse(Row::try_get::<&str, _>(row, "kind")?).ok_or_else(corrupt)?;
            Ok(Neighbour { of, kind, task: rows::task(row)? })
        };
        found.iter().map(neighbour).collect()
    }
}
