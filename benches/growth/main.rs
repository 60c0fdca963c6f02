//! How lists, search, results and pruning behave as history grows: `cargo bench --bench growth -- 100000 1000000 10000000`.
//!
//! Starts its own PostgreSQL and gateway, fills the ledger with finished tasks up to each size in turn, and asks the same
//! questions over HTTP at each. A row must not rise with the size. Ten million tasks need about 30 GB of disk.

#![expect(clippy::disallowed_methods, reason = "a measuring program with its own runtime and clock")]

mod fill;
#[path = "../../tests/it/harness/mod.rs"]
mod harness;

use std::time::{Duration, Instant};

use harness::{Gateway, Http, Redis, RedisOptions, postgres};

/// Sizes when none are given.
const SIZES: [u64; 2] = [100_000, 1_000_000];
/// Questions asked of each kind.
const ROUNDS: u64 = 200;
/// Tasks whose events are rolled up while it is watched.
const FRESH: u64 = 100_000;
const TABLES: [&str; 5] = ["task", "event", "message", "label", "trouble"];

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
    let settings = "log.filter = 'warn'\nhttp.access_log = false\n";
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
    prune(&database, &redis, gateway, filled).await;
}

/// What a busy autovacuum would do in time.
fn settle(database: &str) {
    for table in TABLES {
        postgres::query(database, &format!("vacuum analyze taskgate.{table}"));
    }
    postgres::query(database, "checkpoint");
}

/// The newest of the filled events are folded into the figures by the gateway; the others were, in real life.
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
            postgres::query(database, &format!("select {function}('taskgate.{table}')")).parse().expect("a number")
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

/// The older half goes, by a gateway whose limit is that age.
async fn prune(database: &str, redis: &Redis, gateway: Gateway, size: u64) {
    drop(gateway);
    let half = size / 2;
    let settings = format!("log.filter = 'warn'\nledger.keep = '{}s'\n", fill::age_seconds(half));
    let started = Instant::now();
    let gateway = Gateway::serve(database, &redis.url(0), &redis.url(1), &settings);
    let pruned = "select coalesce(sum(octet_length(ids) / 16), 0) from taskgate.tombstone_piece";
    let count = || postgres::query(database, pruned).parse::<u64>().expect("a number");
    let (mut longest, http) = (Duration::ZERO, gateway.http());
    // A tenth of the half tells the rate.
    while count() < half / 10 {
        let asked = Instant::now();
        http.get("/v1/tasks?limit=50").await.expect(200);
        longest = longest.max(asked.elapsed());
        assert!(started.elapsed() < Duration::from_secs(600), "nothing is pruned");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let rate = count() as f64 / started.elapsed().as_secs_f64();
    println!("\npruned {rate:.0} tasks/s; the slowest list meanwhile took {:.0} ms", longest.as_secs_f64() * 1_000.0);
}
