//! How lists, search, results and pruning behave as history grows: `cargo bench --bench growth -- 100000 1000000 10000000`.
//!
//! Starts its own PostgreSQL and gateway, fills the ledger with finished tasks up to each size in turn, and sends the same requests over HTTP
//! at each size. The times must not grow with the size. Ten million tasks need about 30 GB of disk.

#![expect(clippy::disallowed_methods, reason = "a measuring program with its own runtime and clock")]

mod fill;
#[path = "../../tests/it/harness/mod.rs"]
mod harness;
#[path = "../gateway/load.rs"]
#[expect(dead_code, reason = "the gateway's own bench uses all of it")]
mod load;
#[path = "../gateway/usage.rs"]
#[expect(dead_code, reason = "the gateway's own bench uses all of it")]
mod usage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{Gateway, Http, Redis, RedisOptions, postgres};
use ledger::Ledger;
use ledger::postgres::{PostgresConfig, PostgresLedger};
use load::{Load, Rate, Target};
use runtime::clock;
use tokio_util::sync::CancellationToken;
use usage::Servers;

/// Sizes when none are given.
const SIZES: [u64; 2] = [100_000, 1_000_000];
/// Requests of each kind.
const ROUNDS: u64 = 200;
/// How long submissions are measured.
const SPAN: Duration = Duration::from_secs(9);
const SUBMIT: &str = r#"{"task": "demo.add", "args": [2, 3], "queue": "bench"}"#;
/// A history that is kept for this long or longer is dropped by months.
const KEPT: Duration = Duration::from_hours(61 * 24);
/// The limit with which the retention service prunes.
const STEP: i64 = 500;
/// Tasks whose events are added to the statistics during the measurement.
const FRESH: u64 = 100_000;
const TABLES: [&str; 6] = ["task", "flight", "ended", "history", "feed", "label"];

fn main() {
    let given: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let sizes = if given.is_empty() { SIZES.to_vec() } else { given };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(&sizes));
}

async fn run(sizes: &[u64]) {
    let redis = Redis::start(RedisOptions::default());
    let cluster = postgres::Cluster::start_durable();
    let database = cluster.empty_database();
    let settings =
        "log.filter = 'warn'\nhttp.access_log = false\nledger.keep = '5000d'\nledger.keep_payload = '5000d'\n";
    let gateway = Gateway::serve(&database, &redis.url(0), &redis.url(1), settings);
    let http = gateway.http();
    let mut filled = 0;
    for &size in sizes {
        let started = Instant::now();
        fill::up_to(&database, filled, size);
        println!("\n{size} tasks ({} more in {:.0} s)", size - filled, started.elapsed().as_secs_f64());
        filled = size;
        settle(&database);
        rolled_up(&database, size).await;
        sizes_of_tables(&database, size);
        questions(&http, size).await;
    }
    prune(&database, &gateway).await;
}

/// Does what autovacuum would do in time.
fn settle(database: &str) {
    for table in TABLES {
        postgres::query(database, &format!("vacuum analyze taskgate.{table}"));
    }
    postgres::query(database, "checkpoint");
}

