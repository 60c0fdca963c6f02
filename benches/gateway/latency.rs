//! How long one task takes from its submission to its result, and how late its progress reports arrive, on an idle system.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::Bench;
use super::harness::{Celery, CeleryOptions, Http};
use super::peer::Peer;

/// Tasks, measured one after the other.
const ROUNDS: usize = 300;
/// Measured progress reports.
const REPORTS: usize = 200;

pub async fn measure(bench: &mut Bench) {
    bench.table.heading("One task through everything, idle system, one Python worker");
    let http = &bench.http();
    let _celery = Celery::start(&bench.redis, CeleryOptions::default());
    let mut waits = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let answer =
            http.post_with("/v1/tasks", &[("Prefer", "wait=10")], &json!({"task": "demo.add", "args": [2, 3]})).await;
        assert_eq!(answer.json()["result"], 5, "{}", answer.text());
        waits.push(started.elapsed());
    }
    let late = progress(http).await;
    let polled = polled(bench).await;
    bench.table.latency("submit → result at a waiting client", waits);
    bench.table.latency("peer: FastAPI + Celery, the client polls without a pause", polled);
    bench.table.latency("update_state in the worker → SSE client", late);
}

/// The peer has no way to wait for a result, so the client polls.
async fn polled(bench: &Bench) -> Vec<Duration> {
    let Some(peer) = Peer::fastapi_to("celery", &bench.redis, &bench.cluster, false) else { return Vec::new() };
    let http = Http::new(peer.base.clone());
    let mut waits = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let submitted = http.post("/v1/tasks", &json!({"task": "demo.add", "args": [2, 3]})).await.json();
        let path = format!("/result/{}", submitted["task_id"].as_str().expect("an id"));
        while http.get(&path).await.json()["result"] != 5 {}
        waits.push(started.elapsed());
    }
    waits
}

async fn progress(http: &Http) -> Vec<Duration> {
    let submitted = http.post("/v1/tasks", &json!({"task": "demo.progress_at", "args": [REPORTS, 0.01]})).await.json();
    let id = submitted["task_id"].as_str().expect("an id").to_owned();
    let mut stream = http.events(&format!("/v1/tasks/{id}/events"), &[]).await;
    let mut late = Vec::with_capacity(REPORTS);
    while let Some(event) = stream.next().await {
        if event.event == "end" {
            break;
        }
        let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
        if let Some(sent) = data["meta"]["sent_at"].as_f64() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
            late.push(Duration::from_secs_f64((now - sent).max(0.0)));
        }
    }
    late
}
