//! The schema, brought up to date. Migrations only add; the view `celery_taskmeta` is made anew each time.

use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::migrate::Migrator;
use tokio::time::Instant;

use super::pool::{BUSY, Tx};
use crate::Error;
use crate::error::OldShape;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Celery's names. Arguments that the catalog masks are not shown, nor ones whose message is gone.
pub(super) const DROP_VIEW: &str = "drop view if exists celery_taskmeta";
pub(super) const VIEW: &str = "create view celery_taskmeta as \
     select t.task_no as id, t.task_id, t.status, t.result, \
     strftime('%Y-%m-%d %H:%M:%f', t.finished_at / 1000000.0, 'unixepoch') as date_done, t.traceback, t.name, \
     case when t.options ->> 'redact' is null then m.body -> 0 end as args, \
     case when t.options ->> 'redact' is null then m.body -> 1 end as kwargs, \
     t.worker, t.retries, t.queue from task t left join message m on m.task_no = t.task_no";

const KEEP: &str = "move its file away, where it stays readable with `sqlite3`, and start again";

/// Between two looks at a file that another process makes.
const BREATH: Duration = Duration::from_millis(20);

pub(super) async fn migrate(pool: &SqlitePool) -> Result<(), Error> {
    let mut migrator = Migrator::with_migrations(MIGRATIONS.iter().cloned().collect());
    // A newer release may have been here: its migrations only add.
    migrator.set_ignore_missing(true);
    // Two processes that open one file: the second waits for this lock and finds nothing to do.
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

/// Whoever opens a new file first turns it to WAL. SQLite lets nobody wait for that: the others are told at once that it is locked.
async fn begin(pool: &SqlitePool) -> Result<Tx, Error> {
    let until = Instant::now() + BUSY;
    loop {
        match pool.begin_with("begin immediate").await.map_err(Error::from) {
            Err(error) if error.is_transient() && Instant::now() < until => tokio::time::sleep(BREATH).await,
            begun => return begun,
        }
    }
}
