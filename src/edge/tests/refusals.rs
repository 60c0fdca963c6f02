use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{Bench, request};

fn pointers(problem: &Value) -> Vec<&str> {
    problem["errors"].as_array().into_iter().flatten().filter_map(|error| error["pointer"].as_str()).collect()
}

#[tokio::test]
async fn places_that_do_not_fit_are_named_with_what_was_probably_meant() {
    let bench = Bench::start("").await;
    let problem = bench
        .post("/v1/tasks", r#"{"task": "tasks.add", "qeue": "x", "priority": 12}"#)
        .await
        .problem("invalid-request");
    assert_eq!(pointers(&problem), ["/qeue", "/priority"], "{problem}");
    assert!(problem.to_string().contains("did you mean queue?"), "{problem}");
    let problem = bench.post("/add", r#"{"x": "1", "z": 2}"#).await.problem("invalid-request");
    let mut found = pointers(&problem);
    found.sort_unstable();
    assert_eq!(found, ["/x", "/y", "/z"], "{problem}");
}

#[tokio::test]
async fn bodies_that_are_no_json_are_refused() {
    let bench = Bench::start("").await;
    let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
    for body in [&b"{\"task\": \"\xff\"}"[..], deep.as_bytes(), br#"{"task": "a\ud800"}"#] {
        bench.post("/v1/tasks", body).await.problem("invalid-json");
    }
    for body in ["", "{", "[]", "null", "{} {}", r#"{"task": NaN}"#] {
        bench.post("/v1/tasks", body).await.problem("invalid-request");
    }
    let answer =
        bench.send(request("POST", "/add", &[("content-type", "text/plain")], b"{\"x\":1,\"y\":2}".to_vec())).await;
    answer.problem("unsupported-media-type");
    let answer = bench.send(request("POST", "/add", &[], b"x=1".to_vec())).await;
    answer.problem("unsupported-media-type");
}

#[tokio::test]
async fn an_endpoint_without_a_schema_takes_no_body_under_any_content_type() {
    let bench = Bench::start("").await;
    for (kind, body) in [
        ("text/plain", ""),
        ("application/x-www-form-urlencoded", ""),
        ("application/json", "{}"),
        ("text/plain", "{}"),
    ] {
        let answer = bench.send(request("POST", "/run-crawler/job", &[("content-type", kind)], body.into())).await;
        assert_eq!(answer.json(202)["category"], "job", "{kind} {body:?}");
    }
    for (kind, body) in [("application/json", r#"{"x": 1}"#), ("text/plain", "x=1"), ("application/json", "x=1")] {
        let answer = bench.send(request("POST", "/run-crawler/job", &[("content-type", kind)], body.into())).await;
        answer.problem("invalid-request");
    }
    let problem = bench.post("/run-crawler/sports", "").await.problem("unknown-value");
    assert!(problem["detail"].as_str().unwrap().contains("job, scholarship, volunteer"), "{problem}");
}

#[tokio::test]
async fn ids_paths_and_methods_are_refused_in_the_same_shape() {
    let bench = Bench::start("").await;
    bench.get(&format!("/result/{}", "x".repeat(256))).await.problem("invalid-path");
    bench.get("/result/%ff").await.problem("invalid-path");
    bench.get("/v1/tasks/a%0Ab").await.problem("invalid-path");
    bench.get("/result/01890000-0000-7000-8000-000000000000").await.problem("task-not-found");
    bench.get("/v1/tasks/none/events").await.problem("task-not-found");
    bench.get("/no/such/path").await.problem("route-not-found");
    let answer = bench.send(request("DELETE", "/v1/tasks", &[], Vec::new())).await;
    answer.problem("method-not-allowed");
    let allowed = answer.header("allow").unwrap_or_default();
    assert!(allowed.contains("GET") && allowed.contains("POST"), "{allowed}");
}

#[tokio::test]
async fn queries_and_headers_that_cannot_be_read_are_refused() {
    let bench = Bench::start("").await;
    for query in ["limit=0", "limit=501", "phase=nonsense", "from=yesterday", "no_such=1", "label=x", "q=%FF"] {
        bench.get(&format!("/v1/tasks?{query}")).await.problem("invalid-query");
        if !query.starts_with("limit") {
            bench.get(&format!("/v1/events?{query}")).await.problem("invalid-query");
        }
    }
    bench.get("/v1/tasks?cursor=tampered").await.problem("invalid-cursor");
    for id in ["x", "-1", "1.5", "99999999999999999999"] {
        bench.get_with("/v1/events", &[("last-event-id", id)]).await.problem("invalid-header");
        bench.get_with("/v1/tasks/none/events", &[("last-event-id", id)]).await.problem("invalid-header");
    }
    bench.get_with("/result/none", &[("prefer", "wait=soon")]).await.problem("invalid-header");
    bench.post_with("/add", &[("idempotency-key", "")], r#"{"x":1,"y":2}"#).await.problem("invalid-header");
}

#[tokio::test]
async fn strangers_may_not_change_anything() {
    let bench = Bench::start("").await;
    let from = |host: &str, origin: Option<&str>| {
        let mut request = request("POST", "/run-crawler/job", &[], Vec::new());
        request.headers_mut().insert("host", host.parse().unwrap());
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        request
    };
    bench.send(from("evil.example", None)).await.problem("foreign-host");
    bench.send(from("127.0.0.1:8000", Some("http://evil.example"))).await.problem("foreign-origin");
    assert_eq!(bench.send(from("localhost:8000", Some("http://localhost:8000"))).await.status, 202);
}

#[tokio::test]
async fn nothing_refused_is_in_the_ledger() {
    let bench = Bench::start("").await;
    bench.post("/v1/tasks", r#"{"task": "os.system"}"#).await.problem("task-not-allowed");
    bench.post("/add", r#"{"x": 1}"#).await.problem("invalid-request");
    assert_eq!(bench.get("/v1/tasks").await.json(200), serde_json::json!({"tasks": [], "next": null}));
}

/// A client that sends on, and slowly, reads its answer before it is done.
#[tokio::test]
async fn a_body_that_is_too_large_is_answered_while_its_sender_still_sends() {
    let bench = Bench::start("limits.body = 1000\nlimits.drain = \"1MiB\"").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let http = crate::config::Config::parse(crate::config::Role::Dev, "").unwrap().http;
    let server = super::super::Server::new(&http).unwrap();
    let server = super::super::serve(listener, bench.router.clone(), server, stop.clone());
    let client = async {
        for head in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = format!(
                "POST /v1/tasks HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n{head}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            // The same bytes are a chunk of 2,000 for the one, and just bytes for the other.
            let piece = format!("7d0\r\n{}\r\n", "x".repeat(2_000));
            stream.write_all(piece.as_bytes()).await.unwrap();
            let mut answer = vec![0; 4_096];
            let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut answer)).await.unwrap().unwrap();
            let text = String::from_utf8_lossy(&answer[..read]).into_owned();
            assert!(text.starts_with("HTTP/1.1 413") && text.contains("payload-too-large"), "{text}");
            // It is still listened to: sending on fails neither now nor later.
            for _ in 0..10 {
                stream.write_all(piece.as_bytes()).await.unwrap();
            }
        }
        stop.cancel();
    };
    tokio::join!(server, client);
}
