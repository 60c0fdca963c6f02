//! Connections to PostgreSQL: settings that all statements rely on, and the meaning of the driver's errors.
//!
//! The pool is lazy, so that a gateway may start while its database still boots. The planner is told to use indexes: the
//! ledger's statements are all point look-ups and index ranges, and a plan made while a table was empty must not scan it
//! once it holds millions of rows. For the same reason each statement is planned once for each connection, not five times. Counting
//! a backlog is limited to one core, because submissions need the others.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgPool, Postgres, Transaction};

use super::pooled::{Door, Pool};
use super::slots::Slots;
use crate::Error;

pub(super) use super::pooled::Tx;

/// How to reach the database.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:port/database`, with libpq's parameters.
    pub url: String,
    /// The URL of the server itself if `url` points to a pooler, for LISTEN and migrations. Default: `url`.
    pub direct_url: Option<String>,
    /// Default 10: for concurrent passes of services and some readers. Services that write one batch after the other have further, dedicated
    /// connections.
    pub max_connections: u32,
    /// How long a call waits for a connection before the ledger counts as down. Default 3 s.
    pub acquire_timeout: Duration,
    /// The server ends a statement that runs longer. Default 10 s.
    pub statement_timeout: Duration,
}

impl PostgresConfig {
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            direct_url: None,
            max_connections: 10,
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(10),
        }
    }

    /// The configuration for the server itself.
    pub(super) fn direct(&self) -> Self {
        let url = self.direct_url.clone().unwrap_or_else(|| self.url.clone());
        Self { url, direct_url: None, ..self.clone() }
    }
}

/// The server ends a transaction that is idle for longer, because its gateway is lost, and frees its locks. Longer than the relay may
/// hold its rows while it publishes.
const IDLE_IN_TRANSACTION: &str = "15000";

/// Size of the statement cache: more than there are statements, so that none is prepared twice on a connection.
const STATEMENTS: usize = 256;

/// A connection that was idle for longer is pinged before it is used.
const RESTED: Duration = Duration::from_secs(1);

fn parsed(config: &PostgresConfig) -> Result<PgConnectOptions, sqlx::Error> {
    // A pooler refuses this parameter, and it is not needed because all values are read as binary.
    Ok(PgConnectOptions::from_str(&config.url)?.application_name("taskgate").extra_float_digits(None))
}

/// Options for the server itself, without statement timeouts.
pub(super) fn direct_options(config: &PostgresConfig) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(parsed(config)?.statement_cache_capacity(STATEMENTS).options([
        ("jit", "off"),
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
    ]))
}

/// Options for a pooler, which refuses unknown parameters and cannot keep prepared statements.
pub(super) fn pooled_options(config: &PostgresConfig) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(parsed(config)?.statement_cache_capacity(0))
}

/// All settings that the statements rely on.
fn settings(config: &PostgresConfig) -> Vec<(&'static str, String)> {
    let plain = [
        ("search_path", "taskgate"),
        ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION),
        ("plan_cache_mode", "force_generic_plan"),
        ("max_parallel_workers_per_gather", "0"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
    ];
    let mut settings: Vec<_> = plain.map(|(name, value)| (name, value.to_owned())).into();
    settings.push(("statement_timeout", config.statement_timeout.as_millis().to_string()));
    settings
}

/// Options with all settings, for a connection to the server itself.
pub(super) fn writing_options(config: &PostgresConfig) -> Result<PgConnectOptions, Error> {
    Ok(direct_options(config)?.options(settings(config)))
}

pub(super) fn pool(config: &PostgresConfig, door: &Arc<Door>) -> Result<Pool, Error> {
    let each = PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(config.acquire_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                // An idle connection may have died with its server; checking it here keeps a call from failing.
                if meta.idle_for > RESTED { connection.ping().await.map(|()| true) } else { Ok(true) }
            })
        });
    let connections = Slots::new(&each, &writing_options(config)?);
    let mut settings = settings(config);
    settings.push(("jit", "off".to_owned()));
    Ok(Pool::new(connections, Arc::clone(door), &settings))
}

