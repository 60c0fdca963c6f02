//! taskgate beside what it replaces, on one machine, in one run: `make bench`, or `cargo bench --bench gateway -- submit streams`
//! for some of its sections (`cost`, `submit`, `dev`, `batches`, `replicas`, `results`, `latency`, `streams`, `recorder`, `beat`,
//! `hostile`, `wake`, `window`, `enqueue`, `lateness`, `shares`, `keys`, and `rabbit`, which needs a `rabbitmq-server` and is measured only when it is named).
//!
//! Starts its own Redis, PostgreSQL (with fsync), Celery worker, the peers and taskgate, loads each in turn from this process,
//! and prints one table with ratios. Floors (a handler that only answers, `redis-benchmark`, `pgbench` with the same row) show
//! the most that the machine can do. Memory and processor time are those of the server alone, without its databases.

#![expect(clippy::disallowed_methods, reason = "a measuring program with its own runtime and clock")]

mod backlog;
mod batches;
mod beat;
mod cost;
mod dev;
mod enqueue;
mod filling;
mod floors;
#[path = "../../tests/it/harness/mod.rs"]
mod harness;
mod hostile;
mod keys;
mod latency;
mod lateness;
mod load;
mod logs;
mod peer;
mod played;
mod rabbit;
mod recorder;
mod replicas;
mod results;
mod shares;
mod streams;
mod submit;
mod table;
mod uploads;
mod usage;
mod waits;
mod wake;
mod window;

use std::time::Duration;

use harness::{Gateway, Http, Redis, RedisOptions, postgres, postgres::Cluster};
use load::Target;
use table::Table;
use usage::Servers;

/// How long each figure is measured.
const SPAN: Duration = Duration::from_secs(5);

/// For four seconds after its start, a gateway reads all lists again and again.
const AFTER_START: Duration = Duration::from_secs(5);

const SETTINGS: &str = "log.filter = 'warn'\nhttp.access_log = false\nhttp.max_streams = 20000\n";

/// The servers and results that all sections share.
struct Bench {
    redis: Redis,
    cluster: Cluster,
    database: String,
    gateway: Gateway,
    table: Table,
}

impl Bench {
    fn start() -> Self {
        let redis = Redis::start(RedisOptions::default());
        let cluster = Cluster::start_durable();
        let database = cluster.empty_database();
        let gateway = Gateway::serve(&database, &redis.url(0), &redis.url(1), SETTINGS);
        Self { redis, cluster, database, gateway, table: Table::default() }
    }

    /// Starts again with a new gateway, an empty ledger and an empty Redis, so that tasks which a load left behind are neither searched for
    /// nor vacuumed during the next measurement. Returns when the new gateway has searched for messages that were lost before its start.
    fn renew(&mut self) {
        let database = self.cluster.empty_database();
        // A running gateway would publish again what Redis loses.
        self.gateway.kill();
        self.redis.command::<()>(0, &["FLUSHALL"]);
        self.gateway = Gateway::serve(&database, &self.redis.url(0), &self.redis.url(1), SETTINGS);
        let old = std::mem::replace(&mut self.database, database);
        let name = old.rsplit('/').next().unwrap_or_default();
        postgres::query(&self.cluster.url("postgres"), &format!("drop database {name} with (force)"));
        std::thread::sleep(AFTER_START);
    }

    fn http(&self) -> Http {
        self.gateway.http()
    }

    fn target(&self) -> Target {
        Target::of(&self.http().base)
    }

    fn servers(&self) -> Servers {
        Servers::of(&[self.gateway.id()])
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    if let Some(port) = arguments.next().and_then(|first| first.strip_prefix("--floor=")?.parse().ok()) {
        return floors::serve(port);
    }
    let sections: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(&sections));
}

async fn run(sections: &[String]) {
    let wanted = |name: &str| sections.is_empty() || sections.iter().any(|section| section == name);
    let mut bench = Bench::start();
    let idle = bench.servers().resident_mib();
    bench.table.note(format!("taskgate's resident memory, idle after its start: {idle:.1} MiB"));
    if wanted("cost") {
        cost::measure(&mut bench).await;
    }
    if wanted("latency") {
        latency::measure(&mut bench).await;
    }
    if wanted("submit") {
        submit::measure(&mut bench).await;
    }
    if wanted("dev") {
        dev::measure(&mut bench).await;
    }
    if wanted("batches") {
        batches::measure(&mut bench).await;
    }
    if wanted("replicas") {
        replicas::measure(&mut bench).await;
    }
    if wanted("results") {
        results::measure(&mut bench).await;
    }
    if wanted("streams") {
        streams::measure(&mut bench).await;
    }
    if wanted("recorder") {
        recorder::measure(&mut bench).await;
    }
    if wanted("beat") {
        beat::measure(&mut bench).await;
    }
    if wanted("hostile") {
        hostile::measure(&mut bench).await;
    }
    if wanted("wake") {
        wake::measure(&mut bench).await;
    }
    if wanted("waits") {
        waits::measure(&mut bench).await;
    }
    if wanted("window") {
        window::measure(&mut bench).await;
    }
    if wanted("enqueue") {
        enqueue::measure(&mut bench).await;
    }
    if wanted("backlog") {
        backlog::measure(&mut bench).await;
    }
    if wanted("lateness") {
        lateness::measure(&mut bench).await;
    }
    if wanted("shares") {
        shares::measure(&mut bench).await;
    }
    if wanted("keys") {
        keys::measure(&mut bench).await;
    }
    if wanted("uploads") {
        uploads::measure(&mut bench).await;
    }
    if wanted("logs") {
        logs::measure(&mut bench).await;
    }
    if sections.iter().any(|section| section == "rabbit") {
        rabbit::measure(&mut bench).await;
    }
    bench.table.print();
}
