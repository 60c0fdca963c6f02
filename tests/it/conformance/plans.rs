//! No statement of the PostgreSQL ledger reads a table that grows from end to end.

use ledger::postgres::STATEMENTS;
use sqlx::{AssertSqlSafe, Connection, Executor, Row, SqlSafeStr, Statement};

use super::fixture::Fixture;

/// A row each, or one per queue, worker, schedule, API token or finding: scanning them is right.
const SMALL: &[&str] = &[
    "ledger",
    "finding",
    "queue_pause",
    "lease",
    "worker",
    "pause_consumer",
    "relay_mark",
    "revocation",
    "schedule",
    "stat_mark",
    "token",
    "token_change",
    "trace_mark",
    "webhook_mark",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_scans_a_table_that_grows() {
    let ledger = Fixture::postgres().await;
    let mut connection = sqlx::PgConnection::connect(&ledger.url).await.unwrap();
    // As the ledger's own connections are set: a scan then means that there is no index to use.
    connection
        .execute("set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off")
        .await
        .unwrap();
    for &statement in STATEMENTS {
        let prepared = (&mut connection).prepare(statement.into_sql_str()).await.unwrap();
        let parameters = prepared.parameters().map_or(0, |either| either.either(<[_]>::len, |count| count));
        let arguments = vec!["null"; parameters].join(", ");
        let arguments = if parameters == 0 { String::new() } else { format!("({arguments})") };
        connection.execute(AssertSqlSafe(format!("prepare p as {statement}"))).await.unwrap();
        let plan =
            sqlx::raw_sql(AssertSqlSafe(format!("explain execute p{arguments}"))).fetch_all(&mut connection).await;
        connection.execute("deallocate p").await.unwrap();
        for line in plan.unwrap() {
            let line: String = line.get(0);
            let scanned = line.split_once("Seq Scan on ").map(|(_, rest)| rest.split(' ').next().unwrap_or_default());
            assert!(scanned.is_none_or(|table| SMALL.contains(&table)), "{line}: {statement}");
        }
    }
}

/// Reads every month on purpose: an id that says no time may be in any of them, and each is one look into an index.
const ANYWHERE: &[&str] = &[];

/// Months that the ledger of the test has; a statement with a bound opens two or three.
const MONTHS: usize = 14;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_of_a_bounded_question_opens_every_month() {
    let ledger = Fixture::postgres().await;
    let mut connection = sqlx::PgConnection::connect(&ledger.url).await.unwrap();
    let months = "select taskgate.make_partitions(m.at::date - date '1970-01-01', (m.at + interval '1 month')::date - date '1970-01-01', \
         to_char(m.at, 'YYYYMM')) from generate_series(timestamp '2024-01-01', timestamp '2024-12-01', interval '1 month') as m(at)";
    connection.execute(months).await.unwrap();
    connection
        .execute("set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off")
        .await
        .unwrap();
    let mut wide = Vec::new();
    for &statement in STATEMENTS {
        connection.execute(AssertSqlSafe(format!("prepare p as {statement}"))).await.unwrap();
        let prepared = (&mut connection).prepare(statement.into_sql_str()).await.unwrap();
        let parameters = prepared.parameters().map_or(0, |either| either.either(<[_]>::len, |count| count));
        let arguments =
            if parameters == 0 { String::new() } else { format!("({})", vec!["null"; parameters].join(", ")) };
        let plan =
            sqlx::raw_sql(AssertSqlSafe(format!("explain execute p{arguments}"))).fetch_all(&mut connection).await;
        connection.execute("deallocate p").await.unwrap();
        let plan: Vec<String> = plan.unwrap().iter().map(|row| row.get(0)).collect();
        let opened =
            plan.iter().filter(|line| line.contains(" on task_2024") || line.contains(" on ended_2024")).count();
        if opened >= MONTHS - 2 && !ANYWHERE.iter().any(|known| statement.starts_with(known)) {
            wide.push(statement);
        }
    }
    assert!(wide.is_empty(), "{} statements: {wide:#?}", wide.len());
}
