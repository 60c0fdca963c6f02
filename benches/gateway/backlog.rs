//! What a million waiting tasks of one queue cost, compared with a thousand: memory of Redis, which holds only the window, and the time of
//! a release.

use serde_json::json;

use super::filling::{submit, until_in_line};
use super::harness::{Gateway, postgres};
use super::played::{at, median, releases};
use super::{AFTER_START, Bench, SETTINGS};

const SHORT: usize = 1_000;
const LONG: usize = 1_000_000;
const RELEASES: usize = 150;
const ROUNDS: usize = 3;
const CONFIG: &str = "limits.backlog = 2000000\n[queues.long]\nwindow = 1\n[queues.short]\nwindow = 1\n";

/// The median time of a release in milliseconds, and PostgreSQL's processor time for it in microseconds.
#[derive(Clone, Copy)]
struct Cost {
    millis: f64,
    micros: f64,
}

pub async fn measure(bench: &mut Bench) {
    bench.table.heading("A million tasks of one queue wait in the ledger, and a thousand of another one");
    bench.renew();
    bench.gateway =
        Gateway::serve(&bench.database, &bench.redis.url(0), &bench.redis.url(1), &format!("{SETTINGS}{CONFIG}"));
    tokio::time::sleep(AFTER_START).await;
    submit(bench, SHORT, |n| json!({"task": "demo.add", "args": [n, 1], "queue": "short"})).await;
    until_in_line(bench, SHORT - 1).await;
    let memory = redis_bytes(bench);
    let alone = round(bench, "short", "a thousand, before there was another line").await;
    submit(bench, LONG, |n| json!({"task": "demo.add", "args": [n, 1], "queue": "long"})).await;
    until_in_line(bench, LONG - 1 + SHORT - 1 - (RELEASES + 1)).await;
    let more = redis_bytes(bench) - memory;
    let messages: i64 = bench.redis.command(0, &["LLEN", "long"]);
    bench.table.note(format!(
        "Redis: {messages} message of the long line, {:.0} KiB more than before it: {:.2} bytes a waiting task",
        more / 1024.0,
        more / LONG as f64
    ));
    let (mut long, mut short) = (Vec::new(), Vec::new());
    let mut read = (0.0, 0.0);
    for _ in 0..ROUNDS {
        short.push(round(bench, "short", "a thousand, beside the million").await);
        let before = rows_read(bench);
        long.push(round(bench, "long", "a million").await);
        let after = rows_read(bench);
        read = (read.0 + after.0 - before.0, read.1 + after.1 - before.1);
    }
    compare(bench, "the short line before", &long, &[alone]);
    compare(bench, "the short line in turns", &long, &short);
    let count = (ROUNDS * (RELEASES + 1)) as f64;
    bench.table.note(format!(
        "rows of the outbox read for a release from the million: {:.1} by index, {:.1} by scans of the table",
        read.0 / count,
        read.1 / count
    ));
    bench.renew();
}

fn compare(bench: &mut Bench, with: &str, long: &[Cost], short: &[Cost]) {
    let of = |costs: &[Cost], figure: fn(&Cost) -> f64| median(costs.iter().map(figure).collect());
    bench.table.note(format!(
        "a release from the million beside {with}, medians of {ROUNDS} rounds: {:.2} × the time, {:.2} × the processor time",
        of(long, |cost| cost.millis) / of(short, |cost| cost.millis),
        of(long, |cost| cost.micros) / of(short, |cost| cost.micros)
    ));
}

async fn round(bench: &mut Bench, queue: &'static str, waiting: &str) -> Cost {
    let found = releases(bench, queue, RELEASES).await;
    bench.table.note(format!(
        "waiting: {waiting:<48} a release p50 {:.1} ms, p99 {:.1} ms; {:.0} µs of PostgreSQL",
        at(&found.took, 0.5),
        at(&found.took, 0.99),
        found.micros
    ));
    Cost { millis: at(&found.took, 0.5), micros: found.micros }
}

fn redis_bytes(bench: &Bench) -> f64 {
    let info: String = bench.redis.command(0, &["INFO", "memory"]);
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    used.and_then(|bytes| bytes.trim().parse().ok()).expect("Redis reports it")
}

/// Rows of the outbox that were read by index, and by scans of the whole table, as PostgreSQL counts.
fn rows_read(bench: &Bench) -> (f64, f64) {
    // A backend reports its statistics at most once a second.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let sql = "select (select sum(idx_tup_read) from pg_stat_user_indexes where relname = 'outbox'), seq_tup_read \
               from pg_stat_user_tables where relname = 'outbox'";
    let told = postgres::query(&bench.database, sql);
    let (by_index, by_scan) = told.split_once('|').expect("two columns");
    (by_index.parse().expect("a number"), by_scan.parse().expect("a number"))
}
