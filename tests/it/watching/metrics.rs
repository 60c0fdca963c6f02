//! `/metrics`: well-formed, complete, counted once over all replicas; our dashboards and alerts, and those of celery-exporter, use only
//! series that exist.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Value, json};

use super::exposition::Exposition;
use crate::harness::environment::{Harness, Options};
use crate::harness::{Gateway, Http, celery::root, eventually};

/// What the dashboards and alerts of celery-exporter's mixin ask for: each metric with the labels that its queries select, group or
/// show by.
const MIXIN: [(&str, &[&str]); 13] = [
    ("celery_worker_up", &["hostname"]),
    ("celery_worker_tasks_active", &[]),
    ("celery_queue_length", &["queue_name"]),
    ("celery_task_sent_total", &["name", "queue_name"]),
    ("celery_task_received_total", &["name", "queue_name"]),
    ("celery_task_succeeded_total", &["name", "queue_name"]),
    ("celery_task_failed_total", &["name", "queue_name", "exception"]),
    ("celery_task_retried_total", &["name", "queue_name"]),
    ("celery_task_revoked_total", &["name", "queue_name"]),
    ("celery_task_rejected_total", &["name", "queue_name"]),
    ("celery_task_runtime_bucket", &["name", "queue_name", "le"]),
    ("celery_task_runtime_sum", &["name", "queue_name"]),
    ("celery_task_runtime_count", &["name", "queue_name"]),
];
/// Quotients of the mixin, which show nothing for a task when one operand is missing.
const RATIOS: [(&str, &str); 3] = [
    ("celery_task_succeeded_total", "celery_task_failed_total"),
    ("celery_task_failed_total", "celery_task_succeeded_total"),
    ("celery_task_runtime_sum", "celery_task_runtime_count"),
];
/// Further series that other dashboards for Celery exporters use.
const EXPORTERS: [&str; 4] = [
    "celery_task_started_total",
    "celery_active_consumer_count",
    "celery_active_worker_count",
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
    read(http, "/metrics").await
}

/// With the fleet's figures, whichever replica it is.
async fn scrape_fleet(http: &Http) -> Exposition {
    read(http, "/metrics?fleet=true").await
}

async fn read(http: &Http, path: &str) -> Exposition {
    let answer = http.get(path).await;
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

/// Tasks with ends of every kind, so that every counter of the fleet has a series.
async fn ends_of_every_kind(env: &crate::harness::environment::Lent<Box<Harness>>) {
    for signature in [
        json!({"task": "demo.add", "args": [1, 2]}),
        json!({"task": "demo.retry", "args": [1, 1]}),
        json!({"task": "demo.fail"}),
        json!({"task": "demo.fail"}),
        json!({"task": "demo.fail", "args": ["KeyError", "no"]}),
    ] {
        let id = env.submit_signature(signature).await;
        env.finished(&id).await;
    }
    let held = env.submit_signature(json!({"task": "demo.add", "args": [1, 2], "countdown": 3600})).await;
    env.http.post(&format!("/v1/tasks/{held}/revoke"), &json!({})).await.expect(200);
    env.submit("demo.reject", json!([])).await;
}

/// The labels of a series, `name="value"` by `name="value"`.
fn has_labels(series: &str, labels: &[&str]) -> bool {
    labels.iter().all(|label| series.contains(&format!("{{{label}=\"")) || series.contains(&format!(",{label}=\"")))
}

/// Each query of the mixin finds something: all selectors select, both sides of each quotient are there for each task and queue.
fn mixin_finds_data(found: &Exposition) {
    for (metric, labels) in MIXIN {
        let of = found.series.keys().filter(|series| series.split('{').next() == Some(metric));
        let fit = of.filter(|series| has_labels(series, labels)).count();
        assert!(fit > 0, "no series of {metric} has the labels {labels:?}");
    }
    // Name and queue stand first.
    let pairs = |metric: &str| {
        let of = found.series.keys().filter_map(|series| series.strip_prefix(metric)?.strip_prefix('{'));
        of.map(|labels| labels.trim_end_matches('}').splitn(3, ',').take(2).collect::<Vec<_>>().join(","))
            .collect::<BTreeSet<_>>()
    };
    for (one, other) in RATIOS {
        assert!(pairs(one).is_subset(&pairs(other)) && !pairs(one).is_empty(), "{one} has series that {other} lacks");
    }
}

/// What `sum` over all replicas makes of a series, and of the families of the fleet how many replicas show them.
fn summed(scraped: &[Exposition], series: &str) -> f64 {
    scraped.iter().filter_map(|one| one.series.get(series)).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sum_over_all_replicas_counts_the_fleet_once_in_a_format_that_prometheus_reads() {
    let env = Harness::start(&Options::default());
    let second = Gateway::serve(&env.database, &env.redis.url(0), &env.redis.url(1), "");
    let other = second.http();
    ends_of_every_kind(&env).await;
    // An open stream is counted where it is.
    let stream = other.events("/v1/events", &[]).await;
    let key = |measure: &str, task: &str| {
        format!("celery_task_{measure}_total{{name=\"demo.{task}\",queue_name=\"celery\"}}")
    };
    let failed = |exception: &str| {
        format!("celery_task_failed_total{{name=\"demo.fail\",queue_name=\"celery\",exception=\"{exception}\"}}")
    };
    let first = eventually("all is counted", async || {
        let found = scrape_fleet(&env.http).await;
        let counts = |series: String, least: f64| found.series.get(&series).is_some_and(|value| *value >= least);
        let all = counts(failed("ValueError"), 2.0)
            && counts(failed("KeyError"), 1.0)
            && counts(key("rejected", "reject"), 1.0)
            && counts(key("retried", "retry"), 1.0)
            && counts(key("revoked", "add"), 1.0)
            && counts(key("succeeded", "retry"), 1.0)
            && counts("celery_worker_up{hostname=\"w1@test\"}".to_owned(), 1.0);
        all.then_some(found)
    })
    .await;
    let same = eventually("both show the same", async || {
        let (one, two) = (scrape_fleet(&env.http).await, scrape_fleet(&other).await);
        (fleet(&one) == fleet(&two) && !fleet(&one).is_empty()).then_some(two)
    })
    .await;
    assert_eq!(same.value("taskgate_sse_streams"), 1.0);
    assert_eq!(first.value("taskgate_sse_streams"), 0.0);
    drop(stream);
    eventually("one replica shows the fleet", async || {
        let both = [scrape(&env.http).await, scrape(&other).await];
        let shows = both.iter().filter(|one| !fleet(one).is_empty()).count();
        let recording = both.iter().map(|one| one.value("taskgate_recorder_active")).sum::<f64>();
        let is_once = shows == 1
            && summed(&both, &failed("ValueError")) == 2.0
            && summed(&both, "celery_worker_up{hostname=\"w1@test\"}") == 1.0;
        (is_once && recording == 1.0).then_some(())
    })
    .await;
    assert!(fleet(&read(&env.http, "/metrics?fleet=false").await).is_empty());
    env.http.get("/metrics?fleet=perhaps").await.problem(400, "invalid-query");
    described(&first);
    mixin_finds_data(&first);
    histograms_add_up(&first);
    assert!(first.value("celery_task_succeeded_total{name=\"demo.add\",queue_name=\"celery\"}") >= 1.0);
    assert_eq!(first.value("celery_tasks_total{state=\"FAILURE\",name=\"demo.fail\",queue_name=\"celery\"}"), 3.0);
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
