//! Reads the fleet's own table of results in PostgreSQL, which Celery's database backend or django-celery-results writes.
//!
//! Reads only. A row is returned as a JSON object of all its columns, because these depend on the backend's version and settings. Every
//! statement runs unnamed and in a transaction, because PgBouncer may be in between.

use std::str::FromStr;
use std::time::Duration;

use celery::task::TaskId;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool, Row};

use crate::Error;
use crate::postgres::begin_elsewhere;

const CONNECTIONS: u32 = 2;
/// Timeout for getting a connection.
const PATIENCE: Duration = Duration::from_secs(3);
/// Rows of one statement: each may be large.
const PAGE: usize = 8;
/// Timeout for an answer. It is longer than the server lets a statement run, so exceeding it means that the connection is broken.
const ANSWER: Duration = Duration::from_secs(15);
const LIMITS: &str = "set transaction read only; set local statement_timeout = '10s'";

/// A table of results. Connects when it is used.
pub struct StoredResults {
    pool: PgPool,
    table: String,
    /// Larger results are not read.
    most_bytes: usize,
}

impl StoredResults {
    /// `table` is the table's name, or `schema.table`.
    ///
    /// # Errors
    /// When the URL is invalid.
    pub fn open(url: &str, table: &str, most_bytes: usize) -> Result<Self, Error> {
        let options = options(url)?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .idle_timeout(Duration::from_secs(60))
            .connect_lazy_with(options);
        Ok(Self { pool, table: quoted(table), most_bytes })
    }

    /// Checks that the table exists and may be read.
    ///
    /// # Errors
    /// When it does not exist or may not be read, or when the database does not answer.
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

    /// The rows of these tasks: task id, and a JSON object of all columns. Rows with a result that is too large are left out.
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

/// Checks that a URL is valid, without connecting.
///
/// # Errors
/// Why it is not valid.
pub fn understands(url: &str) -> Result<(), Error> {
    options(url).map(|_| ())
}

/// Connection options without startup parameters that PgBouncer would refuse.
fn options(url: &str) -> Result<PgConnectOptions, Error> {
    let options = PgConnectOptions::from_str(url).map_err(|error| Error::Refused(Box::new(error)))?;
    Ok(options.application_name("taskgate results").extra_float_digits(None).statement_cache_capacity(0))
}

/// Quotes each part of the name, so that nothing in it is read as SQL.
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
