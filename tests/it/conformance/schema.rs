//! Migrations, statements, the view for Celery's users, and the error while the server is down.

use std::time::Duration;

use celery::task::Phase;
use ledger::postgres::{PostgresConfig, PostgresLedger, statements as on_postgres};
use ledger::sqlite::{SqliteLedger, Synchronous, statements as on_sqlite};
use ledger::{Error, Ledger};
use sqlx::{Connection, Executor, Row, SqlSafeStr};
use tokio_util::sync::CancellationToken;

use super::fixture::{Fixture, alone, json, new_id, record, task};
use super::on_both;
use crate::harness::postgres::cluster;

on_both!(migrating_again_changes_nothing, replicas_may_migrate_at_once, a_ledger_answers_a_ping);

async fn migrating_again_changes_nothing(ledger: &Fixture) {
    let id = new_id();
    ledger.queue(&id).await;
    ledger.migrate().await.unwrap();
    ledger.another().migrate().await.unwrap();
    assert_eq!(ledger.phase(&id).await, Phase::Queued);
    assert_eq!(ledger.history(&id).await.len(), 2);
}

async fn replicas_may_migrate_at_once(ledger: &Fixture) {
    let url = if ledger.is_postgres() { cluster().empty_database() } else { format!("{}-2", ledger.url) };
    let mut replicas = Vec::new();
    for _ in 0..4 {
        let (url, on_postgres) = (url.clone(), ledger.is_postgres());
        replicas.push(tokio::spawn(async move {
            if on_postgres {
                PostgresLedger::connect(&PostgresConfig::new(url), CancellationToken::new()).unwrap().migrate().await
            } else {
                SqliteLedger::open(url, Synchronous::Full).migrate().await
            }
        }));
    }
    for replica in replicas {
        replica.await.unwrap().unwrap();
    }
}

async fn a_ledger_answers_a_ping(ledger: &Fixture) {
    ledger.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_statement_prepares_on_postgres() {
    let ledger = Fixture::postgres().await;
    let mut connection = sqlx::PgConnection::connect(&ledger.url).await.unwrap();
    connection.execute("set search_path = taskgate").await.unwrap();
    for statement in on_postgres() {
        if let Err(error) = (&mut connection).prepare(statement.into_sql_str()).await {
            panic!("{error}: {statement}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_statement_prepares_on_sqlite() {
    let ledger = Fixture::sqlite().await;
    let mut connection = sqlx::SqliteConnection::connect(&ledger.url).await.unwrap();
    for statement in on_sqlite() {
        if let Err(error) = (&mut connection).prepare(statement.into_sql_str()).await {
            panic!("{error}: {statement}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_view_shows_what_celerys_own_backend_would() {
    let ledger = Fixture::postgres().await;
    let (shown, masked) = (new_id(), new_id());
    ledger.accept(&shown).await;
    let mut secret = task(&masked);
    secret.options.redact = vec!["password".to_owned()];
    ledger.insert(alone(secret)).await;
    let mut done = record(&shown, Phase::Succeeded, 3);
    done.result = Some(json("3"));
    ledger.learn(&[done], true).await.unwrap();

    let mut connection = sqlx::PgConnection::connect(&ledger.url).await.unwrap();
    let query = "select id, status, result, date_done::text, traceback, name, args, kwargs, worker, retries, queue \
         from public.celery_taskmeta where task_id = $1";
    let row = sqlx::query(query).bind(shown.as_str()).fetch_one(&mut connection).await.unwrap();
    assert_eq!(row.get::<&str, _>("status"), "SUCCESS");
    assert_eq!(row.get::<&str, _>("result"), "3");
    assert_eq!(row.get::<&str, _>("date_done"), "2025-11-20 18:17:33");
    assert_eq!((row.get::<&str, _>("args"), row.get::<&str, _>("kwargs")), ("[1, 2]", "{}"));
    let row = sqlx::query(query).bind(masked.as_str()).fetch_one(&mut connection).await.unwrap();
    assert_eq!((row.get::<&str, _>("status"), row.get::<Option<&str>, _>("args")), ("PENDING", None));

    let ledger = Fixture::sqlite().await;
    ledger.accept(&shown).await;
    let mut connection = sqlx::SqliteConnection::connect(&ledger.url).await.unwrap();
    let row = sqlx::query("select status, args from celery_taskmeta").fetch_one(&mut connection).await.unwrap();
    assert_eq!((row.get::<&str, _>(0), row.get::<&str, _>(1)), ("PENDING", "[1,2]"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_has_the_views_name_is_left_alone() {
    let url = cluster().empty_database();
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    connection
        .execute("create table public.celery_taskmeta (id int); insert into public.celery_taskmeta values (7)")
        .await
        .unwrap();
    let ledger = PostgresLedger::connect(&PostgresConfig::new(&url), CancellationToken::new()).unwrap();
    ledger.migrate().await.unwrap();
    let row = sqlx::query("select id from public.celery_taskmeta").fetch_one(&mut connection).await.unwrap();
    assert_eq!(row.get::<i32, _>(0), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_database_goes_on_above_its_old_positions() {
    let ledger = Fixture::postgres().await;
    ledger.accept(&new_id()).await;
    let mut connection = sqlx::PgConnection::connect(&ledger.url).await.unwrap();
    // As if these rows had been written by a cluster that counted a million transactions more.
    connection.execute("update taskgate.feed set pos = pos + (1000000::bigint << 20)").await.unwrap();
    ledger.migrate().await.unwrap();
    let id = new_id();
    ledger.accept(&id).await;
    let (events, end) = ledger.feed(0, &ledger::Filter::default(), 10).await.unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!((events[1].task_id.clone(), events[1].feed), (id, end));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_makes_the_ledger_unavailable() {
    let mut config = PostgresConfig::new("postgres://postgres@127.0.0.1:1/nowhere");
    config.acquire_timeout = Duration::from_millis(300);
    let ledger = PostgresLedger::connect(&config, CancellationToken::new()).unwrap();
    assert!(matches!(ledger.ping().await, Err(Error::Unavailable(_))));
    assert!(matches!(ledger.migrate().await, Err(Error::Unavailable(_))));
    assert!(matches!(ledger.insert(&[alone(task(&new_id()))]).await, Err(Error::Unavailable(_))));
}
