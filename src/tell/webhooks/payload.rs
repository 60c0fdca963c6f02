//! The body of a webhook: Standard Webhooks' envelope (`type`, `timestamp`, `data`) around a change of a task.
//!
//! It is built once, when the delivery is created, so every attempt sends the same. Fields that the catalog masks are masked here too.

use runtime::uri::encoded;
use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::catalog::Catalog;
use celery::task::Phase;
use celery::task::mask::Mask;
use ledger::{Event, Failure, Task};
use runtime::clock::Time;

/// Larger return values, progress reports and arguments are left out; receivers fetch the result instead.
const MAX_VALUE: usize = 64 << 10;

#[derive(Serialize)]
struct Payload<'a> {
    #[serde(rename = "type")]
    kind: String,
    timestamp: Time,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    task_id: &'a str,
    task: Option<&'a str>,
    status: &'a str,
    phase: Phase,
    /// The order of a task's events, because deliveries may overtake each other.
    seq: i64,
    queue: Option<&'a str>,
    worker: Option<&'a str>,
    retries: i32,
    delivery: i32,
    reason: Option<&'a str>,
    corrected: bool,
    root_id: Option<&'a str>,
    parent_id: Option<&'a str>,
    group_id: Option<&'a str>,
    schedule: Option<&'a str>,
    retry_of: Option<&'a str>,
    labels: BTreeMap<&'a str, &'a str>,
    /// The object of `update_state`, or the details of a retry.
    meta: Option<Cow<'a, RawValue>>,
    result: Option<Cow<'a, RawValue>>,
    /// Whether the return value was too large to send.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    result_omitted: bool,
    error: Option<&'a Failure>,
    runtime: Option<f64>,
    links: Links,
}

#[derive(Serialize)]
struct Links {
    #[serde(rename = "self")]
    this: String,
    result: String,
}

/// `task.succeeded`
pub fn kind(event: &Event) -> String {
    format!("task.{}", event.phase.as_str())
}

/// The body of the request.
pub fn text(event: &Event, task: &Task, catalog: &Catalog) -> String {
    let redact = redacted(task, catalog);
    let mask = Mask::new(&redact);
    // The row may have changed since; an outcome belongs only to the event that set it.
    let is_present = event.seq == task.seq;
    let result = task.result.as_deref().filter(|_| is_present);
    let fits = |value: &&RawValue| value.get().len() <= MAX_VALUE;
    let payload = Payload {
        kind: kind(event),
        timestamp: event.at,
        data: Data {
            task_id: event.task_id.as_str(),
            task: event.name.as_deref(),
            status: &event.status,
            phase: event.phase,
            seq: event.seq,
            queue: event.queue.as_deref(),
            worker: event.worker.as_deref(),
            retries: event.retries,
            delivery: event.delivery,
            reason: event.reason.as_deref(),
            corrected: event.corrected,
            root_id: event.root_id.as_ref().map(AsRef::as_ref),
            parent_id: task.parent_id.as_ref().map(AsRef::as_ref),
            group_id: event.group_id.as_ref().map(AsRef::as_ref),
            schedule: task.schedule.as_deref(),
            retry_of: task.retry_of.as_ref().map(AsRef::as_ref),
            labels: task.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            meta: mask.optional(event.meta.as_deref().filter(fits)),
            result: mask.optional(result.filter(fits)),
            result_omitted: result.is_some_and(|value| !fits(&value)),
            error: task.failure.as_ref().filter(|_| is_present),
            runtime: task.runtime.filter(|_| is_present),
            links: Links {
                this: format!("/v1/tasks/{}", encoded(event.task_id.as_str())),
                result: format!("/result/{}", encoded(event.task_id.as_str())),
            },
        },
    };
    serde_json::to_string(&payload).expect("a payload is JSON")
}

/// The fields to mask: as stored with the submission, or for tasks that other clients sent, from the catalog.
fn redacted(task: &Task, catalog: &Catalog) -> Vec<String> {
    if !task.options.redact.is_empty() || !task.adopted {
        return task.options.redact.clone();
    }
    let entry = task.name.as_deref().and_then(|name| catalog.entry(name));
    entry.map(|entry| entry.defaults.redact.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Role};
    use celery::task::json;
    use ledger::sample_task;

    #[test]
    fn an_outcome_is_told_with_its_event_and_masked() {
        let catalog = Catalog::compile(&Config::parse(Role::Dev, "").unwrap()).unwrap();
        let mut task = sample_task("a b", Phase::Succeeded, Time(1));
        task.options.redact = vec!["password".to_owned()];
        task.result = Some(json::written(r#"{"password": "geheim", "n": 1}"#.to_owned()));
        let mut event = Event::of(&task, Time(1));
        let told: serde_json::Value = serde_json::from_str(&text(&event, &task, &catalog)).unwrap();
        assert_eq!(told["type"], "task.succeeded");
        assert_eq!(told["data"]["result"], serde_json::json!({"password": "***", "n": 1}));
        assert_eq!(told["data"]["links"]["result"], "/result/a%20b");
        event.seq = 0;
        let older: serde_json::Value = serde_json::from_str(&text(&event, &task, &catalog)).unwrap();
        assert_eq!(older["data"]["result"], serde_json::Value::Null);
    }

    #[test]
    fn a_large_result_is_left_out_and_said_so() {
        let catalog = Catalog::compile(&Config::parse(Role::Dev, "").unwrap()).unwrap();
        let mut task = sample_task("t", Phase::Succeeded, Time(1));
        task.result = Some(json::written(format!("\"{}\"", "x".repeat(MAX_VALUE))));
        let told = text(&Event::of(&task, Time(1)), &task, &catalog);
        assert!(told.len() < MAX_VALUE && told.contains("\"result_omitted\":true"));
    }
}
