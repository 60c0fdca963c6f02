//! Edges between tasks.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row};

use super::{PostgresLedger, numbers, outbox_rows, rows, tasks};
use crate::rows::clean;
use crate::statements::statements;
use crate::{EdgeKind, Error, Message, Neighbour, Steps, Task, headers};
use celery::task::TaskId;

statements! {
    SUCCESSORS = "select from_no, to_no, kind from taskgate.edge \
         where from_no = any($1) and from_no >> 32 >= $2 and from_no >> 32 < $3 order by from_no, to_no";
    PREDECESSORS =
        "select to_no, from_no, kind from taskgate.edge where to_no = any($1) order by to_no, from_no";
    /// `$1` the number, `$2` its day.
    KEEP_MESSAGE = "update taskgate.task set headers = $3, body = $4 \
         where task_no = $1 and task_no >> 32 = $2 and headers is null and body is not null";
    /// `$1` the number, `$2` its day.
    EXPLAIN = "update taskgate.ended set reason = $3 \
         where task_no = $1 and task_no >> 32 = $2 and reason is null and phase = 'failed'";
}

#[async_trait]
impl Steps for PostgresLedger {
    async fn successors(&self, task_nos: &[i64]) -> Result<Vec<Neighbour>, Error> {
        let (low, high) = numbers::span(task_nos);
        self.neighbours(sqlx::query(SUCCESSORS).bind(task_nos).bind(low).bind(high)).await
    }

    async fn predecessors(&self, task_nos: &[i64]) -> Result<Vec<Neighbour>, Error> {
        self.neighbours(sqlx::query(PREDECESSORS).bind(task_nos)).await
    }

    async fn keep_message(&self, id: &TaskId, message: &Message) -> Result<bool, Error> {
        let Message { headers, body } = message;
        let headers = headers.as_deref().map(|text| headers::pack(text, id.as_str(), ""));
        let Some(no) = self.number(id).await? else { return Ok(false) };
        let query = sqlx::query(KEEP_MESSAGE).bind(no).bind(no >> 32).bind(headers).bind(body);
        let done = query.execute(&self.pool).await?;
        Ok(done.rows_affected() == 1)
    }

    async fn explain(&self, id: &TaskId, reason: &str) -> Result<bool, Error> {
        let Some(no) = self.number(id).await? else { return Ok(false) };
        let query = sqlx::query(EXPLAIN).bind(no).bind(no >> 32).bind(clean(reason));
        let done = query.execute(&self.pool).await?;
        Ok(done.rows_affected() == 1)
    }
}

impl PostgresLedger {
    async fn number(&self, id: &TaskId) -> Result<Option<i64>, Error> {
        Ok(tasks::standing(&self.pool, std::slice::from_ref(id)).await?.first().map(|task| task.no))
    }

    /// Reads edges as (requested task, neighbour, kind), and the neighbours.
    async fn neighbours(&self, edges: Query<'_, Postgres, PgArguments>) -> Result<Vec<Neighbour>, Error> {
        let edges = edges.fetch_all(&self.pool).await?;
        let mut others = edges.iter().map(|row| row.try_get(1)).collect::<Result<Vec<i64>, _>>()?;
        others.sort_unstable();
        others.dedup();
        if others.is_empty() {
            return Ok(Vec::new());
        }
        let (low, high) = numbers::span(&others);
        let found = sqlx::query(outbox_rows::TASKS).bind(others).bind(low).bind(high).fetch_all(&self.pool).await?;
        let tasks: HashMap<i64, Task> = rows::tasks(&found)?.into_iter().map(|task| (task.no, task)).collect();
        let neighbour = |row: &PgRow| {
            let (of, other): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            let corrupt = || Error::Corrupt { table: "edge", column: "kind", row: of.to_string() };
            let kind = EdgeKind::parse(row.try_get::<&str, _>(2)?).ok_or_else(corrupt)?;
            Ok(tasks.get(&other).map(|task| Neighbour { of, kind, task: task.clone() }))
        };
        edges.iter().filter_map(|row| neighbour(row).transpose()).collect()
    }
}
