//! Whatever a client sends, the answer is a problem or what was asked for: never 500, never a panic. Every numeric and time field of
//! the contract with every extreme, and any bytes in path, query, header and body.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;
use tower::ServiceExt;

use super::Bench;

/// JSON texts, some of which are none.
pub(super) const NUMBERS: [&str; 34] = [
    "0",
    "-0",
    "0.0",
    "-1",
    "1",
    "1e-300",
    "5e-324",
    "2.2250738585072014e-308",
    "1e-9",
    "0.5",
    "1e9",
    "1e10",
    "1e15",
    "1e18",
    "1e19",
    "1e300",
    "1.7976931348623157e308",
    "1e400",
    "-1e400",
    "NaN",
    "Infinity",
    "-Infinity",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "123456789012345678901234567890",
    "\"1e-300\"",
    "\"\"",
    "true",
    "[]",
];

pub(super) const TIMES: [&str; 16] = [
    "9999-12-31T23:59:59.999999999Z",
    "0000-01-01T00:00:00Z",
    "-009999-01-01T00:00:00Z",
    "+10000-01-01T00:00:00Z",
    "2026-02-30T00:00:00Z",
    "2026-01-01T24:00:00Z",
    "2026-01-01T23:59:60Z",
    "2026-01-01T00:00:00+99:99",
    "2026-01-01T00:00:00+14:00",
    "1e308",
    "0",
    "",
    "now",
    "2026-01-01",
    "9999-12-31T23:59:59-23:59",
    "-9999-01-01T00:00:00+23:59",
];

