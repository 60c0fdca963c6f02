//! HTTP apart from the operations: CORS, compression, ids of requests, proxies, TLS, HTTP/2, and answers to bytes that are not a
//! request.

use std::io::Read;
use std::time::Duration;

use reqwest::{Method, Version};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::environment::Harness;
use crate::harness::postgres::{cluster, query};
use crate::harness::{Gateway, celery, eventually, http, ports};

/// A gateway of the test's own, without Redis: nothing here needs one.
pub fn gateway(extra: &str) -> Gateway {
    let nobody = format!("redis://127.0.0.1:{}/0", ports::free());
    Gateway::serve(&cluster().migrated_database(), &nobody, &nobody, extra)
}

fn vector(name: &str) -> String {
    celery::root().join("tests/vectors/tls").join(name).to_string_lossy().into_owned()
}

/// Sends bytes as they are and reads until the other side closes.
pub async fn raw(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    // The server may refuse early and close the connection before everything is written.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Bytes that are not a request have no route, so the HTTP library answers with a status and no problem document.
fn refused_bare(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
}

/// The problem document of a raw answer.
#[track_caller]
fn document(answer: &str, status: u16, slug: &str) -> Value {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no body: {answer}"));
    let problem: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert_eq!(problem["type"], format!("/problems/{slug}"), "{problem}");
    problem
}

#[tokio::test]
async fn pages_of_configured_sites_may_call_and_others_may_not() {
    let gateway = gateway("http.cors_origins = ['https://app.example']");
    let http = gateway.http();
    let preflight = |origin: &'static str| {
        let http = http.clone();
        async move {
            let headers = [
                ("origin", origin),
                ("access-control-request-method", "POST"),
                ("access-control-request-headers", "authorization,idempotency-key"),
            ];
            http.send(Method::OPTIONS, "/v1/tasks", &headers, None).await
        }
    };
    let allowed = preflight("https://app.example").await;
    assert!(allowed.status < 300, "{}", allowed.text());
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.example"));
    assert!(allowed.header("access-control-allow-methods").is_some_and(|methods| methods.contains("PATCH")));
    assert!(allowed.header("access-control-allow-headers").is_some_and(|headers| headers.contains("idempotency-key")));
    assert_eq!(preflight("https://evil.example").await.header("access-control-allow-origin"), None);
    let body = json!({"task": "demo.add"});
    let answer = http.post_with("/v1/tasks", &[("origin", "https://app.example")], &body).await;
    answer.expect(202);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    assert!(answer.header("access-control-expose-headers").is_some_and(|headers| headers.contains("location")));
    http.post_with("/v1/tasks", &[("origin", "https://evil.example")], &body).await.problem(403, "foreign-origin");
}

#[tokio::test]
async fn large_answers_are_compressed_and_streams_are_not() {
    let gateway = gateway("");
    let http = gateway.http();
    let mut id = String::new();
    for _ in 0..10 {
        let accepted = http.post("/v1/tasks", &json!({"task": "demo.add", "args": [1, 2]})).await.expect(202);
        id = accepted["task_id"].as_str().expect("an id").to_owned();
    }
    let accepts = [("accept-encoding", "gzip")];
    let plain = http.get("/v1/tasks").await;
    let small = http.get_with("/livez", &accepts).await;
    assert_eq!((plain.header("content-encoding"), small.header("content-encoding")), (None, None));
    let packed = http.get_with("/v1/tasks", &accepts).await;
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert!(packed.header("vary").is_some_and(|vary| vary.contains("accept-encoding")));
    assert!(packed.body.len() < plain.body.len() / 2);
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.body.as_slice()).read_to_string(&mut text).expect("gzip");
    assert_eq!(text, plain.text());
    let mut stream = http.events(&format!("/v1/tasks/{id}/events"), &accepts).await;
    assert_eq!(stream.next().await.expect("an event that can be read").event, "snapshot");
}

