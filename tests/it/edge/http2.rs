//! HTTP/2 with handwritten frames: tests limits of connections that no client library would exceed.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::http::{gateway, raw};
use crate::harness::{Answer, Http, http};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Types of frames, settings, an error and a flag, as RFC 9113 numbers them.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const REFUSED_STREAM: u32 = 7;
const END_HEADERS: u8 = 4;

/// As `MOST_REQUESTS` of the server.
const MOST_REQUESTS: u32 = 1_000;
const PATIENCE: Duration = Duration::from_secs(60);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

struct Frame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

async fn next(stream: &mut TcpStream) -> Frame {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.expect("a frame");
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).await.expect("the rest of a frame");
    Frame { kind: head[3], stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload }
}

/// The first frame of this type.
async fn next_of(kind: u8, stream: &mut TcpStream) -> Frame {
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            let frame = next(stream).await;
            if frame.kind == kind {
                return frame;
            }
        }
    });
    found.await.unwrap_or_else(|_| panic!("no frame of type {kind}"))
}

/// `POST /v1/tasks` without its body yet: HPACK without dynamic table and without Huffman coding.
fn head() -> Vec<u8> {
    let mut head = vec![0x83, 0x86];
    for (index, value) in [(0x04, "/v1/tasks"), (0x01, "127.0.0.1"), (0x0f, "application/json")] {
        head.push(index);
        // Content-Type is number 31: what does not fit into four bits follows.
        head.extend((index == 0x0f).then_some(31 - 15));
        head.push(value.len() as u8);
        head.extend_from_slice(value.as_bytes());
    }
    head
}

/// The answer to a request with so large a header.
async fn with_a_header(http: &Http, bytes: usize) -> Answer {
    let client = http::client().http2_prior_knowledge().build().expect("a client");
    let request = client.get(format!("{}/livez", http.base)).header("x-long", "x".repeat(bytes));
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.bytes().await.expect("a body").to_vec();
    Answer { what: format!("{bytes} bytes"), status, headers, body }
}

#[tokio::test]
async fn a_connection_has_so_many_requests_in_progress_and_heads_of_so_many_bytes() {
    let gateway = gateway("http.max_header = '8KiB'\nhttp.header_timeout = '1s'");
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).await.expect("it listens");
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.expect("it reads");
    let settings = next_of(SETTINGS, &mut stream).await;
    let told = settings.payload.chunks_exact(6).find(|one| one[..2] == MAX_CONCURRENT_STREAMS.to_be_bytes());
    assert_eq!(told.map(|one| &one[2..]), Some(&MOST_REQUESTS.to_be_bytes()[..]), "{:?}", settings.payload);
    // One more request than allowed, and none of them ends.
    let requests = (0..=MOST_REQUESTS).map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, &head()));
    stream.write_all(&requests.collect::<Vec<_>>().concat()).await.expect("it reads");
    let refused = next_of(RST_STREAM, &mut stream).await;
    assert_eq!((refused.stream, refused.payload), (2 * MOST_REQUESTS + 1, REFUSED_STREAM.to_be_bytes().to_vec()));
    drop(stream);

    let http = gateway.http();
    assert_eq!(with_a_header(&http, 7_000).await.status, 200);
    with_a_header(&http, 9_000).await.problem(431, "headers-too-large");
    // So large that the HTTP library refuses it.
    assert_eq!(with_a_header(&http, 90_000).await.status, 431);

    // A client that sends no preface is disconnected, like one that never ends its head; over HTTP/2 the server has sent its settings
    // before.
    for said in [&b""[..], b"P", &PREFACE[..20]] {
        let answer = raw(gateway.port, said).await;
        assert!(answer.is_empty() || (said.len() == 20 && !answer.contains("HTTP/1.1")), "{said:?}: {answer:?}");
    }
    assert_eq!(http.get("/livez").await.status, 200);
}
