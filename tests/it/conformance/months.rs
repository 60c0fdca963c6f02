//! What only PostgreSQL has: a history partitioned by month, dropped a partition at a time, and a schema that begins anew.

use std::time::Duration;

use celery::task::{Phase, TaskId};
use ledger::{Error, Filter};
use sqlx::{Connection, Executor, PgConnection};

use super::fixture::{Fixture, T0, after, new_id, record};
use crate::harness::postgres::query;

/// The days of November 2025, in which the tests' own time is.
const NOVEMBER: &str = "date '2025-11-01' - date '1970-01-01', date '2025-12-01' - date '1970-01-01', '202511'";

/// From now on task numbers are from November 2025.
fn back_to_november(ledger: &Fixture) {
    query(&ledger.url, &format!("select taskgate.make_partitions({NOVEMBER})"));
    let day = T0.0 / 86_400_000_000;
    query(&ledger.url, &format!("select setval('taskgate.task_no', {day}::bigint << 32)"));
}

async fn finished(ledger: &Fixture) -> TaskId {
    let id = new_id();
    ledger.queue(&id).await;
    ledger.learn(&[record(&id, Phase::Succeeded, 5)], true).await.unwrap();
    id
}

fn partitions(ledger: &Fixture) -> String {
    let sql = "select string_agg(c.relname, ' ' order by c.relname) from pg_inherits i join pg_class c on c.oid = i.inhrelid \
               where i.inhparent = 'taskgate.task'::regclass";
    query(&ledger.url, sql)
}

