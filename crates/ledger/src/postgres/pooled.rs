//! The ledger behind a connection pooler (`PgBouncer`), which may give a server connection to another client after each transaction.
//!
//! There, nothing may outlive a transaction: no session settings, no prepared statements, no LISTEN. The driver prepares a statement in
//! one round trip and executes it in the next, so even a single statement runs in a transaction: otherwise the second half might execute
//! another client's statement.
//!
//! A pooler is recognised because it does not pass our startup parameter on to the server. Session mode is treated like transaction
//! mode, because a client cannot tell the two apart.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Describe, Either, Execute, Executor, PgConnection, PgPool, Postgres,
    Row, SqlStr, Transaction,
};
use tokio::sync::OnceCell;

use super::pool::{self, PostgresConfig};
use super::slots::{Slot, Slots};
type Step = Either<PgQueryResult, PgRow>;
type Steps<'e> = BoxStream<'e, Result<Step, sqlx::Error>>;

/// A startup parameter that the server has only without a pooler.
const MARK: (&str, &str) = ("taskgate.direct", "on");
const SEES_MARK: &str = "select coalesce(current_setting('taskgate.direct', true), '') = 'on'";

/// Whether there is a pooler in front of the server; determined once.
pub(super) struct Door {
    config: PostgresConfig,
    is_pooled: OnceCell<bool>,
}

impl Door {
    pub fn new(config: &PostgresConfig) -> Arc<Self> {
        Arc::new(Self { config: config.clone(), is_pooled: OnceCell::new() })
    }

    pub async fn is_pooled(&self) -> Result<bool, sqlx::Error> {
        self.is_pooled.get_or_try_init(|| self.ask()).await.copied()
    }

    async fn ask(&self) -> Result<bool, sqlx::Error> {
        let asking = async {
            let marked = pool::direct_options(&self.config)?.options([MARK]);
            let mut connection = match marked.connect().await {
                Ok(connection) => connection,
                Err(error) if refuses_parameters(&error) => return Ok(true),
                Err(error) => return Err(error),
            };
            let sees = sqlx::raw_sql(SEES_MARK).fetch_one(&mut connection).await?.try_get::<bool, _>(0)?;
            let _ = connection.close().await;
            Ok(!sees)
        };
        tokio::time::timeout(self.config.acquire_timeout, asking).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }
}

/// Whether the error is a pooler's `unsupported startup parameter: options`.
fn refuses_parameters(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.message().contains("startup parameter"))
}

/// Connections to the server, directly or through a pooler. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool {
    connections: Arc<Slots>,
    door: Arc<Door>,
    /// The settings for each transaction behind a pooler.
    settings: Arc<str>,
    adapted: Arc<OnceCell<bool>>,
}

impl Pool {
    /// `connections` are those without a pooler. `settings` are their settings, for [`Pool::begin_with`].
    pub fn new(connections: Arc<Slots>, door: Arc<Door>, settings: &[(&str, String)]) -> Self {
        let settings: String = settings.iter().map(|(name, value)| format!("; set local {name} = '{value}'")).collect();
        Self { connections, door, settings: settings.into(), adapted: Arc::new(OnceCell::new()) }
    }

    pub async fn is_pooled(&self) -> Result<bool, sqlx::Error> {
        let adapt = async || {
            let pooled = self.door.is_pooled().await?;
            if pooled {
                self.connections.set_connect_options(&pool::pooled_options(&self.door.config)?);
            }
            Ok(pooled)
        };
        self.adapted.get_or_try_init(adapt).await.copied()
    }

    pub async fn begin_with(&self, statement: &'static str) -> Result<Tx, sqlx::Error> {
        let is_pooled = self.is_pooled().await?;
        let slot = self.connections.take().await?;
        let inner = if is_pooled {
            slot.pool().begin_with(AssertSqlSafe(beginning(statement, &self.settings))).await?
        } else {
            slot.pool().begin_with(statement).await?
        };
        Ok(Tx(Statements { inner, is_pooled, _slot: slot }))
    }

