//! What a release costs when the tasks of one queue have a hundred keys, and when they have a hundred thousand: for keys that take turns
//! (`fair`) and for keys with a limit (`limits`).

use std::time::{Duration, Instant};

use celery::task::TaskId;
use serde_json::json;

use super::Bench;
use super::filling::{submit, until, until_in_line};
use super::harness::postgres;
use super::played::{Played, Releases, at, releases, task_of};
use super::shares::begin;
use super::usage::Servers;

const KEYS: [usize; 2] = [100, 100_000];
/// How many tasks wait in each case.
const TASKS: usize = 100_000;
const RELEASES: usize = 300;
const TABLES: &str = "'outbox', 'gate_wait', 'gate_news', 'gate_hold', 'gate_rate', 'line_share', 'window_slot'";

struct Cost {
    of: Releases,
    rows: f64,
}

pub async fn measure(bench: &mut Bench) {
    bench.table.heading(&format!("A release from {TASKS} tasks that wait, of few keys and of many"));
    let mut fair = Vec::new();
    let mut limited = Vec::new();
    for keys in KEYS {
        fair.push(by_turns(bench, keys).await);
        note(bench, "fair", keys, fair.last());
        limited.push(by_limit(bench, keys).await);
        note(bench, "limits", keys, limited.last());
    }
    compare(bench, "fair", &fair);
    compare(bench, "limits", &limited);
    bench.renew();
}

fn note(bench: &mut Bench, what: &str, keys: usize, cost: Option<&Cost>) {
    let Some(Cost { of, rows }) = cost else { return };
    bench.table.note(format!(
        "{what:<7} {keys:>7} keys: a release p50 {:.1} ms, p99 {:.1} ms; {:.0} µs of PostgreSQL; {rows:.0} rows read",
        at(&of.took, 0.5),
        at(&of.took, 0.99),
        of.micros
    ));
}

fn compare(bench: &mut Bench, what: &str, costs: &[Cost]) {
    let [few, many] = costs else { return };
    bench.table.note(format!(
        "{what:<7} {} keys beside {}: {:.2} × the time, {:.2} × the processor time, {:.2} × the rows",
        KEYS[1],
        KEYS[0],
        at(&many.of.took, 0.5) / at(&few.of.took, 0.5),
        many.of.micros / few.of.micros,
        many.rows / few.rows
    ));
}

/// Rows of the tables of the outbox and of limits that were read, by index or by scans, as PostgreSQL counts.
async fn rows_read(bench: &Bench) -> f64 {
    // A backend reports its statistics at most once a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let sql = format!(
        "select (select sum(idx_tup_read) from pg_stat_user_indexes where relname in ({TABLES})) \
         + (select sum(seq_tup_read) from pg_stat_user_tables where relname in ({TABLES}))"
    );
    postgres::query(&bench.database, &sql).trim().parse().expect("a number")
}

/// Keys take turns in a queue with a window of one.
async fn by_turns(bench: &mut Bench, keys: usize) -> Cost {
    begin(bench, "[queues.turns]\nwindow = 1\n").await;
    submit(bench, TASKS, move |n| {
        json!({"task": "demo.add", "args": [n, 1], "queue": "turns", "fair": {"key": format!("tenant-{}", n % keys)}})
    })
    .await;
    until_in_line(bench, TASKS - 1).await;
    let before = rows_read(bench).await;
    let of = releases(bench, "turns", RELEASES).await;
    Cost { of, rows: (rows_read(bench).await - before) / RELEASES as f64 }
}

/// One task of each key is under way, in a queue of its own; each end lets the next task of its key go.
async fn by_limit(bench: &mut Bench, keys: usize) -> Cost {
    begin(bench, "").await;
    submit(bench, keys + TASKS, move |n| {
        let queue = if n < keys { "first" } else { "next" };
        json!({"task": "demo.add", "args": [n, 1], "queue": queue, "limits": [{"key": format!("host-{}", n % keys), "max": 1}]})
    })
    .await;
    until(bench, "select count(*) from taskgate.outbox where gate is not null", TASKS).await;
    let first: Vec<String> = bench.redis.command(0, &["LRANGE", "first", "0", &(RELEASES - 1).to_string()]);
    let under_way: Vec<TaskId> = first.iter().map(|message| task_of(message)).collect();
    let before = rows_read(bench).await;
    let of = ends(bench, &under_way).await;
    Cost { of, rows: (rows_read(bench).await - before) / under_way.len() as f64 }
}

/// Reports the end of each task and takes what may go instead.
async fn ends(bench: &Bench, under_way: &[TaskId]) -> Releases {
    let mut worker = Played::on(bench, "next").await;
    let mut teller = worker.teller();
    let database = Servers::of(&[bench.cluster.id()]);
    let before = database.cpu_seconds();
    let mut took = Vec::with_capacity(under_way.len());
    for id in under_way {
        teller.received(id).await;
        let told = Instant::now();
        teller.ended(id).await;
        let next = worker.take().await.expect("the next one of its key goes");
        took.push(told.elapsed());
        teller.received(&next).await;
    }
    Releases { took, micros: (database.cpu_seconds() - before) * 1e6 / under_way.len() as f64 }
}