/// Measures how fast the gateway adds the newest filled events to the statistics. The older ones count as added already.
async fn rolled_up(database: &str, size: u64) {
    let fresh = size.min(FRESH);
    postgres::query(database, &format!("update taskgate.stat_mark set feed = {}", fill::feed(size - fresh)));
    let started = Instant::now();
    let mark = || postgres::query(database, "select feed from taskgate.stat_mark").parse::<u64>().expect("a number");
    while mark() < fill::feed(size) {
        assert!(started.elapsed() < Duration::from_secs(300), "the figures do not advance");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("rolled up {:.0} events/s", (fresh * 5) as f64 / started.elapsed().as_secs_f64());
}

fn sizes_of_tables(database: &str, tasks: u64) {
    let mut line = String::new();
    let mut all = 0;
    for table in TABLES {
        let size = |function: &str| -> u64 {
            let sql = format!(
                "select coalesce(sum({function}(relid)), 0) from \
                 (select relid from pg_partition_tree('taskgate.{table}') union select 'taskgate.{table}'::regclass) parts"
            );
            postgres::query(database, &sql).parse().expect("a number")
        };
        let (heap, indexes) = (size("pg_table_size"), size("pg_indexes_size"));
        all += heap + indexes;
        line += &format!("{table} {}+{}  ", heap / tasks, indexes / tasks);
    }
    println!("bytes a task, table+indexes: {line} all {}", all / tasks);
}

async fn questions(http: &Http, size: u64) {
    ask(http, "list, newest", |_| "/v1/tasks?limit=50".into()).await;
    ask(http, "list, from a random place on", |n| format!("/v1/tasks?limit=50&to={}", fill::time(n * 7_919 % size)))
        .await;
    ask(http, "list, failures", |_| "/v1/tasks?status=FAILURE&limit=50".into()).await;
    ask(http, "list, one task name of twenty", |n| format!("/v1/tasks?task={}&limit=50", fill::name(n))).await;
    ask(http, "list, a label that a thousandth has", |n| format!("/v1/tasks?label=customer:{}&limit=50", n % 1_000))
        .await;
    ask(http, "list, a name and a state together", |n| {
        format!("/v1/tasks?task={}&status=FAILURE&limit=50", fill::name(n))
    })
    .await;
    ask(http, "search, the beginning of an id", |n| format!("/v1/tasks?q={}", &fill::id(n * 104_729 % size)[..13]))
        .await;
    ask(http, "search, an error's message", |n| format!("/v1/tasks?q=host+{}+is+away", n % 100)).await;
    ask(http, "search, a word that occurs nowhere", |n| format!("/v1/tasks?q=nowhere{n}")).await;
    ask(http, "result of a random task", |n| format!("/result/{}", fill::id(n * 104_729 % size))).await;
    ask(http, "events of a random task", |n| format!("/v1/tasks/{}/events", fill::id(n * 15_485_863 % size))).await;
    ask(http, "throughput of the last day", |_| "/v1/stats/throughput".into()).await;
}

async fn ask(http: &Http, name: &str, path: impl Fn(u64) -> String) {
    let mut samples = Vec::new();
    for round in 0..ROUNDS {
        let started = Instant::now();
        let answer = http.get_with(&path(round), &[("accept", "application/json")]).await;
        samples.push(started.elapsed());
        assert_eq!(answer.status, 200, "{}: {}", answer.what, answer.text());
    }
    samples.sort_unstable();
    let at = |share: f64| samples[(samples.len() as f64 * share) as usize].as_secs_f64() * 1_000.0;
    println!("  {name:<40} p50 {:>7.2} ms  p99 {:>7.2} ms", at(0.5), at(0.99));
}

/// Prunes all months that are old enough, one after the other, while a gateway that does not prune takes submissions as fast as it can.
async fn prune(database: &str, gateway: &Gateway) {
    let ledger = PostgresLedger::connect(&PostgresConfig::new(database), CancellationToken::new());
    let ledger: Arc<dyn Ledger> = Arc::new(ledger.expect("the address is ours"));
    let quiet = submissions(gateway).await;
    let months = tokio::spawn(months(ledger));
    let beside = submissions(gateway).await;
    let months = months.await.expect("it does not panic");
    for (tasks, took) in &months {
        println!("a month of {tasks} tasks was pruned in {:.0} ms", took.as_secs_f64() * 1_000.0);
    }
    println!(
        "submissions: {:.0}/s, p99 {:.1} ms; while months were pruned {:.0}/s, p99 {:.1} ms",
        quiet.per_second,
        quiet.p99.as_secs_f64() * 1_000.0,
        beside.per_second,
        beside.p99.as_secs_f64() * 1_000.0
    );
}

/// How many tasks each month had, and how long its pruning took.
async fn months(ledger: Arc<dyn Ledger>) -> Vec<(i64, Duration)> {
    tokio::time::sleep(SPAN / 3).await;
    let mut gone = Vec::new();
    loop {
        let (now, started) = (clock::now(), Instant::now());
        // Whole months are dropped only if they are older than the kept history; the newest months stay.
        let pruned = ledger.prune(now.minus(KEPT), STEP, now).await.expect("the ledger answers");
        if pruned == 0 {
            return gone;
        }
        gone.push((pruned, started.elapsed()));
    }
}

async fn submissions(gateway: &Gateway) -> Rate {
    let load = Load::post(&Target::of(&gateway.http().base), "/v1/tasks", SUBMIT, 32);
    load::run(&load, SPAN, &Servers::of(&[gateway.id()])).await
}
