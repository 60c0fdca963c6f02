//! Submission, committed before the answer, compared with peers that commit nothing, commit one row, or only forward to Redis.

use super::load::{self, Load, Rate, Target};
use super::peer::Peer;
use super::{Bench, SPAN, floors};

const SUBMIT: &str = r#"{"task": "demo.add", "args": [2, 3], "queue": "bench"}"#;
const CALL: &str = r#"{"task": "demo.add", "args": [2, 3]}"#;
const FLOWER: &str = r#"{"args": [2, 3]}"#;

pub async fn measure(bench: &mut Bench) {
    bench.table.heading("Submit");
    floors::measure(bench).await;
    let mut ours = Vec::new();
    for connections in [32, 128, 256] {
        bench.renew();
        let load = Load::post(&bench.target(), "/v1/tasks", SUBMIT, connections);
        ours.push((connections, load::run(&load, SPAN, &bench.servers()).await));
    }
    bench.renew();
    let half = half_rate(bench, ours[2].1.per_second).await;
    bench.renew();
    let plain = theirs(bench, Peer::fastapi(&bench.redis, &bench.cluster, false), "/v1/tasks", CALL).await;
    let durable = theirs(bench, Peer::fastapi(&bench.redis, &bench.cluster, true), "/v1/tasks", CALL).await;
    let flower = theirs(bench, Peer::flower(&bench.redis), "/api/task/send-task/demo.add", FLOWER).await;
    let table = &mut bench.table;
    table.row("peer: FastAPI + Celery, 2 processes, nothing durable, 32", &plain, &[]);
    table.row("peer: FastAPI + Celery, 2 processes, a row in PostgreSQL, 32", &durable, &[]);
    table.row("peer: Flower's API, 32", &flower, &[]);
    let peers = [("plain", &plain), ("durable", &durable), ("Flower", &flower)];
    for (connections, rate) in &ours {
        table.row(&format!("taskgate: committed, then published, {connections} connections"), rate, &peers);
    }
    table.row("taskgate: paced at half of the rate at 256, 64 connections", &half, &[]);
}

/// Latency at half of the maximum rate, which is closer to normal operation.
async fn half_rate(bench: &Bench, rate: f64) -> Rate {
    let load = Load::post(&bench.target(), "/v1/tasks", SUBMIT, 64).paced(rate / 2.0);
    load::run(&load, SPAN, &bench.servers()).await
}

async fn theirs(bench: &Bench, peer: Option<Peer>, path: &str, body: &str) -> Rate {
    let Some(peer) = peer else { return Rate::told(0.0) };
    let load = Load::post(&Target::of(&peer.base), path, body, 32);
    let measured = load::run(&load, SPAN, &peer.servers()).await;
    bench.redis.command::<()>(0, &["DEL", "bench", "celery"]);
    measured
}
