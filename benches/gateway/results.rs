//! `GET /result/{id}`, finished and not, beside FastAPI with Celery's `AsyncResult`.

use serde_json::json;

use super::harness::{Celery, CeleryOptions};
use super::load::{self, Load, Target};
use super::peer::Peer;
use super::{Bench, SPAN};

pub async fn measure(bench: &mut Bench) {
    bench.table.heading("GET /result/{id}, 32 connections");
    let http = bench.http();
    let waiting = http.post("/v1/tasks", &json!({"task": "demo.add", "args": [1, 1], "queue": "bench"})).await.json();
    let celery = Celery::start(&bench.redis, CeleryOptions::default());
    let prefer = [("Prefer", "wait=30")];
    let done = http.post_with("/v1/tasks", &prefer, &json!({"task": "demo.add", "args": [1, 1]})).await.json();
    drop(celery);
    let path = |answer: &serde_json::Value| format!("/result/{}", answer["task_id"].as_str().expect("an id"));
    let theirs = match Peer::fastapi(&bench.redis, &bench.cluster, false) {
        Some(peer) => {
            let load = Load::get(&Target::of(&peer.base), &path(&done), 32);
            Some(load::run(&load, SPAN, &peer.servers()).await)
        }
        None => None,
    };
    let against: Vec<_> = theirs.iter().map(|rate| ("the peer", rate)).collect();
    if let Some(rate) = &theirs {
        bench.table.row("peer: FastAPI + AsyncResult, 2 processes, finished", rate, &[]);
    }
    for (name, answer) in [("finished", &done), ("waiting", &waiting)] {
        let load = Load::get(&bench.target(), &path(answer), 32);
        let rate = load::run(&load, SPAN, &bench.servers()).await;
        bench.table.row(&format!("taskgate: {name}"), &rate, &against);
    }
}
