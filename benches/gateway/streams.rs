//! Open streams: memory and idle processor time with 10,000 of them, and how late a report arrives with 1,000 readers of its task.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};

use super::Bench;
use super::harness::{Celery, CeleryOptions};
use super::load::Target;

const STREAMS: usize = 10_000;
const READERS: usize = 1_000;
/// Reports of the watched task, and the seconds between them.
const REPORTS: usize = 100;
const PAUSE: f64 = 0.05;
const QUIET: Duration = Duration::from_secs(10);
/// How many connections are opened at a time: fewer than a listener's backlog.
const OPENING: usize = 64;

pub async fn measure(bench: &mut Bench) {
    bench.table.heading("Streams of server-sent events");
    let _celery = Celery::start(&bench.redis, CeleryOptions::default());
    let servers = bench.servers();
    let before = servers.resident_mib();
    let held = held_tasks(bench).await;
    let target = bench.target();
    let seats = Arc::new(Semaphore::new(OPENING));
    let opening = held.iter().map(|id| open(target.clone(), id.clone(), Arc::clone(&seats)));
    let streams: Vec<TcpStream> = futures_util::future::join_all(opening).await;
    let after = servers.resident_mib();
    let cpu = servers.cpu_seconds();
    tokio::time::sleep(QUIET).await;
    let idle = (servers.cpu_seconds() - cpu) / QUIET.as_secs_f64() * 100.0;
    bench.table.note(format!(
        "{} open streams: {after:.0} MiB resident ({before:.0} before), {:.1} KiB a stream, {idle:.1} % of a core while quiet",
        streams.len(),
        (after - before) * 1024.0 / streams.len() as f64
    ));
    report(bench, &target, 1, &format!("update_state → one reader, {STREAMS} other streams open")).await;
    drop(streams);
    report(bench, &target, 1, "update_state → one reader").await;
    report(bench, &target, READERS, &format!("update_state → each of {READERS} readers of the task")).await;
}

/// Tasks that no worker runs, one for each stream.
async fn held_tasks(bench: &Bench) -> Vec<String> {
    let one = json!({"task": "demo.add", "args": [1, 2], "countdown": 86_400});
    let mut ids = Vec::new();
    while ids.len() < STREAMS {
        let answer = bench.http().post("/v1/tasks/batch", &json!(vec![&one; 1_000])).await.expect(202);
        let items = answer["items"].as_array().expect("a list").iter();
        ids.extend(items.map(|item| item["task_id"].as_str().expect("accepted").to_owned()));
    }
    ids
}

/// Opens the stream of a task and reads its first event.
async fn open(target: Target, id: String, seats: Arc<Semaphore>) -> TcpStream {
    let _seat = seats.acquire().await.expect("it is never closed");
    let mut stream = connect(&target, &id).await;
    let mut buffer = [0; 4096];
    let mut seen = Vec::new();
    while !seen.windows(15).any(|bytes| bytes == b"event: snapshot") {
        let read = stream.read(&mut buffer).await.expect("the gateway answers");
        assert!(read > 0, "the stream of {id} ended: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..read]);
    }
    stream
}

async fn connect(target: &Target, id: &str) -> TcpStream {
    let mut stream = TcpStream::connect(target.address).await.expect("the gateway listens");
    let request =
        format!("GET /v1/tasks/{id}/events HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n", target.address);
    stream.write_all(request.as_bytes()).await.expect("the gateway reads");
    stream
}

/// Measures how late the reports of a running task reach its readers.
async fn report(bench: &mut Bench, target: &Target, readers: usize, name: &str) {
    let task = json!({"task": "demo.progress_at", "args": [REPORTS, PAUSE], "countdown": 2});
    let submitted = bench.http().post("/v1/tasks", &task).await.expect(202);
    let id = submitted["task_id"].as_str().expect("an id").to_owned();
    let seats = Arc::new(Semaphore::new(OPENING));
    let (sender, mut late) = mpsc::unbounded_channel();
    for _ in 0..readers {
        let (target, id, seats, sender) = (target.clone(), id.clone(), Arc::clone(&seats), sender.clone());
        tokio::spawn(async move { read(open(target, id, seats).await, &sender).await });
    }
    drop(sender);
    let mut samples = Vec::with_capacity(readers * REPORTS);
    while let Some(sample) = late.recv().await {
        samples.push(sample);
    }
    bench.table.latency(name, samples);
}

/// Reads until the end, and sends the age of each report on its arrival to `late`.
async fn read(mut stream: TcpStream, late: &mpsc::UnboundedSender<Duration>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(read @ 1..) = stream.read(&mut buffer).await else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        let text = String::from_utf8_lossy(&buffer[..read]);
        for sent in text.split("\"sent_at\":").skip(1) {
            let number = sent.trim_start().split([',', '}']).next().and_then(|number| number.parse::<f64>().ok());
            if let Some(sent) = number {
                let _ = late.send(Duration::from_secs_f64((now - sent).max(0.0)));
            }
        }
        if text.contains("event: end") {
            return;
        }
    }
}