    /// A pool of the driver, which is only useful without a pooler.
    pub fn connections(&self) -> &PgPool {
        self.connections.first()
    }

    /// How many connections are open, and how many of them are idle.
    pub fn usage(&self) -> (u32, u32) {
        self.connections.usage()
    }

    pub async fn close(&self) {
        self.connections.close().await;
    }
}

/// The settings of all transactions, then those of this one, which override them.
fn beginning(statement: &str, settings: &str) -> String {
    let own = statement.strip_prefix("begin").unwrap_or_default();
    format!("begin{settings}{own}")
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

/// Executes a single statement. Behind a pooler it runs in a transaction, and all its rows are read at once.
impl<'p> Executor<'p> for &'p Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> Steps<'e>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let steps = async move {
            if !self.is_pooled().await? {
                let slot = self.connections.take().await?;
                let steps = slot.pool().fetch_many(query);
                // The slot is free when the last row was read.
                return Ok::<Steps<'_>, sqlx::Error>(steps.inspect(move |_| _ = &slot).boxed());
            }
            let mut tx = self.begin_with("begin").await?;
            let steps: Vec<Step> = (&mut *tx).fetch_many(query).try_collect().await?;
            tx.commit().await?;
            Ok(stream::iter(steps).map(Ok).boxed())
        };
        stream::once(steps).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move {
            if !self.is_pooled().await? {
                let slot = self.connections.take().await?;
                return slot.pool().fetch_optional(query).await;
            }
            let mut tx = self.begin_with("begin").await?;
            let row = (&mut *tx).fetch_optional(query).await?;
            tx.commit().await?;
            Ok(row)
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'p: 'e,
    {
        self.connections.first().prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'p: 'e,
    {
        self.connections.first().describe(sql)
    }
}

/// A transaction; rolled back when it is dropped.
pub(crate) struct Tx(Statements);

impl Tx {
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.0.inner.commit().await
    }

    pub async fn rollback(self) -> Result<(), sqlx::Error> {
        self.0.inner.rollback().await
    }

    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.0.inner
    }
}

impl Deref for Tx {
    type Target = Statements;
    fn deref(&self) -> &Statements {
        &self.0
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Statements {
        &mut self.0
    }
}

/// Executes the statements of a transaction: prepared and cached on a direct connection, unnamed behind a pooler.
pub(crate) struct Statements {
    inner: Transaction<'static, Postgres>,
    is_pooled: bool,
    /// Free again after `inner` has given its connection back.
    _slot: Slot,
}

impl fmt::Debug for Statements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statements").field("is_pooled", &self.is_pooled).finish_non_exhaustive()
    }
}

impl<'c> Executor<'c> for &'c mut Statements {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> Steps<'e>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let connection: &'c mut PgConnection = &mut self.inner;
        if self.is_pooled { connection.fetch_many(Unnamed(query)) } else { connection.fetch_many(query) }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let connection: &'c mut PgConnection = &mut self.inner;
        if self.is_pooled { connection.fetch_optional(Unnamed(query)) } else { connection.fetch_optional(query) }
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        let connection: &'c mut PgConnection = &mut self.inner;
        connection.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        let connection: &'c mut PgConnection = &mut self.inner;
        connection.describe(sql)
    }
}

/// A query with an unnamed statement.
struct Unnamed<E>(E);

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Unnamed<E> {
    fn sql(self) -> SqlStr {
        self.0.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        None
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, sqlx::error::BoxDynError> {
        self.0.take_arguments()
    }

    fn persistent(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transactions_own_settings_come_after_those_of_all() {
        let all = "; set local statement_timeout = '10000'";
        assert_eq!(
            beginning("begin; set local statement_timeout = '10min'", all),
            "begin; set local statement_timeout = '10000'; set local statement_timeout = '10min'"
        );
        assert_eq!(beginning("begin", all), format!("begin{all}"));
    }
}
