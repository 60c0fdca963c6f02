//! Closed-loop load over keep-alive connections. A request costs as little work as possible, because the generator shares the cores with
//! the servers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::usage::Servers;

/// The address of a server.
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

/// Requests that are repeated in turn on a number of connections.
pub struct Load {
    target: Target,
    requests: Arc<Vec<Vec<u8>>>,
    connections: usize,
    /// Requests per second over all connections. `None`: each connection sends its next request as soon as it has an answer.
    pace: Option<f64>,
}

/// The result of a load.
pub struct Rate {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
    /// All answers, including those before the measured span.
    pub answers: usize,
    /// Answers other than 2xx.
    pub refused: usize,
    /// Processor time of the server's processes for a thousand requests.
    pub cpu_seconds_per_thousand: f64,
    pub resident_mib: f64,
}

impl Rate {
    /// The rate that a program measured itself.
    pub fn told(per_second: f64) -> Self {
        let zero = Duration::ZERO;
        Self {
            per_second,
            p50: zero,
            p99: zero,
            answers: 0,
            refused: 0,
            cpu_seconds_per_thousand: 0.0,
            resident_mib: 0.0,
        }
    }
}

impl Load {
    /// Requests the paths in turn.
    pub fn get(target: &Target, paths: &[String], connections: usize) -> Self {
        let request = |path: &String| format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", target.address).into_bytes();
        let requests = Arc::new(paths.iter().map(request).collect());
        Self { target: target.clone(), requests, connections, pace: None }
    }

    pub fn post(target: &Target, path: &str, body: &str, connections: usize) -> Self {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            target.address,
            body.len()
        );
        Self { target: target.clone(), requests: Arc::new(vec![request.into_bytes()]), connections, pace: None }
    }

    /// Sends this many requests per second, however long answers take.
    pub fn paced(mut self, per_second: f64) -> Self {
        self.pace = Some(per_second);
        self
    }
}

/// Runs the load for `span`, after a fifth of it to warm up. The processor time of `servers` is measured over both.
pub async fn run(load: &Load, span: Duration, servers: &Servers) -> Rate {
    let before = servers.cpu_seconds();
    let begin = Instant::now() + span / 5;
    let end = begin + span;
    let mut workers = Vec::new();
    let interval = load.pace.map(|pace| Duration::from_secs_f64(load.connections as f64 / pace));
    for number in 0..load.connections {
        // Paced connections start one after the other, not all at once.
        let first = interval.map(|interval| (interval * number as u32) / load.connections as u32);
        let pace = first.zip(interval).map(|(first, interval)| Pace { next: Instant::now() + first, interval });
        let requests = Turn { requests: Arc::clone(&load.requests), next: number };
        workers.push(tokio::spawn(connection(load.target.address, requests, begin, end, pace)));
    }
    let mut all = Answers::default();
    for worker in workers {
        let some = worker.await.expect("a connection's task ends");
        all.latencies.extend(some.latencies);
        all.refused += some.refused;
        all.warming += some.warming;
    }
    all.latencies.sort_unstable();
    let count = all.latencies.len();
    let at = |share: f64| all.latencies.get((count as f64 * share) as usize).copied().unwrap_or_default();
    Rate {
        per_second: count as f64 / span.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        answers: count + all.warming,
        refused: all.refused,
        cpu_seconds_per_thousand: (servers.cpu_seconds() - before) * 1_000.0 / (count + all.warming).max(1) as f64,
        resident_mib: servers.resident_mib(),
    }
}

/// When a connection sends next. A connection that is late sends at once, and its lateness counts as latency.
struct Pace {
    next: Instant,
    interval: Duration,
}

impl Pace {
    async fn turn(&mut self) -> Instant {
        let now = Instant::now();
        let planned = self.next;
        self.next += self.interval;
        if planned <= now {
            return planned;
        }
        tokio::time::sleep_until(planned.into()).await;
        // The lateness of the timer itself must not count as the server's.
        Instant::now()
    }
}

/// What a connection sends next.
struct Turn {
    requests: Arc<Vec<Vec<u8>>>,
    next: usize,
}

impl Turn {
    fn next(&mut self) -> &[u8] {
        self.next += 1;
        &self.requests[self.next % self.requests.len()]
    }
}

#[derive(Default)]
struct Answers {
    latencies: Vec<Duration>,
    refused: usize,
    /// Answers before the measured span.
    warming: usize,
}

async fn connection(
    address: SocketAddr,
    mut requests: Turn,
    begin: Instant,
    end: Instant,
    mut pace: Option<Pace>,
) -> Answers {
    let mut stream = TcpStream::connect(address).await.expect("the target listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let mut buffer = vec![0; 64 << 10];
    let mut answers = Answers::default();
    loop {
        let started = match &mut pace {
            Some(pace) => pace.turn().await,
            None => Instant::now(),
        };
        // The plan of a late paced connection is behind the clock; requests that it did not send in time do not count.
        if started >= end || Instant::now() >= end {
            return answers;
        }
        stream.write_all(requests.next()).await.expect("the target reads");
        let is_good = answer(&mut stream, &mut buffer).await;
        if started < begin {
            answers.warming += 1;
            continue;
        }
        answers.latencies.push(started.elapsed());
        answers.refused += usize::from(!is_good);
    }
}

/// Reads one answer with a `Content-Length`; returns whether it was 2xx.
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
