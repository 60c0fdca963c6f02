//! Migrates the schema under a lock. Migrations only add; old parts are removed a release later.
//!
//! After the migrations it creates the view `public.celery_taskmeta` (unless the name is taken by something else) and the inbox, and
//! guards the feed: a database restored into a cluster with lower transaction ids must not assign positions below the old ones.

use sqlx::Row;
use sqlx::migrate::Migrator;

use crate::Error;
use crate::error::OldShape;
use crate::inbox;
use crate::statements::statements;
use runtime::crash_points;

use super::pool::{self, PostgresConfig, unlimited};
use super::pooled::Pool;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

statements! {
    LOCK = "select pg_advisory_xact_lock(7310319, 0)";
    /// Moves the feed's offset; a row of the feed has at most a thousand events.
    GUARD_FEED = "update taskgate.ledger set feed_offset = feed_offset + e.ahead from (\
         select coalesce(max(newest.pos) + 1000, 0) - feed_offset - (pg_current_xact_id()::text::bigint << 20) as ahead \
         from taskgate.ledger left join (select pos from taskgate.feed order by pos desc limit 1) newest on true \
         group by feed_offset) e where e.ahead > 0";
    /// Creates partitions ahead and moves the numbers to the present day. Does nothing when that is done.
    ROLL = "select taskgate.roll()";
}

/// Drops the named statements that the driver prepares for migrations. A pooler gives the connection to other clients afterwards, whose
/// statements would fail if their names were taken.
const FORGET_STATEMENTS: &str = r"
do $$
declare name text;
begin
    for name in select p.name from pg_prepared_statements p where p.name like 'sqlx\_s\_%' loop
        execute format('deallocate %I', name);
    end loop;
end
$$";

/// Recognises a ledger from before its tables were partitioned.
const OLD_SHAPE: &str = "select to_regclass('taskgate.unfinished') is not null";

const KEEP: &str = "keep its data with `alter schema taskgate rename to taskgate_before` (it stays readable with SQL), or with \
     `pg_dump --schema taskgate` and then `drop schema taskgate cascade`, and migrate again";

/// A view with Celery's names and types. Masked arguments are not shown, nor arguments whose message was pruned.
const VIEW: &str = r"
do $$
begin
    if exists (select 1 from pg_class c join pg_namespace n on n.oid = c.relnamespace
               where n.nspname = 'public' and c.relname = 'celery_taskmeta'
                 and coalesce(obj_description(c.oid, 'pg_class'), '') not like 'taskgate:%') then
        raise notice 'public.celery_taskmeta is not ours and stays as it is';
        return;
    end if;
    create or replace view public.celery_taskmeta as
        select task_no as id, task_id, status, result, to_timestamp(finished_at / 1000000.0) at time zone 'UTC' as date_done,
               traceback, name,
               case when (options::json -> 'redact') is null then body::json ->> 0 end as args,
               case when (options::json -> 'redact') is null then body::json ->> 1 end as kwargs,
               worker, retries, queue
        from taskgate.tasks;
    comment on view public.celery_taskmeta is 'taskgate: tasks as Celery''s database backend shows them';
exception when insufficient_privilege then
    raise notice 'no right to create public.celery_taskmeta';
end
$$";

/// Migrates in one transaction, which stays on one server connection even through a pooler.
pub(super) async fn migrate(config: &PostgresConfig) -> Result<(), Error> {
    let pool = unlimited(config)?;
    let mut migrator = Migrator::with_migrations(MIGRATIONS.iter().cloned().collect());
    migrator.dangerous_set_table_name("taskgate.migration");
    // A newer release may have migrated the schema already: its migrations only add.
    migrator.set_ignore_missing(true);
    // The driver's own lock would outlive the transaction.
    migrator.set_locking(false);
    let mut tx = pool::begin(&pool).await?;
    sqlx::query(LOCK).execute(&mut *tx).await?;
    sqlx::raw_sql(FORGET_STATEMENTS).execute(&mut *tx).await?;
    sqlx::raw_sql("create schema if not exists taskgate").execute(&mut *tx).await?;
    if sqlx::query(OLD_SHAPE).fetch_one(&mut *tx).await?.try_get(0)? {
        return Err(Error::Migration(Box::new(OldShape { advice: KEEP })));
    }
    migrator.run_direct(None, tx.connection(), false).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::Execute(error) => error.into(),
        sqlx::migrate::MigrateError::VersionMismatch(1) => Error::Migration(Box::new(OldShape { advice: KEEP })),
        other => Error::Migration(Box::new(other)),
    })?;
    crash_points::reach(crash_points::HALF_MIGRATED);
    sqlx::raw_sql(VIEW).execute(&mut *tx).await?;
    sqlx::query(GUARD_FEED).execute(&mut *tx).await?;
    sqlx::query(ROLL).execute(&mut *tx).await?;
    sqlx::raw_sql(inbox::INSTALL).execute(&mut *tx).await?;
    sqlx::raw_sql(FORGET_STATEMENTS).execute(&mut *tx).await?;
    tx.commit().await?;
    pool.close().await;
    Ok(())
}

/// See [`ROLL`].
pub(super) async fn roll(pool: &Pool) -> Result<(), Error> {
    sqlx::query(ROLL).execute(pool).await?;
    Ok(())
}
