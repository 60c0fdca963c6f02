//! Installs, inspects and removes the inbox's table and functions in a database. Each call may be repeated.

use sqlx::{Connection, PgConnection, Row};

use super::options;
use crate::Error;
use runtime::clock::Time;

/// Creates everything of an inbox, also in the ledger's own database.
pub const INSTALL: &str = include_str!("install.sql");

const IS_INSTALLED: &str = "select to_regclass('taskgate.inbox') is not null";
const IS_LEDGER: &str = "select to_regclass('taskgate.ledger') is not null";
const WAITING: &str = "select count(*), min(enqueued_at) from taskgate.inbox";
const ANY: &str = "select exists (select 1 from taskgate.inbox)";

/// Removes the inbox, and the schema too if it is then empty.
const REMOVE: &str = "drop function taskgate.enqueue_canvas(text, text);
drop function taskgate.enqueue(text, jsonb, jsonb, jsonb);
drop function taskgate.enqueue(text, text, text, text);
drop function taskgate.inbox_json(text, text, text);
drop table taskgate.inbox;
do $$ begin drop schema taskgate; exception when dependent_objects_still_exist then null; end $$";

/// The state of a database's inbox.
#[derive(Debug, Clone)]
pub struct Status {
    pub installed: bool,
    /// Whether it is a ledger's own database.
    pub ledger: bool,
    pub waiting: i64,
    pub oldest: Option<Time>,
}

/// The outcome of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    Done,
    /// There was no inbox.
    Absent,
    /// It belongs to the ledger.
    Ledger,
    /// This many calls wait in it.
    NotEmpty(i64),
}

/// Creates or updates the inbox.
///
/// # Errors
/// When the database does not answer, or the role may not create a schema.
pub async fn install(url: &str) -> Result<(), Error> {
    let mut connection = connect(url).await?;
    let mut tx = connection.begin().await?;
    sqlx::raw_sql("select pg_advisory_xact_lock(7310319, 3)").execute(&mut *tx).await?;
    sqlx::raw_sql(INSTALL).execute(&mut *tx).await?;
    tx.commit().await?;
    connection.close().await?;
    Ok(())
}

/// # Errors
/// When the database does not answer, or the role may not read the inbox.
pub async fn status(url: &str) -> Result<Status, Error> {
    let mut connection = connect(url).await?;
    let found = read_status(&mut connection).await?;
    connection.close().await?;
    Ok(found)
}

/// Removes the inbox. With `force` the calls in it are lost.
///
/// # Errors
/// When the database does not answer, or the role is not the owner.
pub async fn remove(url: &str, force: bool) -> Result<Removed, Error> {
    let mut connection = connect(url).await?;
    let found = read_status(&mut connection).await?;
    let removed = match found {
        Status { installed: false, .. } => Removed::Absent,
        Status { ledger: true, .. } => Removed::Ledger,
        Status { waiting, .. } if waiting > 0 && !force => Removed::NotEmpty(waiting),
        Status { .. } => take_away(&mut connection, force).await?,
    };
    connection.close().await?;
    Ok(removed)
}

async fn take_away(connection: &mut PgConnection, force: bool) -> Result<Removed, Error> {
    let mut tx = connection.begin().await?;
    // The lock prevents new calls between the check and the removal.
    sqlx::raw_sql("lock table taskgate.inbox in access exclusive mode").execute(&mut *tx).await?;
    if !force && sqlx::raw_sql(ANY).fetch_one(&mut *tx).await?.try_get(0)? {
        let waiting = sqlx::raw_sql(WAITING).fetch_one(&mut *tx).await?.try_get(0)?;
        tx.rollback().await?;
        return Ok(Removed::NotEmpty(waiting));
    }
    sqlx::raw_sql(REMOVE).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(Removed::Done)
}

async fn read_status(connection: &mut PgConnection) -> Result<Status, Error> {
    let installed: bool = sqlx::raw_sql(IS_INSTALLED).fetch_one(&mut *connection).await?.try_get(0)?;
    let ledger = sqlx::raw_sql(IS_LEDGER).fetch_one(&mut *connection).await?.try_get(0)?;
    if !installed {
        return Ok(Status { installed, ledger, waiting: 0, oldest: None });
    }
    let row = sqlx::raw_sql(WAITING).fetch_one(&mut *connection).await?;
    let oldest: Option<i64> = row.try_get(1)?;
    Ok(Status { installed, ledger, waiting: row.try_get(0)?, oldest: oldest.map(Time) })
}

async fn connect(url: &str) -> Result<PgConnection, Error> {
    Ok(PgConnection::connect_with(&options(url)?).await?)
}