/// Bodies with a place for a number.
pub(super) const NUMERIC: [(&str, &str, &str); 43] = [
    ("POST", "/v1/tasks", r#"{"task": "tasks.add", "args": [§, 1]}"#),
    ("POST", "/v1/incidents/x/mute", r#"{"seconds": §}"#),
    ("POST", "/v1/tasks", r#"{"task": "tasks.multiply", "countdown": §}"#),
    ("POST", "/v1/tasks", r#"{"task": "tasks.multiply", "expires": §}"#),
    ("POST", "/v1/tasks", r#"{"task": "tasks.multiply", "priority": §}"#),
    ("POST", "/v1/tasks", r#"{"task": "tasks.multiply", "soft_time_limit": §}"#),
    ("POST", "/v1/tasks", r#"{"task": "tasks.multiply", "time_limit": §}"#),
    ("POST", "/v1/tasks", r#"{"task": "tasks.multiply", "retry": {"max": §}}"#),
    ("POST", "/v1/tasks", r#"{"task": "tasks.multiply", "retry": {"max": 3, "delay": §}}"#),
    ("POST", "/v1/tasks", r#"{"task": "tasks.multiply", "retry": {"max": 3, "backoff": §}}"#),
    ("POST", "/v1/tasks", r#"{"task": "tasks.multiply", "retry": {"max": 3, "cap": §}}"#),
    ("POST", "/v1/tasks", r#"{"task": "tasks.multiply", "retry": {"max": 3, "jitter": §}}"#),
    ("POST", "/v1/tasks", r#"{"task": "tasks.multiply", "unique": {"key": "k§", "while": §}}"#),
    ("POST", "/v1/tasks", r#"{"task": "tasks.multiply", "limits": [{"key": "k", "max": §}]}"#),
    ("POST", "/v1/tasks", r#"{"task": "tasks.multiply", "limits": [{"key": "k", "max": 1, "rate": §}]}"#),
    ("POST", "/v1/tasks", r#"{"task": "tasks.multiply", "headers": {"x": §}}"#),
    ("POST", "/v1/tasks", r#"{"task": "tasks.multiply", "args": [§], "kwargs": {"x": §}}"#),
    ("POST", "/v1/tasks/batch", r#"[{"task": "tasks.multiply", "countdown": §}]"#),
    (
        "POST",
        "/chain",
        r#"{"tasks": [{"task": "tasks.multiply", "countdown": §}, {"task": "tasks.multiply", "expires": §}]}"#,
    ),
    ("POST", "/add", r#"{"x": §, "y": §}"#),
    ("POST", "/reindex-notices", r#"{"start": §, "end": 10}"#),
    ("POST", "/reindex-notices", r#"{"start": 0, "end": §}"#),
    ("POST", "/reindex-notices", r#"{"start": 0, "end": 10, "size": §}"#),
    ("POST", "/v1/schedules", r#"{"name": "a§", "task": "tasks.multiply", "every": §}"#),
    ("POST", "/v1/schedules", r#"{"name": "b", "task": "tasks.multiply", "every": 60, "catch_up": §}"#),
    ("POST", "/v1/schedules", r#"{"name": "c", "task": "tasks.multiply", "every": 60, "expires": §}"#),
    ("PUT", "/v1/schedules/d", r#"{"task": "tasks.multiply", "every": §, "countdown": §}"#),
    ("PATCH", "/v1/schedules/e", r#"{"every": §}"#),
    ("POST", "/v1/schedules", r#"{"name": "f", "task": "tasks.multiply", "every": 60, "jitter": §}"#),
    ("POST", "/v1/tasks", r#"{"task": "tasks.multiply", "fair": {"key": "k", "weight": §}}"#),
    ("POST", "/v1/tasks", r#"{"chain": [{"wait": {"name": "w", "timeout": §}}, {"task": "tasks.multiply"}]}"#),
    ("POST", "/v1/tasks", r#"{"chain": [{"sleep": §}, {"task": "tasks.multiply"}]}"#),
    ("PUT", "/v1/limits/k", r#"{"max": §}"#),
    ("PUT", "/v1/limits/k", r#"{"rate": §}"#),
    ("POST", "/v1/bulk", r#"{"action": "retry", "filter": {}, "dry_run": true, "rate": §}"#),
    ("POST", "/v1/bulk", r#"{"action": "retry", "filter": {"from": §, "to": §}, "dry_run": true}"#),
    ("POST", "/v1/dead-letters/requeue", r#"{"max_per_second": §}"#),
    ("POST", "/v1/dead-letters/requeue", r#"{"filter": {}, "max_per_second": §, "dry_run": true}"#),
    ("POST", "/v1/control/rate_limit", r#"{"arguments": {"task_name": "x", "rate_limit": §}, "timeout": 0.1}"#),
    ("POST", "/v1/control/ping", r#"{"timeout": §}"#),
    ("POST", "/v1/control/pool_grow", r#"{"arguments": {"n": §}, "timeout": 0.1}"#),
    ("POST", "/v1/webhooks", r#"{"url": "https://8.8.8.8/", "enabled": §}"#),
    ("POST", "/v1/webhooks/x/rotate", r#"{"overlap": §}"#),
];

/// Queries with a place for a number or a time.
const QUERIES: [&str; 18] = [
    "/v1/tasks?limit=§",
    "/v1/tasks?cursor=§",
    "/v1/tasks?from=§",
    "/v1/tasks?to=§",
    "/v1/dead-letters?limit=§",
    "/v1/dead-letters?from=§&to=§",
    "/v1/schedules?limit=§",
    "/v1/schedules/daily-report/preview?n=§",
    "/v1/schedules/daily-report/runs?limit=§",
    "/v1/stats/throughput?from=§",
    "/v1/stats/throughput?to=§",
    "/v1/stats/latency?from=§&to=§",
    "/v1/stats/errors?from=§&limit=§",
    "/v1/stats/throughput?bucket=§",
    "/v1/queues/celery/messages?limit=§",
    "/v1/inspect/ping?timeout=§",
    "/v1/webhooks?limit=§&cursor=§",
    "/v1/webhooks/x/deliveries?limit=§&cursor=§",
];

/// Time fields of bodies.
pub(super) const TIMED: [(&str, &str); 9] = [
    ("/v1/incidents/x/mute", r#"{"until": "§"}"#),
    ("/v1/tasks", r#"{"task": "tasks.multiply", "eta": "§"}"#),
    ("/v1/tasks", r#"{"task": "tasks.multiply", "expires": "§"}"#),
    ("/v1/schedules", r#"{"name": "t", "task": "tasks.multiply", "at": "§"}"#),
    ("/v1/schedules", r#"{"name": "u", "task": "tasks.multiply", "every": 60, "timezone": "§"}"#),
    ("/v1/schedules", r#"{"name": "v", "task": "tasks.multiply", "every": 60, "starts_at": "§"}"#),
    ("/v1/schedules", r#"{"name": "w", "task": "tasks.multiply", "every": 60, "ends_at": "§"}"#),
    ("/v1/bulk", r#"{"action": "retry", "filter": {"from": "§", "to": "§"}, "dry_run": true}"#),
    ("/v1/dead-letters/requeue", r#"{"filter": {"from": "§", "to": "§"}, "dry_run": true}"#),
];

/// A control call waits this long at most.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn status(bench: &Bench, request: Request<Body>) -> StatusCode {
    let answer = tokio::time::timeout(PATIENCE, bench.router.clone().oneshot(request));
    answer.await.expect("every request is answered").expect("the router never fails").status()
}

pub(super) fn built(method: &str, uri: &str, body: Vec<u8>) -> Option<Request<Body>> {
    let request = Request::builder().method(method).uri(uri).header("host", "127.0.0.1:8000");
    request.header("content-type", "application/json").body(Body::from(body)).ok()
}

async fn assert_answered(bench: &Bench, method: &str, uri: &str, body: &str) {
    let Some(request) = built(method, uri, body.as_bytes().to_vec()) else { return };
    let status = status(bench, request).await;
    assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{method} {uri} {body}");
}

pub(super) fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn every_numeric_field_takes_every_extreme() {
    let bench = Bench::start("").await;
    for (method, path, body) in NUMERIC {
        for number in NUMBERS {
            assert_answered(&bench, method, path, &body.replace('§', number)).await;
        }
    }
    for query in QUERIES {
        for text in NUMBERS.iter().chain(&TIMES) {
            assert_answered(&bench, "GET", &query.replace('§', &escaped(text)), "").await;
        }
    }
    for (path, body) in TIMED {
        for time in TIMES {
            assert_answered(&bench, "POST", path, &body.replace('§', time)).await;
        }
    }
    for number in NUMBERS {
        let Ok(value) = HeaderValue::from_str(&format!("wait={number}")) else { continue };
        let mut request = built("GET", "/result/0199c2a8-0000-7000-8000-000000000001", Vec::new()).expect("a request");
        request.headers_mut().insert("prefer", value);
        assert_ne!(status(&bench, request).await, StatusCode::INTERNAL_SERVER_ERROR, "wait={number}");
    }
}

/// Operations of the contract that answer at once.
pub(super) async fn operations(bench: &Bench) -> Vec<(String, String)> {
    let document = bench.get("/openapi.json").await.json(200);
    let paths = document["paths"].as_object().expect("paths").clone();
    let of = |(path, methods): (String, Value)| {
        let methods: Vec<String> = methods.as_object().expect("methods").keys().cloned().collect();
        methods.into_iter().map(move |method| (method.to_uppercase(), path.clone()))
    };
    paths.into_iter().flat_map(of).collect()
}

/// Bytes as they are put into a path or a query: everything that may not stand there itself is escaped.
fn percent(bytes: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    bytes.iter().map(|byte| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn nasty() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        Just(b"\0".to_vec()),
        Just(b"a\0b".to_vec()),
        Just(vec![0xff, 0xfe, 0xc0, 0x80]),
        Just(b"../../../../etc/passwd".to_vec()),
        Just(b"\xed\xa0\x80".to_vec()),
        Just("\u{202e}\u{0}\u{ffff}".as_bytes().to_vec()),
        Just(vec![b'9'; 400]),
        Just(b"' or 1=1 --".to_vec()),
    ]
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let member = prop_oneof![
        Just("task"),
        Just("args"),
        Just("kwargs"),
        Just("queue"),
        Just("labels"),
        Just("headers"),
        Just("unique"),
        Just("limits"),
        Just("name"),
        Just("every"),
        Just("cron"),
        Just("reason"),
        Just("destination"),
        Just("arguments"),
        Just("url"),
        Just("filter"),
        Just("tasks"),
        Just("header"),
        Just("body"),
        Just("x"),
        Just("emails"),
    ];
    let text = prop_oneof![
        Just(r#""\u0000""#.to_owned()),
        Just(r#""tasks.multiply""#.to_owned()),
        Just(r#""a\u0000b\u001b[2J""#.to_owned()),
        Just(r#"{"\u0000": "\u0000"}"#.to_owned()),
        Just(r#"[["\u0000"]]"#.to_owned()),
        Just("1e-300".to_owned()),
        Just("null".to_owned()),
        Just("\"\u{0}\"".to_owned()),
        Just("\"\u{ffff}\u{10ffff}\"".to_owned()),
    ];
    let object = proptest::collection::vec((member, text), 0..5).prop_map(|members| {
        let members: Vec<String> = members.into_iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
        format!("{{{}}}", members.join(", ")).into_bytes()
    });
    prop_oneof![nasty(), object]
}

#[test]
fn any_bytes_anywhere_are_answered() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bench = runtime.block_on(Bench::start(""));
    let operations = runtime.block_on(operations(&bench));
    // Those wait for workers that do not exist.
    let slow = |path: &str| path.contains("/inspect/") || path.contains("/control/");
    let operations: Vec<_> = operations.into_iter().filter(|(_, path)| !slow(path)).collect();
    let strategy = (0..operations.len(), nasty(), nasty(), nasty(), bodies());
    let mut runner = TestRunner::new(Config { cases: 600, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&strategy, |(index, path, query, header, body)| {
        let (method, route) = &operations[index];
        let mut uri = String::new();
        for part in route.split('/').skip(1) {
            uri.push('/');
            uri.push_str(&if part.starts_with('{') { percent(&path) } else { part.to_owned() });
        }
        for name in ["q", "label", "task", "cursor", "root_id"] {
            uri.push_str(if uri.contains('?') { "&" } else { "?" });
            uri.push_str(&format!("{name}={}", percent(&query)));
        }
        let Some(mut request) = built(method, &uri, body) else { return Ok(()) };
        if let Ok(value) = HeaderValue::from_bytes(&header) {
            for name in [
                "idempotency-key",
                "if-none-match",
                "last-event-id",
                "prefer",
                "traceparent",
                "x-request-id",
                "forwarded",
            ] {
                request.headers_mut().insert(name, value.clone());
            }
        }
        let status = runtime.block_on(status(&bench, request));
        prop_assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{} {}", method, uri);
        Ok(())
    });
    outcome.unwrap();
}

/// The paths as they are, without the query that would be refused first.
#[test]
fn any_bytes_in_a_path_or_a_single_parameter_are_answered() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bench = runtime.block_on(Bench::start(""));
    let routes = [
        "/v1/tasks/§",
        "/result/§",
        "/v1/tasks/§/message",
        "/v1/tasks/§/explain",
        "/v1/tasks/§/graph",
        "/v1/tasks/§/events",
        "/v1/schedules/§",
        "/v1/schedules/§/runs",
        "/v1/schedules/§/preview",
        "/v1/webhooks/§",
        "/v1/webhooks/§/deliveries",
        "/problems/§",
        "/dashboard/§",
        "/swagger-ui/§",
        "/§",
        "/v1/tasks?q=§",
        "/v1/tasks?label=§",
        "/v1/tasks?task=§",
        "/v1/tasks?queue=§",
        "/v1/tasks?worker=§",
        "/v1/tasks?root_id=§",
        "/v1/tasks?group_id=§",
        "/v1/tasks?schedule=§",
        "/v1/tasks?cursor=§",
        "/v1/tasks?status=§",
        "/v1/tasks?phase=§",
        "/v1/dead-letters?q=§",
        "/v1/stats/errors?task=§",
        "/v1/stats/throughput?task=§",
        "/v1/schedules?cursor=§",
        "/v1/webhooks?cursor=§",
        "/v1/webhooks/x/deliveries?task_id=§",
        "/v1/tasks?§",
    ];
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&(0..routes.len(), nasty()), |(index, bytes)| {
        let uri = routes[index].replace('§', &percent(&bytes));
        let Some(request) = built("GET", &uri, Vec::new()) else { return Ok(()) };
        let status = runtime.block_on(status(&bench, request));
        prop_assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{}", uri);
        Ok(())
    });
    outcome.unwrap();
}
