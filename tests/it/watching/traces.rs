//! One trace from the request through waiting and running, exported to a collector that the test plays.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::harness::environment::{Harness, Options};
use crate::harness::{Gateway, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// A text in arguments, results and error messages that must appear nowhere else.
const SECRET: &str = "geheim-4711";

struct Collector(MockServer);

impl Collector {
    /// It is down at first: two exports are answered 503.
    async fn start() -> Self {
        let server = MockServer::start().await;
        let spans = || Mock::given(method("POST")).and(path("/v1/traces")).and(header("x-key", "abc"));
        spans().respond_with(ResponseTemplate::new(503)).up_to_n_times(2).mount(&server).await;
        spans().respond_with(ResponseTemplate::new(200).set_body_json(json!({}))).mount(&server).await;
        Self(server)
    }

    fn config(&self) -> String {
        format!("[telemetry]\notlp_endpoint = '{}'\notlp_headers = {{ x-key = 'abc' }}\n", self.0.uri())
    }

    /// Every exported span, however often it was exported.
    async fn told(&self) -> Vec<Value> {
        let requests = self.0.received_requests().await.expect("they are recorded");
        let mut spans = Vec::new();
        for request in requests {
            assert_eq!(request.headers["content-type"], "application/json");
            let document: Value = serde_json::from_slice(&request.body).expect("OTLP as JSON");
            let resource = document["resourceSpans"][0]["resource"]["attributes"].to_string();
            assert!(resource.contains("service.name") && resource.contains("taskgate"), "{resource}");
            for scope in document["resourceSpans"][0]["scopeSpans"].as_array().expect("scopes") {
                spans.extend(scope["spans"].as_array().expect("spans").iter().cloned());
            }
        }
        spans
    }

    /// The spans of a trace by id, once one of them is the task's whole.
    async fn trace(&self, trace: &str, whole: &str) -> BTreeMap<String, Value> {
        eventually(&format!("{whole} is told"), async || {
            let told = self.told().await;
            let of = told.into_iter().filter(|span| span["traceId"] == trace);
            let spans: BTreeMap<String, Value> = of.map(|span| (text(&span["spanId"]), span)).collect();
            let has = |name: &str| spans.values().any(|span| span["name"] == name);
            (has(whole) && has("POST /v1/tasks")).then_some(spans)
        })
        .await
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

fn nanos(value: &Value) -> u128 {
    text(value).parse().expect("digits")
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
    let all = span["attributes"].as_array().expect("a list");
    all.iter().find(|one| one["key"] == key).map_or(&Value::Null, |one| &one["value"])
}

fn named<'a>(spans: &'a BTreeMap<String, Value>, name: &str) -> Vec<&'a Value> {
    let mut found: Vec<&Value> = spans.values().filter(|span| span["name"] == name).collect();
    found.sort_by_key(|span| nanos(&span["startTimeUnixNano"]));
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_leads_from_the_request_over_waiting_to_each_run() {
    let collector = Collector::start().await;
    let env = Harness::start(&Options { config: collector.config(), ..Options::default() });
    let second = Gateway::serve(&env.database, &env.redis.url(0), &env.redis.url(1), &collector.config());

    // A task that is retried, submitted by a caller that traces. The pause is longer than Celery's word of the retry may be late
    // behind the start of the next attempt: what the ledger recorded is what is told.
    let given = format!("00-{TRACE}-{CALLER}-01");
    let call = |body: Value| {
        let given = given.clone();
        let http = env.http.clone();
        async move { text(&http.post_with("/v1/tasks", &[("traceparent", &given)], &body).await.expect(202)["task_id"]) }
    };
    let retried = call(json!({"task": "demo.retry", "args": [1, 1.5]})).await;
    env.finished(&retried).await;
    let spans = collector.trace(TRACE, "demo.retry").await;
    let request = named(&spans, "POST /v1/tasks")[0];
    assert_eq!(request["parentSpanId"], CALLER);
    assert_eq!(request["kind"], 2);
    assert_eq!(attribute(request, "http.response.status_code")["intValue"], "202");

    // The message names the request's span; so does the whole task, and each run links to it.
    let message = env.http.get(&format!("/v1/tasks/{retried}/message")).await.expect(200);
    let sender = format!("00-{TRACE}-{}-01", text(&request["spanId"]));
    assert_eq!(message["headers"]["traceparent"], sender.as_str());
    let whole = named(&spans, "demo.retry")[0];
    assert_eq!(whole["parentSpanId"], request["spanId"]);
    assert_eq!(attribute(whole, "messaging.message.id")["stringValue"], retried.as_str());
    let runs = named(&spans, "demo.retry run");
    assert_eq!(runs.len(), 2, "{spans:#?}");
    let history = env.http.get_with(&format!("/v1/tasks/{retried}/events"), &[("accept", "application/json")]).await;
    assert_eq!(runs[0]["status"]["code"], 2, "the first attempt failed: {}", history.text());
    assert_eq!(runs[1]["status"]["code"], Value::Null, "the second did not: {}", history.text());
    assert_eq!(attribute(runs[1], "celery.retries")["intValue"], "1");
    assert!(text(&attribute(runs[0], "celery.hostname")["stringValue"]).contains('@'));
    assert_eq!(named(&spans, "demo.retry retry").len(), 1);
    assert_eq!(named(&spans, "demo.retry wait").len(), 1);
    for run in &runs {
        assert_eq!(run["links"][0]["spanId"], request["spanId"]);
    }
    for (name, step) in spans.iter().filter(|(_, span)| text(&span["name"]).starts_with("demo.retry ")) {
        assert_eq!(step["parentSpanId"], whole["spanId"], "{name}");
        let (start, end) = (nanos(&step["startTimeUnixNano"]), nanos(&step["endTimeUnixNano"]));
        assert!(nanos(&whole["startTimeUnixNano"]) <= start && start <= end, "{step}");
    }

    // A caller that does not record: nothing is exported. A caller without trace context: a new trace.
    let quiet = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-00";
    let body = json!({"task": "demo.echo", "args": [SECRET]});
    let unrecorded =
        text(&env.http.post_with("/v1/tasks", &[("traceparent", quiet)], &body).await.expect(202)["task_id"]);
    env.finished(&unrecorded).await;
    let http = second.http();
    let failing = json!({"task": "demo.fail", "args": ["ValueError", SECRET], "headers": {"x-note": SECRET}});
    let own = text(&http.post("/v1/tasks", &failing).await.expect(202)["task_id"]);
    let told = eventually("its failure is told", async || {
        let told = collector.told().await;
        told.iter().any(|span| span["name"] == "demo.fail run").then_some(told)
    })
    .await;
    let run = told.iter().find(|span| span["name"] == "demo.fail run").expect("found above");
    assert_eq!(attribute(run, "exception.type")["stringValue"], "ValueError");
    assert_eq!(attribute(run, "messaging.message.id")["stringValue"], own.as_str());
    assert!(!told.iter().any(|span| span["traceId"] == "a".repeat(32)), "its caller does not record");
    assert!(!json!(told).to_string().contains(SECRET), "spans carry no payload");

    // Two replicas, and a collector that was down: every span of the tasks arrived.
    let steps: Vec<&Value> = told.iter().filter(|span| span["traceId"] == TRACE).collect();
    let ids: BTreeSet<String> = steps.iter().map(|span| text(&span["spanId"])).collect();
    assert!(ids.len() >= 7, "{ids:?}");
}
