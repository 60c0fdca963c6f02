//! Small requests cannot cause large costs: what one client sends is bounded while it is read, and delays no other client.

use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::edge::http::gateway;
use crate::harness::environment::{Harness, Options};
use crate::harness::{Answer, Gateway, Http, eventually};

const JSON: (&str, &str) = ("content-type", "application/json");

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

async fn post(http: &Http, encoding: &str, body: Vec<u8>) -> Answer {
    http.send(Method::POST, "/v1/tasks", &[JSON, ("content-encoding", encoding)], Some(body)).await
}

#[tokio::test]
async fn a_packed_body_is_limited_by_what_it_unpacks_to() {
    let gateway = gateway("");
    let http = gateway.http();
    let call = json!({"task": "demo.add", "args": [1, 2]}).to_string();
    post(&http, "gzip", packed(call.as_bytes())).await.expect(202);
    post(&http, "identity", call.clone().into_bytes()).await.expect(202);
    let bomb = packed(&vec![b' '; 200 << 20]);
    assert!(bomb.len() < 1 << 20);
    post(&http, "gzip", bomb.clone()).await.problem(413, "payload-too-large");
    post(&http, "gzip", call.clone().into_bytes()).await.problem(400, "invalid-json");
    post(&http, "gzip", packed(call.as_bytes())[..20].to_vec()).await.problem(400, "invalid-json");
    for unknown in ["br", "zstd", "deflate", "gzip, gzip", "x"] {
        let refused = post(&http, unknown, packed(call.as_bytes())).await;
        refused.problem(415, "unsupported-media-type");
        assert_eq!(refused.header("accept-encoding"), Some("gzip"), "{unknown}");
    }
    let lines = [("content-type", "application/x-ndjson"), ("content-encoding", "gzip")];
    let batch = |body: Vec<u8>| http.send(Method::POST, "/v1/tasks/batch", &lines, Some(body));
    assert_eq!(batch(packed(format!("{call}\n{call}\n").as_bytes())).await.expect(202)["accepted"], 2);
    batch(bomb).await.problem(413, "payload-too-large");
}

