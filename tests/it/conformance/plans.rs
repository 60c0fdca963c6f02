//! No statement of the PostgreSQL ledger reads a table that grows from end to end.

use ledger::postgres::statements;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, SqlSafeStr, Statement};

use super::fixture::Fixture;

/// A row each, or one per queue, worker, schedule, API token, finding or rule of a key: scanning them is right.
const SMALL: &[&str] = &[
    "audit_head",
    "ledger",
    "finding",
    "queue_pause",
    "lease",
    "limit_rule",
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

/// A connection that is set as the ledger's own are: a scan then means that there is no index to use.
async fn connection(ledger: &Fixture) -> PgConnection {
    let mut connection = PgConnection::connect(&ledger.url).await.unwrap();
    let settings = "set search_path = taskgate; set plan_cache_mode = force_generic_plan; set enable_seqscan = off; \
                    set enable_hashjoin = off; set enable_mergejoin = off";
    connection.execute(settings).await.unwrap();
    connection
}

/// The plan that any values of the parameters get, a line a node. What bounds leave out is not in it.
async fn plan(connection: &mut PgConnection, statement: &'static str) -> Vec<String> {
    let prepared = (&mut *connection).prepare(statement.into_sql_str()).await.unwrap();
    let parameters = prepared.parameters().map_or(0, |either| either.either(<[_]>::len, |count| count));
    let arguments = vec!["null"; parameters].join(", ");
    let arguments = if parameters == 0 { String::new() } else { format!("({arguments})") };
    connection.execute(AssertSqlSafe(format!("prepare p as {statement}"))).await.unwrap();
    let plan = sqlx::raw_sql(AssertSqlSafe(format!("explain execute p{arguments}"))).fetch_all(&mut *connection).await;
    connection.execute("deallocate p").await.unwrap();
    plan.unwrap().iter().map(|line| line.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_scans_a_table_that_grows() {
    let ledger = Fixture::postgres().await;
    let mut connection = connection(&ledger).await;
    let mut offences = Vec::new();
    for statement in statements() {
        for line in plan(&mut connection, statement).await {
            let scanned = line.split_once("Seq Scan on ").map(|(_, rest)| rest.split(' ').next().unwrap_or_default());
            if scanned.is_some_and(|table| !SMALL.contains(&table)) {
                offences.push(format!("{line}: {statement}"));
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}