/// A pool without statement timeouts, for migrations and for listening. It connects to the server itself, if its address is configured.
/// A migration takes as long as it needs, so a slow statement is nothing to warn of.
pub(super) fn unlimited(config: &PostgresConfig) -> Result<Pool, Error> {
    let config = config.direct();
    let options = PgPoolOptions::new().max_connections(1).acquire_timeout(config.acquire_timeout);
    let connections = Slots::new(&options, &direct_options(&config)?.disable_statement_logging());
    Ok(Pool::new(connections, Door::new(&config), &[]))
}

pub(super) async fn begin(pool: &Pool) -> Result<Tx, Error> {
    begin_as(pool, "begin").await
}

/// Begins a transaction in a spawned task, which finishes even if the caller is dropped. Otherwise the driver would lose track of a
/// transaction whose BEGIN was cancelled: its connection would go back to the pool, and other statements would become part of the
/// transaction, keep their locks, and be rolled back in the end.
pub(super) async fn begin_as(pool: &Pool, statement: &'static str) -> Result<Tx, Error> {
    let pool = pool.clone();
    #[expect(clippy::disallowed_methods, reason = "ends by itself: its waits are those of the pool")]
    let beginning = tokio::spawn(async move { pool.begin_with(statement).await });
    Ok(beginning.await.map_err(|error| Error::Unavailable(Box::new(error)))??)
}

/// As [`begin`], in a database that is not the ledger's.
pub(crate) async fn begin_elsewhere(pool: &PgPool) -> Result<Transaction<'static, Postgres>, Error> {
    let pool = pool.clone();
    #[expect(clippy::disallowed_methods, reason = "ends by itself: its waits are those of the pool")]
    let beginning = tokio::spawn(async move { pool.begin().await });
    Ok(beginning.await.map_err(|error| Error::Unavailable(Box::new(error)))??)
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if is_transient(&error) { Self::Unavailable(Box::new(error)) } else { Self::Refused(Box::new(error)) }
    }
}

pub(super) fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            if code.len() == 5 { is_transient_sqlstate(&code) } else { crate::sqlite::is_transient_code(&code) }
        }
        _ => false,
    }
}

/// Connection lost (08), out of resources (53), cancelled or shutting down (57), deadlock or serialization (40),
/// lock not available (55P03), a replica that only reads (25006), a transaction that paused for too long (25P03).
fn is_transient_sqlstate(code: &str) -> bool {
    let single = ["55P03", "25006", "25P03"];
    ["08", "53", "57", "40"].iter().any(|class| code.starts_with(class)) || single.contains(&code)
}

/// Whether another transaction took the same key first.
pub(super) fn is_unique_violation(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.is_unique_violation())
}

/// Whether this transaction lost a deadlock, so that it may be repeated.
pub(super) fn is_deadlock(error: &Error) -> bool {
    let (Error::Unavailable(source) | Error::Refused(source)) = error else { return false };
    let Some(sqlx::Error::Database(error)) = source.downcast_ref::<sqlx::Error>() else { return false };
    error.code().is_some_and(|code| code == "40P01" || code == "40001")
}

/// Whether the partition for the newest numbers is missing.
pub(super) fn is_without_partition(error: &Error) -> bool {
    let Error::Refused(source) = error else { return false };
    let Some(sqlx::Error::Database(error)) = source.downcast_ref::<sqlx::Error>() else { return false };
    error.code().is_some_and(|code| code == "23514") && error.constraint().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_starts_or_stops_is_away_and_a_broken_rule_is_not() {
        for code in ["08006", "53300", "57P01", "57P03", "57014", "40P01", "25006", "25P03"] {
            assert!(is_transient_sqlstate(code), "{code}");
        }
        for code in ["23505", "22021", "42P01"] {
            assert!(!is_transient_sqlstate(code), "{code}");
        }
    }
}
