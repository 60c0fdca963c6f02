//! The schema, brought up to date under a lock. Migrations only add; a release later the old is taken away.
//!
//! After the migrations: the view `public.celery_taskmeta` (unless something that is not ours has the name), and the guard of
//! the feed: a database restored into a cluster with younger transaction ids must not give positions below the old ones.

use sqlx::PgPool;
use sqlx::migrate::Migrator;

use crate::Error;

use super::pool::{self, PostgresConfig, unlimited};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

pub(super) const LOCK: &str = "select pg_advisory_xact_lock(7310319, 0)";

pub(super) const GUARD_FEED: &str = "update taskgate.ledger set feed_offset = feed_offset + e.ahead from (\
     select coalesce(max(feed), 0) - feed_offset - (pg_current_xact_id()::text::bigint << 20) + 1 as ahead \
     from taskgate.ledger left join (select feed from taskgate.event order by feed desc limit 1) newest on true \
     group by feed_offset) e where e.ahead > 0";

/// Celery's names and types. Arguments that the catalog masks are not shown, nor ones whose message is gone.
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
        select t.task_no as id, t.task_id, t.status, t.result,
               to_timestamp(t.finished_at / 1000000.0) at time zone 'UTC' as date_done,
               t.traceback, t.name,
               case when (t.options::json -> 'redact') is null then m.body::json ->> 0 end as args,
               case when (t.options::json -> 'redact') is null then m.body::json ->> 1 end as kwargs,
               t.worker, t.retries, t.queue
        from taskgate.task t left join taskgate.message m on m.task_no = t.task_no;
    comment on view public.celery_taskmeta is 'taskgate: tasks as Celery''s database backend shows them';
exception when insufficient_privilege then
    raise notice 'no right to create public.celery_taskmeta';
end
$$";

pub(super) async fn migrate(config: &PostgresConfig) -> Result<(), Error> {
    let pool = unlimited(config)?;
    let mut migrator = Migrator::with_migrations(MIGRATIONS.iter().cloned().collect());
    migrator.dangerous_set_table_name("taskgate.migration");
    create_schema(&pool).await?;
    // A newer release may have been here: its migrations only add.
    migrator.set_ignore_missing(true);
    migrator.run(&pool).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::Execute(error) => error.into(),
        other => Error::Migration(Box::new(other)),
    })?;
    let mut tx = pool::begin(&pool).await?;
    sqlx::query(LOCK).execute(&mut *tx).await?;
    sqlx::raw_sql(VIEW).execute(&mut *tx).await?;
    sqlx::query(GUARD_FEED).execute(&mut *tx).await?;
    tx.commit().await?;
    pool.close().await;
    Ok(())
}

/// `create schema if not exists` of two replicas at once can fail in one of them.
async fn create_schema(pool: &PgPool) -> Result<(), Error> {
    let mut tx = pool::begin(pool).await?;
    sqlx::query(LOCK).execute(&mut *tx).await?;
    sqlx::raw_sql("create schema if not exists taskgate").execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}
