//! What honest clients notice during each kind of attack from eight hostile connections: latency of `/livez` and of durable submissions,
//! compared with the same load without an attack.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::load::{self, Load, Rate};
use super::table::millis;
use super::{Bench, SPAN};

const SUBMIT: &str = r#"{"task": "demo.add", "args": [2, 3], "queue": "bench"}"#;
const HOSTILE: usize = 8;
/// Requests of `/livez` per second.
const LOOKS: f64 = 200.0;
/// Honest submissions per second. The machine can do far more, so any shortfall is caused by the attack.
const OFFERED: f64 = 300.0;
const PROMISED_LIVEZ: Duration = Duration::from_millis(50);
const PROMISED_SHARE: f64 = 0.8;

/// Numbers at the limits of JSON, floats and integers; none of these calls is accepted.
const EXTREMES: [&str; 6] = [
    r#"{"task": "demo.add", "countdown": -5e-324}"#,
    r#"{"task": "demo.add", "countdown": 1e400}"#,
    r#"{"task": "demo.add", "priority": 123456789012345678901234567890}"#,
    r#"{"task": "demo.add", "time_limit": 1e-300, "soft_time_limit": 1.7976931348623157e308}"#,
    r#"{"task": "demo.add", "limits": [{"key": "k", "max": 18446744073709551616, "rate": "1e-300/s"}]}"#,
    r#"{"task": "demo.add", "unique": {"key": "k", "while": 1e-320}, "eta": "9999-12-31T23:59:59-23:59"}"#,
];

/// A kind of attack: what a connection sends again and again.
struct Kind {
    name: &'static str,
    head: String,
    body: Body,
}

enum Body {
    Whole(Vec<u8>),
    /// Sends the same part for ever.
    Endless(Vec<u8>),
    /// Sends a byte now and then.
    Drip,
}

pub async fn measure(bench: &mut Bench) {
    bench.table.heading("Hostile: /livez and honest submissions beside eight hostile connections");
    let (quiet_live, quiet) = honest(bench).await;
    note(bench, "nobody hostile", &quiet_live, &quiet, &quiet);
    for kind in kinds() {
        // What one attack left behind must not affect the next.
        bench.renew();
        bench.redis.command::<()>(0, &["SET", "poisoned", "no list"]);
        let stop = CancellationToken::new();
        let kind = std::sync::Arc::new(kind);
        let address = bench.target().address;
        let attackers: Vec<_> = (0..HOSTILE)
            .map(|_| {
                tokio::spawn(stop.clone().run_until_cancelled_owned(attack(address, std::sync::Arc::clone(&kind))))
            })
            .collect();
        let (live, rate) = honest(bench).await;
        stop.cancel();
        for attacker in attackers {
            let _ = attacker.await;
        }
        note(bench, kind.name, &live, &rate, &quiet);
    }
}

async fn honest(bench: &Bench) -> (Rate, Rate) {
    let servers = bench.servers();
    let looks = Load::get(&bench.target(), &["/livez".to_owned()], 2).paced(LOOKS);
    let submissions = Load::post(&bench.target(), "/v1/tasks", SUBMIT, 16).paced(OFFERED);
    tokio::join!(load::run(&looks, SPAN, &servers), load::run(&submissions, SPAN, &servers))
}

fn note(bench: &mut Bench, name: &str, live: &Rate, rate: &Rate, quiet: &Rate) {
    let share = (rate.per_second - rate.refused as f64 / SPAN.as_secs_f64()) / quiet.per_second.max(1.0);
    let holds = live.p99 <= PROMISED_LIVEZ && share >= PROMISED_SHARE;
    bench.table.note(format!(
        "{name:<48} /livez p99 {:>7.1} ms   submissions {:>5.0}/s ({:>3.0} %), p99 {:>7.1} ms   {}",
        millis(live.p99),
        rate.per_second,
        share * 100.0,
        millis(rate.p99),
        if holds { "holds" } else { "DOES NOT HOLD" }
    ));
}

