//! Migrates the schema. Migrations only add; the view `celery_taskmeta` is created again each time.

use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::migrate::Migrator;
use tokio::time::Instant;

use super::pool::{BUSY, Tx};
use crate::Error;
use crate::error::OldShape;
use crate::statements::statements;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

statements! {
    /// The view with Celery's names. Masked arguments are not shown, nor arguments whose message was pruned.
    DROP_VIEW = "drop view if exists celery_taskmeta";
}
pub(super) const VIEW: &str = "create view celery_taskmeta as \
     select t.task_no as id, t.task_id, t.status, t.result, \
     strftime('%Y-%m-%d %H:%M:%f', t.finished_at / 1000000.0, 'unixepoch') as date_done, t.traceback, t.name, \
     case when t.options ->> 'redact' is null then m.body -> 0 end as args, \
     case when t.options ->> 'redact' is null then m.body -> 1 end as kwargs, \
     t.worker, t.retries, t.queue from task t left join message m on m.task_no = t.task_no";

const KEEP: &str = "move its file away, where it stays readable with `sqlite3`, and start again";

/// Pause between two attempts to open a file that another process is creating.
const BREATH: Duration = Duration::from_millis(20);

pub(super) async fn migrate(pool: &SqlitePool) -> Result<(), Error> {
    let mut migrator = Migrator::with_migrations(MIGRATIONS.iter().cloned().collect());
    // A newer release may have migrated the schema already: its migrations only add.
    migrator.set_ignore_missing(true);
    // If two processes open one file, the second waits for this lock and then finds nothing to do.
    let mut tx = begin(pool).await?;
    migrator.run_direct(None, &mut *tx, false).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::Execute(error) => error.into(),
        sqlx::migrate::MigrateError::VersionMismatch(1) => Error::Migration(Box::new(OldShape { advice: KEEP })),
        other => Error::Migration(Box::new(other)),
    })?;
    sqlx::query(DROP_VIEW).execute(&mut *tx).await?;
    sqlx::query(VIEW).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Begins a transaction, with retries: the first process that opens a new file switches it to WAL, and SQLite does not let others wait
/// for that, but returns "locked" at once.
async fn begin(pool: &SqlitePool) -> Result<Tx, Error> {
    let until = Instant::now() + BUSY;
    loop {
        match pool.begin_with("begin immediate").await.map_err(Error::from) {
            Err(error) if error.is_transient() && Instant::now() < until => tokio::time::sleep(BREATH).await,
            begun => return begun,
        }
    }
}
