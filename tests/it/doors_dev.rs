//! `taskgate dev` on a developer's machine: what a web page in the browser, and another user of the machine, can do.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::dev::Dev;
use crate::harness::gateway::run;
use crate::harness::wait::DEADLINE;
use crate::harness::{Gateway, ports};

/// The answer of dev's Redis port to these bytes, until it closes the connection or has sent `enough`.
async fn said(port: u16, bytes: &[u8], enough: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = async {
        let mut chunk = [0; 4096];
        while let Ok(count) = stream.read(&mut chunk).await {
            answer.extend_from_slice(&chunk[..count]);
            if count == 0 || (!enough.is_empty() && answer.windows(enough.len()).any(|part| part == enough)) {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, read).await.expect("it hangs up");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_web_page_cannot_speak_to_the_redis_of_dev() {
    let dev = Dev::start();
    let (broker, _) = dev.redis();
    let url = reqwest::Url::parse(&broker).expect("a URL");
    let (port, password) = (url.port().expect("a port"), url.password().expect("a password is printed").to_owned());
    assert!(password.len() >= 20, "{password}");
    let push = "LPUSH celery x\r\n";
    for request in [
        format!("POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {}\r\n\r\n{push}", push.len()),
        format!("host: evil.example\r\n{push}"),
        format!("AUTH {password}\r\nPOST /x\r\n{push}"),
    ] {
        let answer = said(port, request.as_bytes(), b"").await;
        assert!(!answer.contains(':'), "{request} was carried out: {answer}");
    }
    assert!(said(port, push.as_bytes(), b"\r\n").await.starts_with("-NOAUTH"));
    assert!(said(port, b"AUTH wrong\r\n", b"\r\n").await.starts_with("-WRONGPASS"));
    let length = format!("AUTH {password}\r\nLLEN celery\r\n");
    assert_eq!(said(port, length.as_bytes(), b":0\r\n").await, "+OK\r\n:0\r\n");
}

#[tokio::test]
async fn a_rebound_name_reads_nothing() {
    let dev = Dev::start();
    for path in ["/v1/tasks", "/dashboard/", "/swagger-ui/", "/openapi.json", "/v1/events", "/metrics", "/"] {
        let answer = dev.http.get_with(path, &[("host", "evil.example:8000")]).await;
        assert_eq!((path, answer.status), (path, 403), "{}", answer.text());
    }
    for path in ["/v1/tasks", "/dashboard/"] {
        assert_eq!(dev.http.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn the_files_of_dev_are_its_owners() {
    let dev = Dev::start();
    dev.post("/add", json!({"x": 1, "y": 2})).await;
    let mut open = vec![dev.gateway.directory().join("taskgate-data")];
    let mut seen = 0;
    while let Some(path) = open.pop() {
        let about = std::fs::metadata(&path).expect("it is there");
        let expected = if about.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(about.permissions().mode() & 0o777, expected, "{}", path.display());
        seen += 1;
        if about.is_dir() {
            open.extend(std::fs::read_dir(&path).expect("it is ours").map(|entry| entry.expect("an entry").path()));
        }
    }
    assert!(seen >= 2, "the directory and the ledger");
}

#[tokio::test]
async fn an_open_listener_has_to_be_meant() {
    for role in ["dev", "serve"] {
        let environment = [("TASKGATE_AUTH", "none"), ("DATABASE_URL", "sqlite://x.db")];
        let done = run(&[role, "--listen", "0.0.0.0:0"], &environment);
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{role}: {told}");
        assert!(told.contains("--i-know") && told.contains("0.0.0.0"), "{role}: {told}");
    }
    let port = ports::free();
    let listen = format!("0.0.0.0:{port}");
    let mut meant = Gateway::start(&["dev", "--listen", &listen, "--i-know"], port, None, &[]);
    meant.wait_until_ready();
    assert_eq!(meant.stop(Duration::from_secs(20)), Some(0));
}
