//! Unusual and malformed input of HTTP, webhooks and logs.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::dev::Dev;
use crate::edge::Guarded;
use crate::edge::http::{gateway, raw};

#[tokio::test]
async fn every_page_has_a_policy() {
    let dev = Dev::start();
    let pages = ["/dashboard/", "/swagger-ui/", "/problems/", "/problems/invalid-request", "/v1/tasks", "/nothing"];
    for path in pages {
        let answer = dev.http.get(path).await;
        let policy = answer.header("content-security-policy").unwrap_or_default();
        assert!(policy.contains("frame-ancestors 'none'") && policy.contains("default-src"), "{path}: {policy}");
        assert!(!policy.contains("unsafe-inline") || policy.contains("style-src"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
}

#[tokio::test]
async fn a_request_names_one_host() {
    let gateway = gateway("");
    let port = gateway.port;
    for hosts in [String::new(), format!("Host: 127.0.0.1:{port}\r\nHost: evil.example\r\n")] {
        let answer = raw(port, format!("GET /livez HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{hosts:?}: {answer}");
        assert!(answer.contains("/problems/malformed-request"), "{hosts:?}: {answer}");
    }
    let one = format!("GET /livez HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    assert!(raw(port, one.as_bytes()).await.starts_with("HTTP/1.1 200 "));
    let old = raw(port, b"GET /livez HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 ") || old.starts_with("HTTP/1.1 200 "), "HTTP/1.0 needs none: {old}");
}

#[tokio::test]
async fn a_refusal_lets_its_sender_read_the_answer() {
    let gateway = &Guarded::shared().gateways[0];
    let stream = TcpStream::connect(("127.0.0.1", gateway.port)).await.expect("it listens");
    let (mut reader, mut writer) = stream.into_split();
    let size = 6 << 20;
    let head = format!(
        "POST /v1/tasks HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n",
        gateway.port
    );
    let send = async {
        writer.write_all(head.as_bytes()).await.expect("it reads");
        for _ in 0..size / (64 << 10) {
            writer.write_all(&[b' '; 64 << 10]).await.expect("the rest is taken until the answer is read");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        writer
    };
    let read = async {
        let mut answer = Vec::new();
        reader.read_to_end(&mut answer).await.expect("no reset");
        String::from_utf8_lossy(&answer).into_owned()
    };
    let (_writer, answer) =
        tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(send, read) }).await.expect("it ends");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    assert!(answer.contains("/problems/unauthorized"), "{answer}");
}

#[tokio::test]
async fn a_webhook_to_a_private_place_is_refused_at_registration() {
    let gateway = gateway("");
    let http = gateway.http();
    for url in [
        "http://127.0.0.1/x",
        "http://localhost/x",
        "http://localhost.:80/x",
        "http://0x7f.1/x",
        "http://[::1]/x",
        "http://[fe80::1%25eth0]/x",
        "http://10.1.2.3/x",
        "https://8.8.8.8:22/x",
        "https://8.8.8.8:6379/x",
        "https://8.8.8.8:0/x",
    ] {
        for (path, body, pointer) in [
            ("/v1/webhooks", json!({"url": url}), "/url"),
            ("/v1/tasks", json!({"task": "demo.add", "webhooks": [{"url": url}]}), "/webhooks/0/url"),
        ] {
            let answer = http.post(path, &body).await;
            assert_eq!(answer.status, 422, "{path} {url}: {}", answer.text());
            assert!(answer.text().contains(pointer), "{path} {url}: {}", answer.text());
        }
    }
    http.post("/v1/webhooks", &json!({"url": "https://8.8.8.8:8443/x"})).await.expect(201);
}

#[tokio::test]
async fn nobody_writes_lines_into_the_log() {
    let gateway = gateway("log.format = 'text'");
    let http = gateway.http();
    let forged = "x\n2030-01-01T00:00:00Z  INFO forged: \u{1b}[2J\u{7}\u{9b}31m\u{2028}line";
    let path = "/v1/tasks/%0Aforged%1B%5B2J/message";
    http.get(path).await;
    http.get(&format!("/v1/inspect/ping?destination={}", "%0Aforged%1B%5B31m")).await;
    http.post("/v1/control/rate_limit", &json!({"destination": [forged], "arguments": {"task_name": forged}})).await;
    http.post("/v1/tasks", &json!({"task": "demo.add", "labels": {"a": forged}, "queue": "q"})).await;
    http.post("/v1/tasks/nobody/revoke", &json!({"reason": forged})).await;
    let log = gateway.log();
    let is_clean =
        |line: &str| !line.starts_with("2030") && !line.starts_with("forged") && !line.chars().any(char::is_control);
    for line in log.lines() {
        assert!(is_clean(line), "{line:?}");
    }
}
