//! Limits of one caller: requests and streams of a token, sizes of a body, a million lines in little memory.

use std::time::Duration;

use serde_json::json;

use crate::edge::create;
use crate::harness::postgres::cluster;
use crate::harness::wait::within;
use crate::harness::{Answer, Gateway, Http, Redis, RedisOptions, eventually, http, turns};

/// The quota of a token. The rate is so low that no request is regained during a test.
const QUOTA: u64 = 6;

const CONFIG: &str = "auth = 'token'\nlimits.requests = '6/h'\nlimits.width = 20\nhttp.max_streams_per_token = 2\n\
                      http.max_streams = 3\n";

struct Fleet {
    gateways: [Gateway; 2],
    redis: Redis,
    database: String,
}

impl Fleet {
    fn start() -> Self {
        let redis = Redis::start(RedisOptions::default());
        let database = cluster().migrated_database();
        create(&database, &["--name", "first", "--scope", "admin"]);
        let launch = || Gateway::launch(&database, &redis.url(0), &redis.url(1), CONFIG);
        let mut gateways = [launch(), launch()];
        gateways.iter_mut().for_each(Gateway::wait_until_ready);
        Self { gateways, redis, database }
    }

    fn token(&self, options: &[&str]) -> String {
        format!("Bearer {}", create(&self.database, options))
    }

    fn http(&self, replica: usize) -> Http {
        self.gateways[replica].http()
    }
}

async fn get(http: &Http, token: &str, path: &str) -> Answer {
    http.get_with(path, &[("authorization", token)]).await
}

/// `"token";r=5;t=60`: the number after this letter.
fn field(answer: &Answer, header: &str, letter: &str) -> u64 {
    let text = answer.header(header).unwrap_or_else(|| panic!("no {header} in {answer:?}"));
    let value = text.split(';').find_map(|part| part.strip_prefix(&format!("{letter}=")));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {letter} in {text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_has_its_requests_over_all_replicas_and_without_redis_at_each() {
    let mut fleet = Fleet::start();
    let token = fleet.token(&["--name", "some", "--scope", "read"]);
    for n in 0..QUOTA {
        let answer = get(&fleet.http(usize::from(n % 2 == 0)), &token, "/v1/tasks").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("ratelimit-policy"), Some("\"token\";q=6;w=3600"));
        assert_eq!(field(&answer, "ratelimit", "r"), QUOTA - 1 - n);
    }
    for replica in [0, 1] {
        let refused = get(&fleet.http(replica), &token, "/v1/tasks").await;
        let problem = refused.problem(429, "rate-limited");
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains("6 times in 3600 s")), "{problem}");
        assert_eq!(field(&refused, "ratelimit", "r"), 0);
        let pause: u64 = refused.header("retry-after").and_then(|text| text.parse().ok()).expect("a number");
        assert!((500..=600).contains(&pause), "{pause}");
    }
    // Other tokens have their own quotas, a token's own rate overrides the configured one, and open routes do not count.
    let own = fleet.token(&["--name", "own", "--scope", "read", "--rate-limit", "1000/m"]);
    let answer = get(&fleet.http(0), &own, "/v1/tasks").await;
    assert_eq!((answer.status, answer.header("ratelimit-policy")), (200, Some("\"token\";q=1000;w=60")));
    let open = get(&fleet.http(0), &token, "/livez").await;
    assert_eq!((open.status, open.header("ratelimit")), (200, None));
    // Without Redis each replica counts for itself, and no request waits for Redis.
    let late = fleet.token(&["--name", "late", "--scope", "read"]);
    fleet.redis.pause();
    let mut allowed = 0;
    for n in 0..4 * QUOTA {
        allowed += u64::from(get(&fleet.http((n % 2) as usize), &late, "/v1/tasks").await.status == 200);
    }
    assert!((QUOTA..=2 * QUOTA).contains(&allowed), "{allowed}");
    fleet.redis.resume();
    fleet.redis.kill();
    let answer = get(&fleet.http(0), &own, "/v1/tasks").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_has_so_many_streams_and_a_body_so_many_members() {
    let fleet = Fleet::start();
    let token = fleet.token(&["--name", "streams", "--scope", "read,submit", "--rate-limit", "1000/s"]);
    let headers = [("authorization", token.as_str())];
    let http = fleet.http(0);
    let (one, two) = (http.events("/v1/events", &headers).await, http.events("/v1/events", &headers).await);
    let refused = http.get_with("/v1/events", &headers).await;
    refused.problem(429, "too-many-token-streams");
    assert_eq!(refused.header("retry-after"), Some("5"));
    let other = fleet.token(&["--name", "another", "--scope", "read"]);
    let others = [("authorization", other.as_str())];
    let three = http.events("/v1/events", &others).await;
    // The replica's places are taken too: for a token that has one left, and for a task's own stream.
    let task = json!({"task": "demo.echo", "queue": "nobody"});
    let accepted = http.post_with("/v1/tasks", &headers, &task).await.expect(202);
    let own = format!("/v1/tasks/{}/events", accepted["task_id"].as_str().expect("an id"));
    for path in ["/v1/events", &own] {
        let refused = http.get_with(path, &others).await;
        assert!(refused.problem(503, "too-many-streams")["detail"].as_str().is_some_and(|text| text.contains('3')));
        assert_eq!(refused.header("retry-after"), Some("5"));
    }
    drop(fleet.http(1).events("/v1/events", &others).await);
    drop(three);
    let again = async |what: &str, headers: &[(&str, &str)]| {
        let free = eventually(what, async || {
            let answer = http.send(reqwest::Method::HEAD, "/v1/events", headers, None).await;
            (answer.status == 200).then_some(())
        });
        free.await;
    };
    again("a place of the replica is free when a stream has ended", &others).await;
    http.get_with("/v1/events", &headers).await.problem(429, "too-many-token-streams");
    drop(one);
    again("a place of the token is free when a stream has ended", &headers).await;
    drop(two);
    let wide = |members: usize| json!({"task": "demo.echo", "args": vec![1; members]});
    let refused = http.post_with("/v1/tasks", &headers, &wide(21)).await.problem(400, "invalid-json");
    assert!(refused["detail"].as_str().is_some_and(|text| text.contains("more than 20 members")), "{refused}");
    http.post_with("/v1/tasks", &headers, &wide(20)).await.expect(202);
}

