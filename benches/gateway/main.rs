//! taskgate beside what it replaces, on one machine, in one run: `make bench`.
//!
//! Starts its own Redis, PostgreSQL (with fsync), Celery worker, the peer in `benches/peer/` and taskgate, loads each in turn
//! from this process, and prints one table with ratios. Floors (an endpoint that only answers, bare LPUSH, a bare insert)
//! show how far each path is from what the machine can do.

#![expect(clippy::disallowed_methods, reason = "a measuring program with its own runtime and clock")]

#[path = "../../tests/it/harness/mod.rs"]
mod harness;
mod latency;
mod load;
mod peer;
mod table;

use std::time::Duration;

use serde_json::json;

use harness::{Celery, CeleryOptions, Gateway, Redis, RedisOptions, postgres::Cluster};
use load::{Load, Target};
use table::Table;

/// How long each figure is measured.
const SPAN: Duration = Duration::from_secs(5);
const SUBMIT: &str = r#"{"task": "demo.add", "args": [2, 3], "queue": "bench"}"#;
const CALL: &str = r#"{"task": "demo.add", "args": [2, 3]}"#;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let redis = Redis::start(RedisOptions::default());
    let cluster = Cluster::start_durable();
    let gateway = Gateway::serve(
        &cluster.empty_database(),
        &redis.url(0),
        &redis.url(1),
        "log.filter = 'warn'\nhttp.access_log = false\n",
    );
    let base = gateway.http();
    let mut table = Table::default();
    let idle = table::resident_mib(gateway.id());

    let ours = Target::of(&base.base);
    let floor = load::run(&Load::get(&ours, "/livez", 32), SPAN).await;
    table.row("floor: an answer without work, 32 connections", &floor, None);
    submit(&mut table, &ours, &redis, &cluster).await;
    results(&mut table, &ours, &base, &redis).await;
    latency::measure(&mut table, &base, &redis).await;
    table.note(format!(
        "taskgate's resident memory: {idle:.0} MiB idle, {:.0} MiB after the load",
        table::resident_mib(gateway.id())
    ));
    table.print();
}

/// Durable submission against the peer, plain and durable.
async fn submit(table: &mut Table, ours: &Target, redis: &Redis, cluster: &Cluster) {
    let mut measured = Vec::new();
    for connections in [32, 256] {
        let rate = load::run(&Load::post(ours, "/v1/tasks", SUBMIT, connections), SPAN).await;
        measured.push((connections, rate));
        redis.command::<()>(0, &["DEL", "bench"]);
    }
    for durable in [false, true] {
        let Some(peer) = peer::Peer::start(redis, cluster, durable) else { continue };
        let target = Target::of(&peer.base);
        let theirs = load::run(&Load::post(&target, "/v1/tasks", CALL, 32), SPAN).await;
        redis.command::<()>(0, &["DEL", "bench"]);
        let name = if durable { "with a row in PostgreSQL" } else { "nothing durable" };
        table.row(&format!("peer: FastAPI + Celery, 2 workers, {name}, 32 connections"), &theirs, None);
        for (connections, ours) in &measured {
            table.row(&format!("taskgate: committed, then published, {connections} connections"), ours, Some(&theirs));
        }
    }
}

/// `GET /result/{id}`: finished and waiting.
async fn results(table: &mut Table, ours: &Target, base: &harness::Http, redis: &Redis) {
    let waiting = base.post("/v1/tasks", &json!({"task": "demo.add", "args": [1, 1], "queue": "bench"})).await.json();
    let celery = Celery::start(redis, CeleryOptions::default());
    let done = base
        .post_with("/v1/tasks", &[("Prefer", "wait=30")], &json!({"task": "demo.add", "args": [1, 1]}))
        .await
        .json();
    drop(celery);
    for (name, answer) in [("finished", &done), ("waiting", &waiting)] {
        let path = format!("/result/{}", answer["task_id"].as_str().expect("an id"));
        let rate = load::run(&Load::get(ours, &path, 32), SPAN).await;
        table.row(&format!("taskgate: GET /result of a {name} task, 32 connections"), &rate, None);
    }
}
