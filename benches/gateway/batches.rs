//! Batches: arrays of a thousand tasks on a few connections, and a million lines in one request, with the gateway's peak memory.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use reqwest::{Body, Client};

use super::{Bench, SPAN};

const TASK: &str = r#"{"task": "demo.add", "args": [2, 3], "queue": "bench"}"#;
const ARRAY: usize = 1_000;
const CONNECTIONS: usize = 4;
const LINES: usize = 1_000_000;
/// Lines that are written to the connection at a time.
const CHUNK: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(300);

pub async fn measure(bench: &mut Bench) {
    bench.table.heading("Batches");
    // Nothing here is encrypted, but the client cannot be built without a TLS provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(PATIENCE).build().expect("a client without TLS roots");
    bench.renew();
    let url = format!("{}/v1/tasks/batch", bench.http().base);
    let array = Bytes::from(format!("[{}]", vec![TASK; ARRAY].join(",")));
    let servers = bench.servers();
    let (started, cpu) = (Instant::now(), servers.cpu_seconds());
    let counts = join_all((0..CONNECTIONS).map(|_| repeated(&client, &url, &array, started + SPAN))).await;
    let (seconds, tasks) = (started.elapsed().as_secs_f64(), counts.iter().sum::<usize>() * ARRAY);
    bench.table.note(format!(
        "arrays of {ARRAY}, {CONNECTIONS} connections: {:.0} tasks/s accepted, {:.4} CPU-s for 1,000 tasks",
        tasks as f64 / seconds,
        (servers.cpu_seconds() - cpu) * 1_000.0 / tasks as f64
    ));
    bench.renew();
    lines(bench, &client).await;
    bench.renew();
}

/// Sends the same array again and again; returns how many arrays were accepted.
async fn repeated(client: &Client, url: &str, array: &Bytes, end: Instant) -> usize {
    let mut count = 0;
    while Instant::now() < end {
        let request = client.post(url).header("content-type", "application/json").body(array.clone());
        let answer = request.send().await.expect("the gateway answers");
        assert_eq!(answer.status(), 202);
        let text = answer.text().await.expect("a text");
        assert!(text.contains(&format!("\"accepted\":{ARRAY},")), "{}", &text[..200.min(text.len())]);
        count += 1;
    }
    count
}

async fn lines(bench: &mut Bench, client: &Client) {
    let url = format!("{}/v1/tasks/batch", bench.http().base);
    let chunk = Bytes::from(format!("{TASK}\n").repeat(CHUNK));
    let chunks = (0..LINES / CHUNK).map(move |_| Ok::<_, std::io::Error>(chunk.clone()));
    let servers = bench.servers();
    let before = servers.resident_mib();
    let started = Instant::now();
    let body = Body::wrap_stream(futures_util::stream::iter(chunks));
    let sending = client.post(url).header("content-type", "application/x-ndjson").body(body).send();
    let mut most = before;
    let answer = tokio::spawn(async { sending.await?.text().await });
    while !answer.is_finished() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        most = servers.resident_mib().max(most);
    }
    let answered = answer.await.expect("it does not panic").expect("the gateway answers");
    let seconds = started.elapsed().as_secs_f64();
    assert!(answered.contains(&format!("\"accepted\":{LINES},")), "{}", &answered[..200.min(answered.len())]);
    bench.table.note(format!(
        "{LINES} lines in one request: {:.0} tasks/s accepted; at most {:.0} MiB resident ({before:.0} before)",
        LINES as f64 / seconds,
        most
    ));
}