#[tokio::test]
async fn a_request_has_an_id_that_both_sides_know() {
    let gateway = gateway("");
    let http = gateway.http();
    let given = http.get_with("/v1/tasks", &[("x-request-id", "from-me-1")]).await;
    assert_eq!(given.header("x-request-id"), Some("from-me-1"));
    assert!(gateway.log().contains("from-me-1"), "{}", gateway.log());
    let made = http.get("/nothing").await;
    assert_eq!(made.header("x-request-id").map(str::len), Some(36));
    let refused = http.get_with("/v1/tasks", &[("x-request-id", "two words")]).await;
    assert_eq!(refused.header("x-request-id").map(str::len), Some(36));
}

#[tokio::test]
async fn a_trace_is_continued_into_the_message_and_seen_by_a_python_worker() {
    let env = Harness::shared();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let body = json!({"task": "demo.headers"});
    let accepted = env.http.post_with("/v1/tasks", &[("traceparent", parent)], &body).await.expect(202);
    let seen = env.finished(accepted["task_id"].as_str().expect("an id")).await;
    let seen = seen["result"]["traceparent"].as_str().unwrap_or_else(|| panic!("{seen}")).to_owned();
    assert_eq!(&seen[3..35], &parent[3..35], "the same trace: {seen}");
    let other = env.http.post_with("/v1/tasks", &[("traceparent", "nonsense")], &body).await.expect(202);
    let seen = env.finished(other["task_id"].as_str().expect("an id")).await;
    assert!(seen["result"].as_object().is_some_and(|headers| headers.get("traceparent") != Some(&json!("nonsense"))));
}

#[tokio::test]
async fn a_stop_ends_streams_with_the_time_to_come_back() {
    let mut gateway = gateway("");
    let client = http::client().build().expect("a client");
    let answer = client.get(format!("http://127.0.0.1:{}/v1/events", gateway.port)).send().await;
    let answer = answer.expect("the stream opens");
    assert_eq!(gateway.stop(Duration::from_secs(10)), Some(0));
    let text = answer.text().await.expect("the stream ends as a whole");
    let last = text.trim_end().rsplit("\n\n").next().unwrap_or_default();
    let pause: u64 =
        last.strip_prefix("retry: ").and_then(|pause| pause.parse().ok()).unwrap_or_else(|| panic!("{text}"));
    assert!((100..=5_000).contains(&pause) && text.matches("retry:").count() == 1, "{text}");
}

#[tokio::test]
async fn http_2_is_spoken_with_and_without_tls_and_a_renewed_certificate_is_used() {
    let plain = gateway("");
    let prior = http::client().http2_prior_knowledge().build().expect("a client");
    let answer = prior.get(format!("http://127.0.0.1:{}/livez", plain.port)).send().await.expect("an answer");
    assert_eq!((answer.version(), answer.status().as_u16()), (Version::HTTP_2, 200));
    let submitted = prior
        .post(format!("http://127.0.0.1:{}/v1/tasks", plain.port))
        .json(&json!({"task": "demo.add"}))
        .send()
        .await
        .expect("an answer");
    assert_eq!(submitted.status().as_u16(), 202, "Host is the URI's authority");

    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = (folder.path().join("gate.crt"), folder.path().join("gate.key"));
    let install = |name: &str| {
        std::fs::copy(vector(&format!("{name}.key")), &key).expect("a file");
        std::fs::copy(vector(&format!("{name}.crt")), &cert).expect("a file");
    };
    install("one");
    let nobody = format!("redis://127.0.0.1:{}/0", ports::free());
    let files = format!("http.tls_cert = '{}'\nhttp.tls_key = '{}'", cert.display(), key.display());
    let secured = Gateway::launch(&cluster().migrated_database(), &nobody, &nobody, &files);
    let url = format!("https://localhost:{}/livez", secured.port);
    let trusting = |name: &str| {
        let pem = std::fs::read(vector(&format!("{name}.crt"))).expect("a vector");
        let root = reqwest::Certificate::from_pem(&pem).expect("a certificate");
        let client = http::client().pool_max_idle_per_host(0).tls_certs_only([root]);
        client.build().expect("a client")
    };
    let first = trusting("one");
    let answer = eventually("it serves TLS", async || first.get(&url).send().await.ok()).await;
    assert_eq!((answer.version(), answer.status().as_u16()), (Version::HTTP_2, 200));
    install("two");
    let second = trusting("two");
    eventually("the renewed certificate is used", async || second.get(&url).send().await.ok()).await;
    assert!(first.get(&url).send().await.is_err(), "the old one is not used any more");
    assert!(secured.log().contains("listening on https://"), "{}", secured.log());
}