const DAYS: Duration = Duration::from_hours(24);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_month_that_is_over_is_dropped_whole_and_its_ids_are_remembered() {
    let ledger = Fixture::postgres().await;
    back_to_november(&ledger);
    let old = [finished(&ledger).await, finished(&ledger).await];
    ledger.migrate().await.unwrap();
    let recent = finished(&ledger).await;
    let (limit, now) = (T0.plus(DAYS * 30), T0.plus(DAYS * 120));

    assert_eq!(ledger.prune(T0.plus(DAYS * 5), 100, now).await.unwrap(), 0, "the month is not over yet");
    assert_eq!(ledger.prune(limit, 100, now).await.unwrap(), 2);
    assert_eq!(ledger.prune(limit, 100, now).await.unwrap(), 0);
    for id in &old {
        assert!(ledger.ledger.task(id).await.unwrap().is_none());
        assert_eq!(ledger.tombstone(id.as_str()).await.unwrap(), Some(now));
    }
    assert_eq!(ledger.tombstone(new_id().as_str()).await.unwrap(), None, "this ledger never saw that one");
    assert_eq!(ledger.phase(&recent).await, Phase::Succeeded);
    assert!(!partitions(&ledger).contains("202511"), "{}", partitions(&ledger));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_month_with_a_task_that_runs_or_ended_late_stays() {
    let ledger = Fixture::postgres().await;
    back_to_november(&ledger);
    finished(&ledger).await;
    let slow = new_id();
    ledger.queue(&slow).await;
    ledger.migrate().await.unwrap();
    let (limit, now) = (T0.plus(DAYS * 30), T0.plus(DAYS * 120));
    assert_eq!(ledger.prune(limit, 100, now).await.unwrap(), 0);
    ledger.learn(&[record(&slow, Phase::Succeeded, 31 * 86_400)], true).await.unwrap();
    assert_eq!(ledger.prune(limit, 100, now).await.unwrap(), 0);
    assert_eq!(ledger.prune(limit.plus(DAYS * 2), 100, now).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_missing_is_made_when_a_task_needs_it() {
    let ledger = Fixture::postgres().await;
    let mut connection = PgConnection::connect(&ledger.url).await.unwrap();
    let drop_all = "do $$ declare one text; begin for one in select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid \
         where i.inhparent::regclass::text like 'taskgate.%' and c.relkind = 'r' loop execute 'drop table taskgate.' || one; end loop; end $$";
    connection.execute(drop_all).await.unwrap();
    let id = new_id();
    ledger.accept(&id).await;
    assert_eq!(ledger.phase(&id).await, Phase::Accepted);
    assert_eq!(partitions(&ledger).split(' ').count(), 3, "this month and the next two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_is_taken_in_any_month() {
    let ledger = Fixture::postgres().await;
    back_to_november(&ledger);
    let old = finished(&ledger).await;
    ledger.migrate().await.unwrap();
    let again = super::fixture::alone(super::fixture::task(&old));
    assert!(matches!(ledger.try_insert(again).await, Err(ledger::Conflict::TaskId(id)) if id == old));
    let late = ledger.learn(&[record(&old, Phase::Succeeded, 9)], true).await.unwrap();
    assert!(late.is_empty(), "its late news finds it: {late:?}");
    assert_eq!(ledger.request_revoke(&old, after(9)).await.unwrap().map(|task| task.id), Some(old));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_a_month_ahead_and_back_loses_nobody() {
    let ledger = Fixture::postgres().await;
    let before = finished(&ledger).await;
    // As after a clock that ran ahead: numbers are from a future month, which has no partition.
    query(
        &ledger.url,
        "select setval('taskgate.task_no', ((select last_value >> 32 from taskgate.task_no) + 200) << 32)",
    );
    let during = finished(&ledger).await;
    let waiting = new_id();
    ledger.queue(&waiting).await;
    ledger.migrate().await.unwrap();
    let after = new_id();
    ledger.accept(&after).await;
    assert_eq!(ledger.phase(&before).await, Phase::Succeeded);
    assert_eq!(ledger.phase(&during).await, Phase::Succeeded);
    ledger.learn(&[record(&waiting, Phase::Succeeded, 9)], true).await.unwrap();
    assert_eq!(ledger.phase(&waiting).await, Phase::Succeeded);
    let (during, after) = (ledger.task(&during).await.no, ledger.task(&after).await.no);
    assert!(during < after, "the order of acceptance stays");
    let again = super::fixture::alone(super::fixture::task(&before));
    assert!(matches!(ledger.try_insert(again).await, Err(ledger::Conflict::TaskId(_))), "ids stay taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_was_killed_in_the_middle_is_finished_by_the_next() {
    use crate::harness::gateway::run;
    let url = crate::harness::postgres::cluster().empty_database();
    let killed = run(&["migrate"], &[("DATABASE_URL", url.as_str()), ("TASKGATE_CRASH_AT", "half_migrated")]);
    assert!(!killed.status.success());
    assert_eq!(query(&url, "select to_regclass('public.celery_taskmeta') is null"), "t");
    crate::harness::gateway::migrate(&url);
    assert_eq!(query(&url, "select count(*) from public.celery_taskmeta"), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_of_the_shape_before_is_refused_and_left_alone() {
    let url = crate::harness::postgres::cluster().empty_database();
    query(&url, "create schema taskgate; create table taskgate.unfinished (task_no bigint primary key)");
    let config = ledger::postgres::PostgresConfig::new(&url);
    let ledger =
        ledger::postgres::PostgresLedger::connect(&config, tokio_util::sync::CancellationToken::new()).unwrap();
    let Err(Error::Migration(why)) = ledger::Ledger::migrate(&ledger).await else { panic!("it is refused") };
    assert!(why.to_string().contains("alter schema taskgate rename"), "{why}");
    assert_eq!(query(&url, "select count(*) from pg_tables where schemaname = 'taskgate'"), "1");
}

/// A transaction that was rolled back, a new day and a crash all leave numbers unused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_that_no_task_has_hide_nothing_from_a_list_up_to_now() {
    let ledger = Fixture::postgres().await;
    let ids = [new_id(), new_id(), new_id()];
    for id in &ids {
        ledger.accept(id).await;
    }
    query(&ledger.url, "select setval('taskgate.task_no', last_value + 1000) from taskgate.task_no");
    let mut listed = ledger.list(Filter { to: Some(after(3_600)), ..Filter::default() }).await;
    listed.reverse();
    assert_eq!(listed, ids);
}
