//! `/metrics`: well-formed, complete, the same at every replica; boards and alerts ask only for what is there.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Value, json};

use super::exposition::Exposition;
use crate::harness::environment::{Harness, Options};
use crate::harness::{Gateway, Http, celery::root, eventually};

/// The names that boards for Celery exporters ask for.
const EXPORTERS: [&str; 15] = [
    "celery_task_sent_total",
    "celery_task_received_total",
    "celery_task_started_total",
    "celery_task_succeeded_total",
    "celery_task_failed_total",
    "celery_task_retried_total",
    "celery_task_revoked_total",
    "celery_task_runtime_bucket",
    "celery_task_runtime_sum",
    "celery_task_runtime_count",
    "celery_worker_up",
    "celery_worker_tasks_active",
    "celery_queue_length",
    "celery_active_consumer_count",
    "celery_active_process_count",
];
const OURS: [&str; 18] = [
    "celery_tasks_total",
    "celery_task_duration_seconds_bucket",
    "celery_task_wait_seconds_bucket",
    "taskgate_submit_seconds_bucket",
    "taskgate_commit_seconds_bucket",
    "taskgate_publish_seconds_bucket",
    "taskgate_recorder_lag_seconds_bucket",
    "taskgate_http_request_seconds_bucket",
    "taskgate_http_requests_total",
    "taskgate_outbox_depth",
    "taskgate_outbox_age_seconds",
    "taskgate_tasks_published_total",
    "taskgate_recorder_active",
    "taskgate_sse_streams",
    "taskgate_repairs_total",
    "taskgate_pool_connections",
    "taskgate_pool_connections_max",
    "taskgate_dependency_up",
];

async fn scrape(http: &Http) -> Exposition {
    let answer = http.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    Exposition::read(&answer.text())
}

/// The fleet's counters, histograms included.
fn fleet(found: &Exposition) -> Vec<(&str, f64)> {
    let counted = |series: &&str| matches!(found.kinds[found.family(series)].as_str(), "counter" | "histogram");
    let celery = found.series.iter().map(|(series, value)| (series.as_str(), *value));
    celery.filter(|(series, _)| series.starts_with("celery_") && counted(series)).collect()
}

/// Ends of every kind, so that every counter of the fleet has a series.
async fn ends_of_every_kind(env: &crate::harness::environment::Lent<Box<Harness>>) {
    for signature in [
        json!({"task": "demo.add", "args": [1, 2]}),
        json!({"task": "demo.retry", "args": [1, 0.1]}),
        json!({"task": "demo.fail"}),
        json!({"task": "demo.fail"}),
    ] {
        let id = env.submit_signature(signature).await;
        env.finished(&id).await;
    }
    let held = env.submit_signature(json!({"task": "demo.add", "args": [1, 2], "countdown": 3600})).await;
    env.http.post(&format!("/v1/tasks/{held}/revoke"), &json!({})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_shows_the_same_fleet_in_a_format_that_prometheus_reads() {
    let env = Harness::start(&Options::default());
    let second = Gateway::serve(&env.database, &env.redis.url(0), &env.redis.url(1), "");
    let other = second.http();
    ends_of_every_kind(&env).await;
    // An open stream is counted where it is.
    let stream = other.events("/v1/events", &[]).await;
    let key = |measure: &str, task: &str| {
        format!("celery_task_{measure}_total{{name=\"demo.{task}\",queue_name=\"celery\"}}")
    };
    let first = eventually("all is counted", async || {
        let found = scrape(&env.http).await;
        let counts = |series: String, least: f64| found.series.get(&series).is_some_and(|value| *value >= least);
        let all = counts(key("failed", "fail"), 2.0)
            && counts(key("retried", "retry"), 1.0)
            && counts(key("revoked", "add"), 1.0)
            && counts(key("succeeded", "retry"), 1.0);
        all.then_some(found)
    })
    .await;
    let same = eventually("both show the same", async || {
        let (one, two) = (scrape(&env.http).await, scrape(&other).await);
        (fleet(&one) == fleet(&two) && !fleet(&one).is_empty()).then_some(two)
    })
    .await;
    assert_eq!(same.value("taskgate_sse_streams"), 1.0);
    assert_eq!(first.value("taskgate_sse_streams"), 0.0);
    drop(stream);
    described(&first);
    histograms_add_up(&first);
    assert!(first.value("celery_task_succeeded_total{name=\"demo.add\",queue_name=\"celery\"}") >= 1.0);
    assert_eq!(first.value("celery_tasks_total{state=\"FAILURE\",name=\"demo.fail\",queue_name=\"celery\"}"), 2.0);
    assert!(first.of("celery_worker_up").any(|(_, value)| value == 1.0));
    assert_eq!(first.value("celery_queue_length{queue_name=\"celery\"}"), 0.0);
    let names = first.names();
    for name in EXPORTERS.iter().chain(&OURS) {
        assert!(names.contains(name), "{name} is not among {names:#?}");
    }
    boards_ask_for_what_is_there(&names);
}

/// Every series belongs to a family with kind and help; what counts is called so.
fn described(found: &Exposition) {
    for series in found.series.keys() {
        let family = found.family(series);
        let kind = found.kinds.get(family).unwrap_or_else(|| panic!("{family} has no TYPE"));
        assert!(found.helps.contains_key(family), "{family} has no HELP: list it in src/telemetry/names.rs");
        assert_eq!(kind == "counter", family.ends_with("_total"), "{family} is a {kind}");
    }
}

fn histograms_add_up(found: &Exposition) {
    for (series, count) in found.series.iter().filter(|(series, _)| series.contains("_count")) {
        let infinite = series.replacen("_count", "_bucket", 1);
        let infinite = match infinite.strip_suffix('}') {
            Some(labelled) => format!("{labelled},le=\"+Inf\"}}"),
            None => format!("{infinite}{{le=\"+Inf\"}}"),
        };
        if found.kinds[found.family(series)] == "histogram" {
            assert_eq!(found.value(&infinite), *count, "{series}");
        }
    }
}

/// Names in `docs/grafana`: the board's queries, the alerts' and KEDA's.
fn boards_ask_for_what_is_there(names: &BTreeSet<&str>) {
    let folder = root().join("docs/grafana");
    let metric = Regex::new(r"\b(?:celery|taskgate)_[a-z_]+").expect("a pattern");
    let board: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("taskgate.json")).expect("a board"))
        .expect("the board is JSON");
    let mut queries = Vec::new();
    collect(&board, &mut queries);
    for file in ["alerts.yml", "keda.yml"] {
        let text = std::fs::read_to_string(folder.join(file)).expect("a file");
        queries.extend(text.lines().filter(|line| !line.trim_start().starts_with('#')).map(str::to_owned));
    }
    let mut asked = BTreeSet::new();
    for query in &queries {
        asked.extend(metric.find_iter(query).map(|found| found.as_str().to_owned()));
    }
    assert!(asked.len() >= 15, "{asked:?}");
    // Only after something was lost.
    let rare = ["taskgate_task_lost_total"];
    let missing: Vec<&String> =
        asked.iter().filter(|name| !names.contains(name.as_str()) && !rare.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "docs/grafana asks for {missing:?}, which nobody exposes");
}

/// The texts of `expr` and `query` members, wherever they are.
fn collect(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "expr" || name == "query" || name == "definition" => {
                        into.push(text.clone());
                    }
                    other => collect(other, into),
                }
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| collect(element, into)),
        _ => {}
    }
}