#[test]
fn a_certificate_that_cannot_be_used_stops_the_start() {
    let nobody = format!("redis://127.0.0.1:{}/0", ports::free());
    for (cert, key, word) in
        [("one.crt", "two.key", "tls_cert"), ("none.crt", "one.key", "none.crt"), ("one.crt", "one.crt", "tls_key")]
    {
        let files = format!("http.tls_cert = '{}'\nhttp.tls_key = '{}'", vector(cert), vector(key));
        let mut gateway = Gateway::launch(&cluster().migrated_database(), &nobody, &nobody, &files);
        assert_eq!(gateway.wait(Duration::from_secs(15)), Some(1), "{cert} {key}");
        assert!(gateway.log().contains(word), "{}", gateway.log());
    }
}

#[tokio::test]
async fn below_a_base_path_requests_come_with_it_or_without_and_links_have_it() {
    let gateway = gateway("http.base_path = '/tasks/'");
    let http = gateway.http();
    for path in ["/livez", "/tasks/livez", "/tasks/dashboard/", "/tasks/problems/unauthorized"] {
        assert_eq!(http.get(path).await.status, 200, "{path}");
    }
    let answer = http.post("/tasks/v1/tasks", &json!({"task": "demo.add"})).await;
    let accepted = answer.expect(202);
    let id = accepted["task_id"].as_str().expect("an id");
    assert_eq!(accepted["links"]["self"], format!("/tasks/v1/tasks/{id}"));
    assert_eq!(answer.header("location"), Some(format!("/tasks/v1/tasks/{id}").as_str()));
    http.get(accepted["links"]["self"].as_str().expect("a link")).await.expect(200);
    http.post("/tasks/v1/tasks", &json!({"task": "demo.add"})).await.expect(202);
    for path in ["/tasks/v1/tasks?limit=1", "/v1/tasks?limit=1"] {
        let page = http.get(path).await;
        assert!(
            page.header("link").is_some_and(|link| link.starts_with("</tasks/v1/tasks?limit=1&cursor=")),
            "{page:?}"
        );
    }
    let problem = http.get("/tasks/nothing").await.expect(404);
    assert_eq!(problem["type"], "/tasks/problems/route-not-found");
    assert_eq!(problem["instance"], "/tasks/nothing");
    assert_eq!(http.get("/tasks/problems/route-not-found").await.status, 200);
    assert_eq!(http.get("/tasks/").await.header("location"), Some("/tasks/dashboard/"));
    assert_eq!(http.get("/tasks").await.header("location"), Some("/tasks/dashboard/"));
    assert_eq!(http.get("/tasks/swagger-ui").await.header("location"), Some("/tasks/swagger-ui/"));
    assert_eq!(http.get("/tasks/openapi.json").await.expect(200)["servers"], json!([{"url": "/tasks"}]));
    // A longer word is not the base path.
    http.get("/tasksx/livez").await.expect(404);
}

