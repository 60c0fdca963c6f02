//! A dedicated connection for a caller that sends single statements one after the other.
//!
//! The server's per-connection state (plans, catalog caches) stays warm on one connection, but is cold on most of a pool. And the pool
//! pings each connection before use, which is one more round trip for each statement.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::pool::{self, PostgresConfig};
use super::pooled::Door;
use crate::Error;

/// A connection that was idle for longer is pinged before use; under load that never happens.
const RESTED: Duration = Duration::from_millis(100);
/// Extra time beyond the server's own statement timeout, which fires first.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

/// A connection that is opened when first used, and again after every loss.
pub(super) struct Lane {
    options: PgConnectOptions,
    /// How long a call waits for its turn and a connection.
    patience: Duration,
    /// Timeout for an answer: longer than the server lets a statement run, so exceeding it means that the connection is broken.
    limit: Duration,
    door: Arc<Door>,
    open: Mutex<Option<Open>>,
}

struct Open {
    connection: PgConnection,
    used: Instant,
}

/// The connection, for one caller. It is closed unless the caller [puts it back](Taken::keep).
pub(super) struct Taken<'a> {
    place: MutexGuard<'a, Option<Open>>,
    connection: PgConnection,
}

impl Lane {
    pub fn new(config: &PostgresConfig, door: &Arc<Door>) -> Result<Self, Error> {
        let options = pool::writing_options(config)?;
        let limit = config.statement_timeout + ON_ITS_WAY;
        Ok(Self { options, patience: config.acquire_timeout, limit, door: Arc::clone(door), open: Mutex::new(None) })
    }

    /// Waits for a statement's answer with a timeout, because a network may drop packets silently.
    ///
    /// # Errors
    /// Errors of the statement; without an answer its outcome is unknown, as after a lost connection.
    pub async fn limited<T>(&self, statement: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        let silence = || Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
        tokio::time::timeout(self.limit, statement).await.unwrap_or_else(|_| silence())
    }

    /// Takes the connection if nobody uses it; else the caller uses the pool.
    pub async fn take_free(&self) -> Result<Option<Taken<'_>>, Error> {
        if self.open.try_lock().is_err() {
            return Ok(None);
        }
        self.take().await
    }

    /// Takes the connection. `None` behind a pooler, where dedicated connections do not exist: the caller uses the pool.
    pub async fn take(&self) -> Result<Option<Taken<'_>>, Error> {
        if self.door.is_pooled().await? {
            return Ok(None);
        }
        let taking = async {
            let mut place = self.open.lock().await;
            let connection = match alive(place.take()).await {
                Some(connection) => connection,
                None => self.options.connect().await?,
            };
            Ok(Some(Taken { place, connection }))
        };
        tokio::time::timeout(self.patience, taking).await.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(Error::from)
    }
}

/// Checks a connection that was idle: it may have died with its server, and then a statement would fail.
async fn alive(open: Option<Open>) -> Option<PgConnection> {
    let Open { mut connection, used } = open?;
    if used.elapsed() > RESTED {
        connection.ping().await.ok()?;
    }
    Some(connection)
}

impl Taken<'_> {
    /// Puts the connection back after a statement, unless it is broken.
    pub fn keep<T>(mut self, done: &Result<T, sqlx::Error>) {
        if !done.as_ref().is_err_and(pool::is_transient) {
            *self.place = Some(Open { connection: self.connection, used: Instant::now() });
        }
    }
}

impl Deref for Taken<'_> {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Taken<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
