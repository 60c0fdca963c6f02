//! Submits many tasks at once, as lines of one request.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use reqwest::{Body, Client};
use serde_json::Value;

use super::Bench;
use super::harness::{postgres, wait};

/// Lines that are written to the connection at a time.
const CHUNK: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(900);

/// Submits `count` tasks; `line` returns the JSON of the task with this number.
///
/// # Panics
/// When not all are accepted.
pub async fn submit(bench: &Bench, count: usize, line: impl Fn(usize) -> Value + Send + Sync + 'static) {
    // Nothing here is encrypted, but the client cannot be built without a TLS provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(PATIENCE).build().expect("a client without TLS roots");
    let url = format!("{}/v1/tasks/batch", bench.http().base);
    let chunks = (0..count).step_by(CHUNK).map(move |first| {
        let lines = (first..(first + CHUNK).min(count)).map(|n| format!("{}\n", line(n)));
        Ok::<_, std::io::Error>(Bytes::from(lines.collect::<String>()))
    });
    let body = Body::wrap_stream(stream::iter(chunks));
    let answer = client.post(url).header("content-type", "application/x-ndjson").body(body).send().await;
    let text = answer.expect("the gateway answers").text().await.expect("a text");
    assert!(text.contains(&format!("\"accepted\":{count},")), "{}", &text[..200.min(text.len())]);
}

/// Returns when this many tasks wait in lines and PostgreSQL's planner has current statistics.
pub async fn until_in_line(bench: &Bench, count: usize) {
    until(bench, "select count(*) from taskgate.outbox where line is not null", count).await;
}

/// Returns when this question has this answer and PostgreSQL's planner has current statistics.
pub async fn until(bench: &Bench, question: &str, count: usize) {
    wait::within(PATIENCE, "the tasks wait", async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        (postgres::query(&bench.database, question) == count.to_string()).then_some(())
    })
    .await;
    for table in ["outbox", "flight", "task", "line_share", "window_slot", "gate_wait", "gate_hold"] {
        postgres::query(&bench.database, &format!("vacuum analyze taskgate.{table}"));
    }
    postgres::query(&bench.cluster.url("postgres"), "checkpoint");
}