#[tokio::test]
async fn only_a_trusted_proxy_says_for_whom_it_calls() {
    let trusting = gateway("http.trusted_proxies = ['127.0.0.0/8', '10.0.0.0/8']");
    let said = [
        ("x-forwarded-for", "198.51.100.7, 203.0.113.9, 10.1.2.3"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("x-request-id", "proxied-1"),
    ];
    let body = json!({"task": "demo.add"});
    trusting.http().post_with("/v1/tasks", &said, &body).await.problem(403, "foreign-host");
    let line = |gateway: &Gateway| {
        let log = gateway.log();
        log.lines().find(|line| line.contains("proxied-1")).unwrap_or_else(|| panic!("{log}")).to_owned()
    };
    let seen = line(&trusting);
    assert!(seen.contains("203.0.113.9") && !seen.contains("198.51.100.7"), "{seen}");
    let doubting = gateway("");
    doubting.http().post_with("/v1/tasks", &said, &body).await.expect(202);
    let seen = line(&doubting);
    assert!(seen.contains("127.0.0.1") && !seen.contains("203.0.113.9"), "{seen}");
}

#[tokio::test]
async fn every_refused_request_gets_a_document_and_garbage_a_bare_400() {
    let nobody = format!("redis://127.0.0.1:{}/0", ports::free());
    let database = cluster().migrated_database();
    let limits = "http.request_timeout = '1s'\nhttp.header_timeout = '1s'\nhttp.max_header = '8KiB'";
    let gateway = Gateway::serve(&database, &nobody, &nobody, limits);
    let port = gateway.port;
    for garbage in [
        "GARBAGE\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /\u{1} HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nbad header: x\r\n\r\n",
    ] {
        refused_bare(&raw(port, garbage.as_bytes()).await, 400);
    }
    let long = format!("GET /livez HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(40_000));
    refused_bare(&raw(port, long.as_bytes()).await, 431);
    // A body that never arrives, and a head that never ends.
    let slow = "POST /v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 50\r\nConnection: close\r\n\r\n{";
    document(&raw(port, slow.as_bytes()).await, 408, "request-timeout");
    assert_eq!(raw(port, b"GET /livez HTTP/1.1\r\nHost: a\r\n").await, "");
    // The gateway still answers.
    let http = gateway.http();
    http.get("/nowhere").await.problem(404, "route-not-found");
    let wrong = http.send(Method::DELETE, "/v1/tasks", &[], None).await;
    wrong.problem(405, "method-not-allowed");
    let allow = wrong.header("allow").expect("Allow").to_owned();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    http.get("/result/%FF").await.problem(400, "invalid-path");
    http.get("/problems/%FF").await.problem(400, "invalid-path");
    http.get("/dashboard/%FF").await.problem(400, "invalid-path");
    let plain = [("content-type", "text/plain")];
    http.send(Method::POST, "/v1/tasks", &plain, Some(b"x".to_vec())).await.problem(415, "unsupported-media-type");
    let long = vec![b' '; 9 << 20];
    http.send(Method::POST, "/v1/tasks", &[("content-type", "application/json")], Some(long))
        .await
        .problem(413, "payload-too-large");
    // An answer that is delayed because another connection holds the table. The request times out before that ends.
    let held = "begin; lock table taskgate.task in access exclusive mode; select pg_sleep(60)";
    std::thread::spawn(move || query(&database, held));
    let late = eventually("a request takes too long", async || {
        let answer = http.get("/v1/tasks").await;
        (answer.status == 503).then_some(answer)
    });
    let late = late.await;
    late.problem(503, "overloaded");
    assert_eq!(late.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn a_connection_too_many_is_told_so() {
    let gateway = gateway("http.max_connections = 3");
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).await.expect("it listens");
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
        open.push(stream);
    }
    let refused = raw(gateway.port, b"").await;
    document(&refused, 503, "too-many-connections");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    open.clear();
    let http = gateway.http();
    eventually("there is room again", async || (http.get("/livez").await.status == 200).then_some(())).await;
}
