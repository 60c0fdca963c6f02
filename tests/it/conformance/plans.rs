//! No statement of the PostgreSQL ledger scans a whole table that grows, and none reads all its monthly partitions.

use ledger::postgres::statements;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, SqlSafeStr, Statement};

use super::fixture::Fixture;
use crate::harness::postgres::query;

/// Small tables: a single row, or one for each queue, worker, schedule, API token, finding or rule of a key. Scanning them is fine.
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
    "task_no",
    "trace_mark",
    "webhook_mark",
];

/// A connection with the settings of the ledger's own, so that a scan means that there is no index to use.
async fn connection(ledger: &Fixture) -> PgConnection {
    let mut connection = PgConnection::connect(&ledger.url).await.unwrap();
    let settings = "set search_path = taskgate; set plan_cache_mode = force_generic_plan; set enable_seqscan = off; \
                    set enable_hashjoin = off; set enable_mergejoin = off";
    connection.execute(settings).await.unwrap();
    connection
}

/// The generic plan, one line for each node. Partitions that the bounds exclude are not in it.
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

/// Empty partitions for months long ago.
const LONG_AGO: &str = "select taskgate.make_partitions((extract(epoch from m) / 86400)::bigint, \
     (extract(epoch from m + interval '1 month') / 86400)::bigint, to_char(m, 'YYYYMM')) \
     from generate_series(timestamp '2001-01-01', timestamp '2001-06-01', interval '1 month') m";

/// Statements that may read each partition (one index look-up in each), recognised by a part of their text, with the reason.
const EVERYWHERE: &[(&str, &str)] = &[
    (">> 32 = s.task_no >> 32", "bounded by the row that it is joined to, which a plan does not show"),
    ("from taskgate.task t where t.id = any($1)", "an id that somebody chose may be taken in any month"),
    (
        "not exists (select 1 from taskgate.task t where t.id = $2)",
        "an id that somebody chose may be taken in any month",
    ),
    ("where id >= $1 and id <= $2", "the beginning of an id may say no time; ends at a limit"),
    ("where given_id >= $1", "an id that is no UUID says no time; ends at a limit"),
    ("where to_no = any($1)", "a predecessor may be of an earlier month; nothing but canvases has edges"),
    ("'%\"webhooks\":%'", "a partial index that is all but empty, at the first hit"),
    ("from gate_hold h join", "five tasks at most"),
    ("from outbox o join task t", "a few tasks of the outbox"),
    ("update taskgate.outbox o set", "a few tasks of the outbox"),
    ("taskgate.payload_late p join", "a few tasks that ended late"),
    ("from taskgate.task t left join taskgate.ended e", "walks the oldest tasks, up to a limit"),
    ("delete from taskgate.task_group", "groups of tasks that are removed one by one"),
    ("with doomed as", "edges to tasks that are removed one by one"),
    ("join taskgate.task t on t.schedule = f.schedule", "tasks of the last firing"),
    ("t.expires_at > $1", "a partial index, from one time to another"),
    ("from taskgate.revocation", "the few revocations that are remembered"),
    (
        "into taskgate.edge (from_no, to_no, kind) select t.task_no",
        "a DAG that is resumed may follow tasks of any month",
    ),
    (
        "from taskgate.dag_part p",
        "the few parts of DAGs that wait: the edges and the ends of those before them, by their numbers",
    ),
    ("delete from taskgate.dag where", "old DAGs whose root is looked up by its id, up to a limit"),
    ("update taskgate.task t set kind_no", "tasks of others whose names are learnt late"),
];

/// A node that reads. (A plan also names every table that the statement may write.)
fn reads(line: &str, table: &str, month: u32) -> bool {
    let child = format!("{table}_20010{month}");
    !line.contains("Update on") && !line.contains("Delete on") && line.contains(&format!(" on {child}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_looks_into_all_months_without_a_bound() {
    let ledger = Fixture::postgres().await;
    query(&ledger.url, LONG_AGO);
    let mut connection = connection(&ledger).await;
    let mut offences = Vec::new();
    for statement in statements() {
        let lines = plan(&mut connection, statement).await;
        let is_read = |table: &str| (1..=6).all(|month| lines.iter().any(|line| reads(line, table, month)));
        let is_meant = EVERYWHERE.iter().any(|(words, _)| statement.contains(words));
        if !is_meant && ["task", "ended", "history", "label", "edge"].into_iter().any(is_read) {
            offences.push(statement);
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n\n"));
}