fn kinds() -> Vec<Kind> {
    let members: Vec<String> = (0..500_000).map(|n| format!("\"u{n}\":1")).collect();
    let steps = vec![r#"{"task":"","args":1}"#; 100_000].join(",");
    let wide = vec!["1"; 900_000].join(",");
    let poisoned = vec![r#"{"task": "demo.add", "queue": "poisoned"}"#; 2_000].join(",");
    let extremes = EXTREMES.repeat(4_000).join(",");
    let calls = vec![r#"{"task": "demo.add", "queue": "bench", "countdown": 86400}"#; 20_000].join(",");
    let json = |path: &str| head(path, "application/json", "");
    let lines = head("/v1/tasks/batch", "application/x-ndjson", "");
    vec![
        whole("500,000 unknown members", json("/v1/tasks"), format!("{{{}}}", members.join(","))),
        whole("an invalid chain of 100,000", json("/chain"), format!("{{\"tasks\":[{steps}]}}")),
        whole(
            "a list of 900,000 where an object must be",
            json("/v1/tasks"),
            format!("{{\"task\":\"x\",\"kwargs\":[{wide}]}}"),
        ),
        whole("a catalog's body of 500,000 members", json("/add"), format!("{{{}}}", members.join(","))),
        whole("numeric extremes", json("/v1/tasks/batch"), format!("[{extremes}]")),
        whole("batches to a queue that Redis refuses", json("/v1/tasks/batch"), format!("[{poisoned}]")),
        whole("a held group of 20,000", json("/group"), format!("{{\"tasks\":[{calls}]}}")),
        Kind {
            name: "a gzip bomb",
            head: head("/v1/tasks", "application/json", "Content-Encoding: gzip\r\n"),
            body: Body::Whole(bomb()),
        },
        Kind { name: "a line without an end", head: lines.clone(), body: Body::Endless(vec![b'x'; 64 << 10]) },
        Kind { name: "short lines without an end", head: lines.clone(), body: Body::Endless(b"{}\n".repeat(10_000)) },
        Kind { name: "a body byte by byte", head: lines, body: Body::Drip },
    ]
}

fn head(path: &str, kind: &str, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{more}")
}

fn whole(name: &'static str, head: String, body: String) -> Kind {
    Kind { name, head, body: Body::Whole(body.into_bytes()) }
}

fn bomb() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let blanks = vec![b' '; 1 << 20];
    for _ in 0..500 {
        encoder.write_all(&blanks).expect("memory");
    }
    encoder.finish().expect("memory")
}

/// Attacks until it is stopped; opens a new connection whenever the last one was closed.
async fn attack(address: SocketAddr, kind: std::sync::Arc<Kind>) {
    loop {
        let Ok(stream) = TcpStream::connect(address).await else { continue };
        let _ = once(stream, &kind).await;
    }
}

async fn once(mut stream: TcpStream, kind: &Kind) -> std::io::Result<()> {
    match &kind.body {
        Body::Whole(body) => {
            let head = format!("{}Content-Length: {}\r\n\r\n", kind.head, body.len());
            loop {
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(body).await?;
                answer(&mut stream).await?;
            }
        }
        Body::Endless(part) => {
            stream.write_all(format!("{}Transfer-Encoding: chunked\r\n\r\n", kind.head).as_bytes()).await?;
            let chunk = [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
            loop {
                stream.write_all(&chunk).await?;
            }
        }
        Body::Drip => {
            stream.write_all(format!("{}Transfer-Encoding: chunked\r\n\r\n", kind.head).as_bytes()).await?;
            loop {
                stream.write_all(b"1\r\nx\r\n").await?;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

/// Reads an answer, whatever its content: head and body arrive together, or in a few parts.
async fn answer(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let read = stream.read(&mut buffer).await?;
    if read == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    while let Ok(more) = stream.try_read(&mut buffer) {
        if more == 0 {
            break;
        }
    }
    Ok(())
}
