//! The inbox: calls that an application's transaction wrote into the application's own PostgreSQL; they become tasks when it commits.
//!
//! The rows are locked in a transaction, passed to the caller, who makes tasks of them, and deleted in the same transaction. If a gateway
//! dies in between, the rows stay, and another gateway claims them. The application's side chose the ids, so calls that are tasks already
//! are recognised. All statements with values run in transactions and are unnamed, and no session settings are used, because PgBouncer in
//! transaction mode may be in between.

mod schema;

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{PgPool, Postgres, Row, Transaction};

use crate::Error;
use crate::postgres::begin_elsewhere;
use runtime::clock::Time;

pub use schema::{INSTALL, Removed, Status, install, remove, status};

/// Maximum number of connections, for claims and for look-ups of single ids.
const CONNECTIONS: u32 = 3;
/// Timeout for getting a connection.
const PATIENCE: Duration = Duration::from_secs(3);

const CHANNEL: &str = "taskgate_inbox";

/// Timeouts, so that a hanging gateway does not lock the rows for ever.
const LIMITS: &str = "set local statement_timeout = '10s'; set local idle_in_transaction_session_timeout = '60s'";

/// Returns null over a Unix socket.
const SERVER_PORT: &str = "select inet_server_port()";

const CLAIM: &str = "select inbox_no, task_id, task, enqueued_at, call from taskgate.inbox order by inbox_no \
     limit $1 for update skip locked";
const REMOVE: &str = "delete from taskgate.inbox where inbox_no = any($1)";
/// Finds a call by its id, or a canvas by the id of any of its steps.
const FIND: &str = "select inbox_no, task_id, task, enqueued_at, call from taskgate.inbox \
     where task_id = $1 or (task = '' and position(to_json($1::text)::text in call) > 0) limit 1";

const WAITING: &str = "select count(*), min(enqueued_at) from taskgate.inbox";

/// A call that waits in an inbox.
#[derive(Debug, Clone)]
pub struct Call {
    pub no: i64,
    /// The id that `enqueue` returned.
    pub task_id: String,
    /// Empty for a canvas.
    pub task: String,
    pub enqueued_at: Time,
    /// JSON, like the body of `POST /v1/tasks`.
    pub text: String,
}

/// A database with an inbox. Connects when it is used.
pub struct Inbox {
    pool: PgPool,
    options: PgConnectOptions,
}

/// Calls whose rows are locked. If this is dropped, they stay in the inbox.
pub struct Claimed {
    tx: Transaction<'static, Postgres>,
    pub calls: Vec<Call>,
}

impl Inbox {
    /// # Errors
    /// When the URL is invalid.
    pub fn open(url: &str) -> Result<Self, Error> {
        let options = options(url)?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .idle_timeout(Duration::from_secs(60))
            .connect_lazy_with(options.clone());
        Ok(Self { pool, options })
    }

    /// Locks up to `limit` of the oldest calls that no other gateway has claimed.
    ///
    /// # Errors
    /// When the database does not answer or has no inbox.
    pub async fn claim(&self, limit: i64) -> Result<Claimed, Error> {
        let mut tx = begin_elsewhere(&self.pool).await?;
        sqlx::raw_sql(LIMITS).execute(&mut *tx).await?;
        let rows = sqlx::query(CLAIM).persistent(false).bind(limit).fetch_all(&mut *tx).await?;
        let calls = rows.iter().map(call).collect::<Result<_, Error>>()?;
        Ok(Claimed { tx, calls })
    }

    /// The call of this id, if it is committed and not a task yet.
    ///
    /// # Errors
    /// As [`Inbox::claim`].
    pub async fn find(&self, id: &str) -> Result<Option<Call>, Error> {
        let mut tx = begin_elsewhere(&self.pool).await?;
        let row = sqlx::query(FIND).persistent(false).bind(id).fetch_optional(&mut *tx).await?;
        tx.commit().await?;
        row.as_ref().map(call).transpose()
    }

    /// How many calls wait, and since when the oldest one has waited.
    ///
    /// # Errors
    /// As [`Inbox::claim`].
    pub async fn waiting(&self) -> Result<(i64, Option<Time>), Error> {
        let row = sqlx::raw_sql(WAITING).fetch_one(&self.pool).await?;
        Ok((row.try_get(0)?, row.try_get::<Option<i64>, _>(1)?.map(Time)))
    }

    /// Whether the connection goes to the server itself. A PgBouncer in transaction mode would deliver notifications to the wrong client; it
    /// is recognised by its port.
    async fn is_direct(&self) -> Result<bool, Error> {
        let row = sqlx::raw_sql(SERVER_PORT).fetch_one(&self.pool).await?;
        let port: Option<i32> = row.try_get(0)?;
        Ok(port.is_none_or(|port| port == i32::from(self.options.get_port())))
    }

    /// Calls `wake` at every commit of a call, until the connection is lost. Behind a pooler it waits for ever and calls nothing.
    ///
    /// # Errors
    /// The loss of the connection.
    pub async fn listen(&self, wake: impl Fn()) -> Result<std::convert::Infallible, Error> {
        if !self.is_direct().await? {
            return std::future::pending().await;
        }
        let pool =
            PgPoolOptions::new().max_connections(1).acquire_timeout(PATIENCE).connect_lazy_with(self.options.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        // Calls from before the LISTEN may wait already.
        wake();
        loop {
            match listener.try_recv().await? {
                Some(_) => wake(),
                None => return Err(Error::from(sqlx::Error::PoolClosed)),
            }
        }
    }
}

impl Claimed {
    /// Deletes these calls from the inbox and releases the others.
    ///
    /// # Errors
    /// When the database does not answer: then all are claimed again later.
    pub async fn settle(mut self, done: &[i64]) -> Result<(), Error> {
        if !done.is_empty() {
            sqlx::query(REMOVE).persistent(false).bind(done).execute(&mut *self.tx).await?;
        }
        self.tx.commit().await?;
        Ok(())
    }
}

fn call(row: &sqlx::postgres::PgRow) -> Result<Call, Error> {
    Ok(Call {
        no: row.try_get(0)?,
        task_id: row.try_get(1)?,
        task: row.try_get(2)?,
        enqueued_at: Time(row.try_get(3)?),
        text: row.try_get(4)?,
    })
}

/// Connection options without startup parameters that a PgBouncer would refuse.
fn options(url: &str) -> Result<PgConnectOptions, Error> {
    let options = PgConnectOptions::from_str(url).map_err(|error| Error::Refused(Box::new(error)))?;
    Ok(options.application_name("taskgate inbox").extra_float_digits(None).statement_cache_capacity(0))
}
