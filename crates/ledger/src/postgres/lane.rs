//! A connection of its own for a caller that sends single statements one after the other.
//!
//! What the server keeps for a connection (plans, caches of the catalog) stays warm on one, and is cold on most of a pool that takes
//! turns. And the pool asks each connection that comes back whether it lives: one more round trip for each statement.

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

/// One that was idle for longer is asked whether it lives: under load it never is.
const RESTED: Duration = Duration::from_millis(100);
/// The server's own limit comes first.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

/// Opened when it is first used, and again after every loss.
pub(super) struct Lane {
    options: PgConnectOptions,
    /// How long a call waits for its turn and a connection.
    patience: Duration,
    /// How long for an answer: longer than the server lets a statement run, so it is the connection that is at fault.
    limit: Duration,
    door: Arc<Door>,
    open: Mutex<Option<Open>>,
}

struct Open {
    connection: PgConnection,
    used: Instant,
}

/// The connection, for one caller. Whoever does not [`put it back`](Taken::keep) closes it.
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

    /// Waits for a statement's answer, and not for ever: a network that swallows packets tells nobody.
    ///
    /// # Errors
    /// Those of the statement; without an answer its outcome is unknown, as after a lost connection.
    pub async fn limited<T>(&self, statement: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        let silence = || Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
        tokio::time::timeout(self.limit, statement).await.unwrap_or_else(|_| silence())
    }

    /// `None` behind a pooler, where no connection is anybody's own: the caller uses the pool.
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

/// One that rested may have died with its server: better found here than by a statement.
async fn alive(open: Option<Open>) -> Option<PgConnection> {
    let Open { mut connection, used } = open?;
    if used.elapsed() > RESTED {
        connection.ping().await.ok()?;
    }
    Some(connection)
}

impl Taken<'_> {
    /// After a statement: the next caller gets the connection, unless it is of no use any more.
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
