//! Closed-loop load over keep-alive connections, as little work a request as possible: the generator shares the cores.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A listener.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
}

impl Target {
    pub fn of(base: &str) -> Self {
        let address = base.trim_start_matches("http://").trim_end_matches('/');
        Self { address: address.parse().expect("an address with a port") }
    }
}

/// One request, repeated on a number of connections.
pub struct Load {
    target: Target,
    request: Arc<Vec<u8>>,
    connections: usize,
}

/// What came of it.
pub struct Rate {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
    /// Answers other than 2xx.
    pub refused: usize,
}

impl Load {
    pub fn get(target: &Target, path: &str, connections: usize) -> Self {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", target.address);
        Self { target: target.clone(), request: Arc::new(request.into_bytes()), connections }
    }

    pub fn post(target: &Target, path: &str, body: &str, connections: usize) -> Self {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            target.address,
            body.len()
        );
        Self { target: target.clone(), request: Arc::new(request.into_bytes()), connections }
    }
}

/// Loads for `span`, after a fifth of it to warm up.
pub async fn run(load: &Load, span: Duration) -> Rate {
    let begin = Instant::now() + span / 5;
    let end = begin + span;
    let mut workers = Vec::new();
    for _ in 0..load.connections {
        workers.push(tokio::spawn(connection(load.target.address, Arc::clone(&load.request), begin, end)));
    }
    let (mut latencies, mut refused) = (Vec::new(), 0);
    for worker in workers {
        let (some, bad) = worker.await.expect("a connection's task ends");
        latencies.extend(some);
        refused += bad;
    }
    latencies.sort_unstable();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or_default();
    Rate { per_second: latencies.len() as f64 / span.as_secs_f64(), p50: at(0.5), p99: at(0.99), refused }
}

async fn connection(
    address: SocketAddr,
    request: Arc<Vec<u8>>,
    begin: Instant,
    end: Instant,
) -> (Vec<Duration>, usize) {
    let mut stream = TcpStream::connect(address).await.expect("the target listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let mut buffer = vec![0; 64 << 10];
    let (mut latencies, mut refused) = (Vec::new(), 0);
    loop {
        let started = Instant::now();
        if started >= end {
            return (latencies, refused);
        }
        stream.write_all(&request).await.expect("the target reads");
        let is_good = answer(&mut stream, &mut buffer).await;
        if started >= begin {
            latencies.push(started.elapsed());
            refused += usize::from(!is_good);
        }
    }
}

/// Reads one answer with a `Content-Length`; whether it was 2xx.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> bool {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await.expect("the target answers");
        assert!(read > 0, "the target closed the connection");
        filled += read;
        let Some(head) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&buffer[..head]).unwrap_or_default();
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok()).flatten()
        });
        if filled >= head + 4 + length.unwrap_or(0) {
            return text.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
        }
    }
}
