//! Submission with RabbitMQ as the broker: committed before the answer, then published and confirmed, beside FastAPI + Celery on the same
//! node in the same run, at the same number of connections.
//!
//! No worker consumes the queue. The release window is off, so that all submitted tasks are published too; the last line says how many of
//! them were in RabbitMQ when the load ended.

use std::time::Duration;

use serde_json::json;

use super::harness::rabbit::Rabbit;
use super::harness::{Gateway, wait};
use super::load::{self, Load, Rate, Target};
use super::peer::Peer;
use super::usage::Servers;
use super::{AFTER_START, Bench, SETTINGS, SPAN};

const CONNECTIONS: usize = 128;
const SUBMIT: &str = r#"{"task": "demo.add", "args": [2, 3], "queue": "bench"}"#;
const CALL: &str = r#"{"task": "demo.add", "args": [2, 3]}"#;
/// The submissions per second that the gateway must accept at this number of connections on two cores.
const WANTED: f64 = 8_000.0;
/// How long it may take until all accepted tasks are in the queue.
const PUBLISHED: Duration = Duration::from_secs(120);

pub async fn measure(bench: &mut Bench) {
    bench.table.heading("Submit on RabbitMQ, 128 connections");
    let rabbit = Rabbit::start("");
    rabbit.declare("bench", &json!({}));
    let plain = theirs(bench, &rabbit, false).await;
    let durable = theirs(bench, &rabbit, true).await;
    let (rate, published) = ours(bench, &rabbit).await;
    let table = &mut bench.table;
    table.row("peer: FastAPI + Celery on RabbitMQ, 2 processes, nothing durable", &plain, &[]);
    table.row("peer: FastAPI + Celery on RabbitMQ, 2 processes, a row in PostgreSQL", &durable, &[]);
    table.row("taskgate: committed, then published and confirmed", &rate, &[("plain", &plain), ("durable", &durable)]);
    table.note(format!("{:.0} submissions a second; {WANTED:.0} are wanted; {published}", rate.per_second));
}

async fn theirs(bench: &Bench, rabbit: &Rabbit, durable: bool) -> Rate {
    let Some(peer) = Peer::fastapi_on_rabbitmq(&rabbit.url(), &bench.cluster, durable) else { return Rate::told(0.0) };
    let load = Load::post(&Target::of(&peer.base), "/v1/tasks", CALL, CONNECTIONS);
    let measured = load::run(&load, SPAN, &peer.servers()).await;
    drop(peer);
    purge(rabbit);
    measured
}

async fn ours(bench: &Bench, rabbit: &Rabbit) -> (Rate, String) {
    let settings = format!("{SETTINGS}[queues.bench]\nwindow = 0\n");
    let database = bench.cluster.empty_database();
    let gateway = Gateway::serve(&database, &rabbit.url(), "rpc://", &settings);
    tokio::time::sleep(AFTER_START).await;
    let load = Load::post(&Target::of(&gateway.http().base), "/v1/tasks", SUBMIT, CONNECTIONS);
    let rate = load::run(&load, SPAN, &Servers::of(&[gateway.id()])).await;
    let at_the_end = depth(rabbit);
    let accepted = super::postgres::query(&database, "select count(*) from taskgate.tasks");
    let accepted: u64 = accepted.parse().expect("a number");
    let began = std::time::Instant::now();
    wait::blocking(PUBLISHED, "everything that was accepted is in the queue", || {
        (depth(rabbit) >= accepted).then_some(())
    });
    let later = began.elapsed().as_secs_f64();
    (rate, format!("of {accepted} accepted {at_the_end} were in the queue at the end, all of them {later:.1} s later"))
}

/// RabbitMQ's own count, refreshed every second.
fn depth(rabbit: &Rabbit) -> u64 {
    rabbit.queue("bench").and_then(|queue| queue["messages"].as_u64()).unwrap_or_default()
}

fn purge(rabbit: &Rabbit) {
    rabbit.delete("bench");
    rabbit.declare("bench", &json!({}));
}