/// Resident memory of a process in bytes.
fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a figure");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1_024
}

/// A hundred megabytes in 200,000 lines, of which each hundredth is a task, from a client that reads nothing before it has sent
/// everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_without_end_cost_no_memory() {
    const BLOCKS: usize = 2_000;
    let _turn = turns::heavy();
    let redis = Redis::start(RedisOptions::default());
    let database = cluster().migrated_database();
    let gateway = Gateway::serve(&database, &redis.url(0), &redis.url(1), "");
    let http = gateway.http();
    http.post("/v1/tasks/batch", &json!([{"task": "demo.echo", "queue": "nobody"}])).await.expect(202);
    let before = resident(gateway.id());
    let filler = "x".repeat(480);
    let mut block = json!({"task": "demo.echo", "queue": "nobody"}).to_string() + "\n";
    (1..100).for_each(|n| block += &json!({"task": n, "kwargs": {"text": filler}, "queue": "nobody"}).to_string());
    let block = block.replace("}{", "}\n{") + "\n";
    assert_eq!(block.lines().count(), 100);
    let bytes = block.len() * BLOCKS;
    assert!(bytes > 100_000_000);
    let body = futures_util::stream::iter((0..BLOCKS).map(move |_| Ok::<_, std::io::Error>(block.clone())));
    let request = http::client().build().expect("a client");
    let sent = request
        .post(format!("{}/v1/tasks/batch", http.base))
        .header("content-type", "application/x-ndjson")
        .body(reqwest::Body::wrap_stream(body))
        .send();
    let sent = tokio::spawn(sent);
    let mut most = before;
    let response = within(Duration::from_secs(600), "the batch is answered", async || {
        most = most.max(resident(gateway.id()));
        sent.is_finished().then_some(())
    });
    response.await;
    let answer: serde_json::Value =
        sent.await.expect("it was not cancelled").expect("an answer").json().await.expect("JSON");
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(BLOCKS), &json!(BLOCKS * 99)));
    let grown = most.saturating_sub(before);
    assert!(grown < 80 << 20, "{grown} bytes more for a body of {bytes}");
}
