//! Uploads ten files of 100 MiB at once: the gateway's rate and peak memory.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{future, stream};
use reqwest::{Body, Client};

use super::harness::{Gateway, process};
use super::{AFTER_START, Bench, SETTINGS};

const FILES: usize = 10;
const FILE: usize = 100 << 20;
const PIECE: usize = 64 << 10;
const PROMISED_MIB: f64 = 200.0;
const PATIENCE: Duration = Duration::from_secs(300);
const ENTRY: &str = "[[tasks]]\nname = 'demo.identity'\nendpoint = 'POST /keep'\nargs = ['{file}']\n\
                     upload = { field = 'file', max = '101 MiB' }\n";

pub async fn measure(bench: &mut Bench) {
    bench.table.heading(&format!("{FILES} uploads of 100 MiB at once, into a folder"));
    bench.renew();
    let folder = process::folder("files");
    let store = format!("[stores.default]\nurl = 'file://{}'\n", folder.display());
    bench.gateway =
        Gateway::serve(&bench.database, &bench.redis.url(0), &bench.redis.url(1), &format!("{SETTINGS}{store}{ENTRY}"));
    tokio::time::sleep(AFTER_START).await;
    let before = peak_mib(bench.gateway.id());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(PATIENCE).build().expect("a client without TLS roots");
    let url = format!("{}/keep", bench.http().base);
    let started = Instant::now();
    let send = |_| {
        let request = client.post(&url).header("content-type", "multipart/form-data; boundary=XX");
        request.body(form()).send()
    };
    for answer in future::join_all((0..FILES).map(send)).await {
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap_or_default());
    }
    let seconds = started.elapsed().as_secs_f64();
    let peak = peak_mib(bench.gateway.id());
    bench.table.note(format!(
        "{:.0} MiB/s; at most {peak:.0} MiB resident ({before:.0} before)   {}",
        (FILES * FILE) as f64 / f64::from(1 << 20) / seconds,
        if peak < PROMISED_MIB { "holds" } else { "DOES NOT HOLD" }
    ));
    bench.renew();
    let _ = std::fs::remove_dir_all(folder);
}

/// The form with the file, generated while it is sent.
fn form() -> Body {
    const HEAD: &str = "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n\
                        Content-Type: application/octet-stream\r\n\r\n";
    let piece = Bytes::from(vec![1; PIECE]);
    let pieces = std::iter::once(Bytes::from(HEAD))
        .chain(std::iter::repeat_n(piece, FILE / PIECE))
        .chain([Bytes::from("\r\n--XX--\r\n")]);
    Body::wrap_stream(stream::iter(pieces.map(Ok::<_, std::io::Error>)))
}

/// The peak resident memory of a process.
fn peak_mib(pid: i32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok()).expect("Linux reports it");
    kib / 1024.0
}
