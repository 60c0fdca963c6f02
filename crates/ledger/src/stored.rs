//! The fleet's own table of results, read by task id: what Celery's database backend or django-celery-results keeps in a PostgreSQL.
//!
//! Nothing is written there. A row comes as a JSON object of all its columns: which ones there are depends on the versions of both
//! sides and on their settings. Every read stands in a transaction, without a name on the server: PgBouncer may be in between.

use std::str::FromStr;
use std::time::Duration;

use celery::task::TaskId;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool, Row};

use crate::Error;
use crate::postgres::begin_elsewhere;

const CONNECTIONS: u32 = 2;
/// How long a connection may take to come.
const PATIENCE: Duration = Duration::from_secs(3);
/// Rows of one statement: each may be large.
const PAGE: usize = 8;
/// Longer than the server lets a statement run: without an answer by then the connection is broken.
const ANSWER: Duration = Duration::from_secs(15);
const LIMITS: &str = "set transaction read only; set local statement_timeout = '10s'";

/// One table. Connects when it is used.
pub struct StoredResults {
    pool: PgPool,
    table: String,
    /// Results above this are not read.
    most_bytes: usize,
}

impl StoredResults {
    /// `table` as it is called, perhaps with its schema and a dot in front.
    ///
    /// # Errors
    /// When the address cannot be understood.
    pub fn open(url: &str, table: &str, most_bytes: usize) -> Result<Self, Error> {
        let options = options(url)?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .idle_timeout(Duration::from_secs(60))
            .connect_lazy_with(options);
        Ok(Self { pool, table: quoted(table), most_bytes })
    }

    /// Whether the table is there and may be read.
    ///
    /// # Errors
    /// When it is not, or the database is away.
    pub async fn ping(&self) -> Result<(), Error> {
        let look = format!("{LIMITS}; select 1 from {} limit 0", self.table);
        answered(async {
            let mut tx = begin_elsewhere(&self.pool).await?;
            sqlx::raw_sql(AssertSqlSafe(look)).execute(&mut *tx).await?;
            tx.rollback().await?;
            Ok(())
        })
        .await
    }

    /// Rows of these tasks, as JSON objects of their columns, each with the id of its task. Of a result that is too large there is none.
    ///
    /// # Errors
    /// As [`StoredResults::ping`].
    pub async fn rows(&self, ids: &[TaskId]) -> Result<Vec<(String, String)>, Error> {
        let mut found = Vec::new();
        for page in ids.chunks(PAGE) {
            found.extend(answered(self.page(page)).await?);
        }
        Ok(found)
    }

    async fn page(&self, ids: &[TaskId]) -> Result<Vec<(String, String)>, Error> {
        let ids: Vec<&str> = ids.iter().map(TaskId::as_str).collect();
        let read = format!(
            "select row.task_id::text, to_json(row)::text from (select * from {} where task_id = any($1) \
             and coalesce(octet_length(result), 0) <= {}) row",
            self.table, self.most_bytes
        );
        let mut tx = begin_elsewhere(&self.pool).await?;
        sqlx::raw_sql(LIMITS).execute(&mut *tx).await?;
        let rows = sqlx::query(AssertSqlSafe(read)).persistent(false).bind(ids).fetch_all(&mut *tx).await?;
        tx.rollback().await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }
}

async fn answered<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut.into()))
}

/// Whether an address can be understood. Connects to nothing.
///
/// # Errors
/// When it cannot.
pub fn understands(url: &str) -> Result<(), Error> {
    options(url).map(|_| ())
}

/// No parameter at the start that a PgBouncer would refuse.
fn options(url: &str) -> Result<PgConnectOptions, Error> {
    let options = PgConnectOptions::from_str(url).map_err(|error| Error::Refused(Box::new(error)))?;
    Ok(options.application_name("taskgate results").extra_float_digits(None).statement_cache_capacity(0))
}

/// Each part in quotes, so that nothing in a name is read as SQL.
fn quoted(table: &str) -> String {
    let parts = table.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\"")));
    parts.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_read_as_sql() {
        assert_eq!(quoted("celery_taskmeta"), "\"celery_taskmeta\"");
        assert_eq!(quoted("jobs.results"), "\"jobs\".\"results\"");
        assert_eq!(quoted("a\"; drop table b; --"), "\"a\"\"; drop table b; --\"");
    }
}