/// The answer to a body that never ends.
async fn endless(gateway: &Gateway, kind: &str, part: &[u8]) -> String {
    let stream = TcpStream::connect(("127.0.0.1", gateway.port)).await.expect("it listens");
    let (mut reader, mut writer) = stream.into_split();
    let head = format!(
        "POST /v1/tasks/batch HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n",
        gateway.port
    );
    writer.write_all(head.as_bytes()).await.expect("it reads");
    let chunk = [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
    let send = async {
        while writer.write_all(&chunk).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let mut answer = vec![0; 64 << 10];
    tokio::select! {
        () = send => unreachable!("it waits"),
        read = tokio::time::timeout(Duration::from_secs(90), reader.read(&mut answer)) => {
            let read = read.expect("it is answered").expect("the answer can be read");
            String::from_utf8_lossy(&answer[..read]).into_owned()
        }
    }
}

#[tokio::test]
async fn a_line_without_an_end_is_answered_in_time() {
    let gateway = gateway("limits.body = '64 KiB'\nlimits.drain = '1 MiB'\nhttp.request_timeout = '2s'");
    for kind in ["application/x-ndjson", "application/json"] {
        let answer = endless(&gateway, kind, &[b'x'; 16 << 10]).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{kind}: {answer}");
    }
    // So slow that the whole takes too long, although no single read does.
    let stream = TcpStream::connect(("127.0.0.1", gateway.port)).await.expect("it listens");
    let (mut reader, mut writer) = stream.into_split();
    let head = "POST /v1/tasks/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
    writer.write_all(head.as_bytes()).await.expect("it reads");
    let drip = async {
        while writer.write_all(b"1\r\nx\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut answer = vec![0; 4 << 10];
    tokio::select! {
        () = drip => unreachable!("it waits"),
        read = tokio::time::timeout(Duration::from_secs(90), reader.read(&mut answer)) => {
            let read = read.expect("it is answered").expect("the answer can be read");
            assert!(answer[..read].starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer[..read]));
        }
    }
}

#[tokio::test]
async fn a_body_of_faults_costs_little_and_stops_nobody() {
    let gateway = gateway("");
    let http = gateway.http();
    let members: Vec<String> = (0..300_000).map(|n| format!("\"unknown{n}\": 1")).collect();
    let chain: Vec<String> = (0..50_000).map(|n| format!("{{\"task\": \"\", \"args\": {n}}}")).collect();
    let bodies = [
        ("/v1/tasks", format!("{{{}}}", members.join(","))),
        ("/chain", format!("{{\"tasks\": [{}]}}", chain.join(","))),
        ("/add", format!("{{{}}}", members.join(","))),
        ("/v1/schedules", format!("{{{}}}", members.join(","))),
    ];
    for (path, body) in bodies {
        let (refused, alive) = tokio::join!(
            http.send(Method::POST, path, &[JSON], Some(body.into_bytes())),
            eventually("it answers others", async || (http.get("/livez").await.status == 200).then_some(()))
        );
        let () = alive;
        let problem = refused.problem(422, "invalid-request");
        let errors = problem["errors"].as_array().expect("places").len();
        assert!((1..=20).contains(&errors), "{path}: {errors}");
    }
}

#[tokio::test]
async fn a_queue_that_redis_refuses_holds_up_nobody_else() {
    let env = Harness::start(&Options { without_worker: true, ..Options::default() });
    env.redis.command::<()>(0, &["SET", "poisoned", "not a list"]);
    let mut batch: Vec<Value> = Vec::new();
    for n in 0..20 {
        batch.push(json!({"task": "demo.add", "args": [n, 1], "queue": "poisoned"}));
        batch.push(json!({"task": "demo.add", "args": [n, 1], "queue": "healthy"}));
    }
    assert_eq!(env.http.post("/v1/tasks/batch", &json!(batch)).await.expect(202)["accepted"], 40);
    eventually("the others are queued", async || {
        (env.redis.command::<usize>(0, &["LLEN", "healthy"]) == 20).then_some(())
    })
    .await;
    let after = env.submit_signature(json!({"task": "demo.add", "args": [1, 2], "queue": "healthy"})).await;
    env.in_phase(&after, "queued").await;
    // The other tasks are not lost and not reported as queued: they are held, with the reason.
    let held = eventually("the refused ones are held", async || {
        let found = env.http.get("/v1/tasks?queue=poisoned&phase=held").await.expect(200)["tasks"].clone();
        (found.as_array().map(Vec::len) == Some(20)).then_some(found)
    })
    .await;
    let id = held[0]["task_id"].as_str().expect("an id");
    let explained = env.http.get(&format!("/v1/tasks/{id}/explain")).await.expect(200);
    assert!(explained["sentence"].as_str().is_some_and(|text| text.contains("list")), "{explained}");
    assert_eq!(env.redis.command::<usize>(0, &["LLEN", "healthy"]), 21);
}

/// PostgreSQL accepts no NUL in a text, so these texts were checked before they reached it.
#[tokio::test]
async fn no_text_of_a_request_is_an_internal_error() {
    let gateway = gateway("");
    let http = gateway.http();
    let texts =
        ["%00", "a%00b", "%FF%FE", "%ED%A0%80", "%EF%BF%BF", "%C0%80", "%25%30%30", "%0D%0A", "'%3B--", "%F4%8F%BF%BF"];
    let routes = [
        "/v1/tasks/@",
        "/result/@",
        "/v1/tasks/@/message",
        "/v1/tasks/@/explain",
        "/v1/tasks/@/graph",
        "/v1/tasks/@/events",
        "/v1/tasks?q=@",
        "/v1/tasks?task=@",
        "/v1/tasks?queue=@",
        "/v1/tasks?worker=@",
        "/v1/tasks?label=a:@",
        "/v1/tasks?label=@:b",
        "/v1/tasks?root_id=@",
        "/v1/tasks?group_id=@",
        "/v1/tasks?schedule=@",
        "/v1/tasks?status=@",
        "/v1/tasks?cursor=@",
        "/v1/dead-letters?q=@",
        "/v1/events?task=@&limit=1",
        "/v1/schedules?cursor=@",
        "/v1/schedules/@",
        "/v1/schedules/@/runs",
        "/v1/webhooks/@",
        "/v1/webhooks/@/deliveries",
        "/v1/webhooks/x/deliveries?task_id=@",
        "/v1/stats/errors?task=@",
        "/v1/stats/throughput?task=@",
        "/v1/stats/latency?task=@&queue=@",
    ];
    for route in routes {
        for text in texts {
            let path = route.replace('@', text);
            let answer = http.get_with(&path, &[("accept", "application/json"), ("last-event-id", "0")]).await;
            assert_ne!(answer.status, 500, "{path}: {}", answer.text());
        }
    }
    let nul = r"a\u0000b";
    let call = |member: &str| format!("{{\"task\": \"demo.add\", {member}}}");
    let bodies = [
        ("/v1/tasks", call(&format!("\"args\": [\"{nul}\"], \"kwargs\": {{\"{nul}\": \"{nul}\"}}"))),
        ("/v1/tasks", call(&format!("\"labels\": {{\"{nul}\": \"{nul}\"}}"))),
        ("/v1/tasks", call(&format!("\"labels\": {{\"a\": \"{nul}\"}}"))),
        ("/v1/tasks", call(&format!("\"headers\": {{\"{nul}\": \"{nul}\"}}"))),
        ("/v1/tasks", call(&format!("\"queue\": \"{nul}\""))),
        ("/v1/tasks", call(&format!("\"unique\": {{\"key\": \"{nul}\"}}"))),
        ("/v1/tasks", call(&format!("\"limits\": [{{\"key\": \"{nul}\", \"max\": 1}}]"))),
        ("/v1/tasks", call(&format!("\"webhooks\": [{{\"url\": \"https://8.8.8.8/{nul}\"}}]"))),
        ("/v1/tasks", call(&format!("\"webhooks\": [{{\"url\": \"https://8.8.8.8/\", \"on\": [\"{nul}\"]}}]"))),
        ("/v1/tasks", format!("{{\"task\": \"{nul}\"}}")),
        ("/v1/schedules", format!("{{\"name\": \"n\", \"task\": \"demo.add\", \"every\": 60, \"args\": [\"{nul}\"]}}")),
        (
            "/v1/schedules",
            format!("{{\"name\": \"n\", \"task\": \"demo.add\", \"every\": 60, \"labels\": {{\"a\": \"{nul}\"}}}}"),
        ),
        ("/v1/schedules", format!("{{\"name\": \"{nul}\", \"task\": \"demo.add\", \"every\": 60}}")),
        ("/v1/webhooks", format!("{{\"url\": \"https://8.8.8.8/\", \"description\": \"{nul}\"}}")),
        ("/v1/webhooks", format!("{{\"url\": \"https://8.8.8.8/\", \"tasks\": [\"{nul}\"]}}")),
        ("/v1/dead-letters/requeue", format!("{{\"filter\": {{\"q\": \"{nul}\", \"task\": [\"{nul}\"]}}}}")),
        ("/v1/dead-letters/requeue", format!("{{\"fingerprint\": \"{nul}\"}}")),
        ("/v1/tasks/0199c2a8-0000-7000-8000-000000000001/revoke", format!("{{\"reason\": \"{nul}\"}}")),
        ("/send-emails", format!("{{\"emails\": [\"{nul}\", \"{nul}\"]}}")),
        ("/start/a%00b", String::new()),
        ("/start/%FF", String::new()),
    ];
    for (path, body) in bodies {
        let answer = http.send(Method::POST, path, &[JSON], Some(body.clone().into_bytes())).await;
        assert_ne!(answer.status, 500, "{path} {body}: {}", answer.text());
        let id = answer.json()["task_id"].as_str().map(str::to_owned);
        if let Some(id) = id {
            http.get(&format!("/v1/tasks/{id}")).await.expect(200);
        }
    }
    let id = http.post("/v1/tasks", &json!({"task": "demo.add"})).await.expect(202)["task_id"].clone();
    let revoke = format!("/v1/tasks/{}/revoke", id.as_str().expect("an id"));
    let answer = http.post(&revoke, &json!({"reason": "a\u{0}b"})).await;
    assert_ne!(answer.status, 500, "{}", answer.text());
    for (name, value) in
        [("idempotency-key", "\u{80}é"), ("if-none-match", "\"\u{ff}\""), ("traceparent", "é"), ("prefer", "wait=é")]
    {
        let answer = http.post_with("/v1/tasks", &[(name, value)], &json!({"task": "demo.add"})).await;
        assert_ne!(answer.status, 500, "{name}: {}", answer.text());
    }
}

#[tokio::test]
async fn faults_of_a_batch_and_of_a_query_are_counted_up_to_a_bound() {
    let gateway = gateway("");
    let http = gateway.http();
    let many = format!("[{}]", vec!["{}"; 300_000].join(","));
    let refused = http.send(Method::POST, "/v1/tasks/batch?atomic=true", &[JSON], Some(many.into_bytes())).await;
    assert_eq!(refused.status, 422, "{}", refused.what);
    let errors = refused.json()["errors"].as_array().map_or(0, Vec::len);
    assert!((1..=40).contains(&errors), "{errors} faults");
    let query = vec!["a"; 5_000].join("&");
    let refused = http.get(&format!("/v1/tasks?{query}")).await;
    assert_eq!((refused.status, refused.json()["errors"].as_array().map(Vec::len)), (400, Some(20)));
    let labels: Vec<String> = (0..1_200).map(|place| format!("label=a:{place}")).collect();
    let refused = http.get(&format!("/v1/tasks?{}", labels.join("&"))).await;
    assert_eq!(refused.json()["errors"][0]["pointer"], "label", "{}", refused.text());
}

#[tokio::test]
async fn a_number_that_no_reader_takes_is_refused_with_its_place_and_stops_nobody() {
    let gateway = gateway(
        "[[tasks]]\nname = 'demo.add'\nendpoint = 'POST /sum'\nargs = ['{x}', '{y}']\n[tasks.body]\ntype = 'object'\n\
         properties = {x = {type = 'number'}, y = {type = 'number'}}\n",
    );
    let http = gateway.http();
    let digits = "9".repeat(400);
    for number in ["1e400", digits.as_str()] {
        let body = format!(r#"{{"task": "demo.add", "args": [{number}, 1]}}"#);
        let refused = http.send(Method::POST, "/v1/tasks", &[JSON], Some(body.into_bytes())).await;
        assert_eq!(refused.status, 422, "{}: {}", refused.what, refused.text());
    }
    assert_eq!(http.get("/livez").await.status, 200);
}
