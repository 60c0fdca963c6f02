//! Commands that change the worker's settings.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::dispatcher::Dispatcher;
use super::super::events::worker_state;
use super::super::rate::Rate;
use super::super::request::Limits;
use super::super::settings::Autoscale;
use super::{Answer, read};
use celery::event::WorkerNews;
use celery::pyrepr;
use celery::task::{QueueName, TaskName};

/// The frequency that Celery reports in a heartbeat on request.
const REQUESTED_FREQUENCY: Duration = Duration::from_secs(5);
/// The most slots accepted; a higher number is taken for a mistake.
const MAX_SLOTS: usize = 100_000;

#[derive(Deserialize)]
struct RateLimit {
    task_name: String,
    rate_limit: Value,
}

pub(super) fn rate_limit(dispatcher: &mut Dispatcher, arguments: &RawValue) -> Answer {
    let RateLimit { task_name, rate_limit } = read("rate_limit", arguments)?;
    let text = match &rate_limit {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let rate = Rate::parse(&text).map_err(|_| bad_rate(&text))?;
    let Some(name) = known(dispatcher, &task_name) else { return Ok(json!({"error": "unknown task"})) };
    let said = match &rate {
        Some(rate) => {
            dispatcher.rate_texts.insert(name.clone(), rate.to_string());
            "new rate limit set successfully"
        }
        None => {
            dispatcher.rate_texts.remove(&name);
            "rate limit disabled successfully"
        }
    };
    dispatcher.set_rate(name, rate);
    Ok(json!({"ok": said}))
}

/// The error that Python raises for an unknown unit (a table lookup) or an invalid number (a conversion).
fn bad_rate(text: &str) -> String {
    match text.split_once('/') {
        Some((number, unit)) if number.trim().parse::<f64>().is_ok() => format!("KeyError({})", pyrepr::quoted(unit)),
        _ => format!("ValueError({})", pyrepr::quoted(&format!("could not convert string to float: '{text}'"))),
    }
}

#[derive(Deserialize)]
struct TimeLimit {
    task_name: String,
    hard: f64,
    #[serde(default)]
    soft: Option<f64>,
}

pub(super) fn time_limit(dispatcher: &mut Dispatcher, arguments: &RawValue) -> Answer {
    let TimeLimit { task_name, hard, soft } = read("time_limit", arguments)?;
    let Some(name) = known(dispatcher, &task_name) else { return Ok(json!({"error": "unknown task"})) };
    let span = |seconds: f64| Duration::try_from_secs_f64(seconds).ok().filter(|span| !span.is_zero());
    dispatcher.limits.insert(name, Limits { soft: soft.and_then(span), hard: span(hard) });
    Ok(json!({"ok": "time limits set successfully"}))
}

#[derive(Deserialize)]
struct AddConsumer {
    queue: String,
    #[serde(default)]
    #[expect(
        dead_code,
        reason = "accepted as Celery accepts it: a worker takes from lists, whatever exchange fills them"
    )]
    exchange: Option<IgnoredAny>,
    #[serde(default)]
    #[expect(dead_code, reason = "as above")]
    exchange_type: Option<IgnoredAny>,
    #[serde(default)]
    #[expect(dead_code, reason = "as above")]
    routing_key: Option<IgnoredAny>,
    #[serde(default)]
    #[expect(dead_code, reason = "as above")]
    options: Option<IgnoredAny>,
}

pub(super) fn add_consumer(dispatcher: &mut Dispatcher, arguments: &RawValue) -> Answer {
    let AddConsumer { queue, .. } = read("add_consumer", arguments)?;
    let name =
        QueueName::parse(&queue).map_err(|error| format!("ValueError({})", pyrepr::quoted(&error.to_string())))?;
    let known = dispatcher.queues.borrow().contains(&name);
    if known {
        return Ok(json!({"ok": format!("already consuming from {}", pyrepr::quoted(&queue))}));
    }
    dispatcher.queues.send_modify(|queues| queues.push(name));
    Ok(json!({"ok": format!("add consumer {queue}")}))
}

#[derive(Deserialize)]
struct CancelConsumer {
    queue: String,
}

pub(super) fn cancel_consumer(dispatcher: &mut Dispatcher, arguments: &RawValue) -> Answer {
    let CancelConsumer { queue } = read("cancel_consumer", arguments)?;
    dispatcher.queues.send_modify(|queues| queues.retain(|name| name.as_str() != queue));
    Ok(json!({"ok": format!("no longer consuming from {queue}")}))
}

#[derive(Deserialize)]
struct Number {
    #[serde(default)]
    n: Option<usize>,
}

pub(super) fn pool_grow(dispatcher: &mut Dispatcher, arguments: &RawValue) -> Answer {
    let Number { n } = read("pool_grow", arguments)?;
    if dispatcher.autoscale.is_some() {
        return Ok(json!({"error": "pool_grow is not supported with autoscale. Adjust autoscale range instead."}));
    }
    dispatcher.set_slots(dispatcher.slots.saturating_add(n.unwrap_or(1)).min(MAX_SLOTS));
    Ok(json!({"ok": "pool will grow"}))
}

pub(super) fn pool_shrink(dispatcher: &mut Dispatcher, arguments: &RawValue) -> Answer {
    let Number { n } = read("pool_shrink", arguments)?;
    if dispatcher.autoscale.is_some() {
        return Ok(json!({"error": "pool_shrink is not supported with autoscale. Adjust autoscale range instead."}));
    }
    dispatcher.set_slots(dispatcher.slots.saturating_sub(n.unwrap_or(1)).max(1));
    Ok(json!({"ok": "pool will shrink"}))
}

#[derive(Deserialize)]
struct Bounds {
    #[serde(default)]
    max: Option<usize>,
    #[serde(default)]
    min: Option<usize>,
}

pub(super) fn autoscale(dispatcher: &mut Dispatcher, arguments: &RawValue) -> Answer {
    let Bounds { max, min } = read("autoscale", arguments)?;
    let Some(now) = dispatcher.autoscale else { return Err("ValueError('Autoscale not enabled')".to_owned()) };
    let max = max.unwrap_or(now.max).clamp(1, MAX_SLOTS);
    let min = min.unwrap_or(now.min).clamp(1, max);
    dispatcher.autoscale = Some(Autoscale { max, min });
    dispatcher.set_slots(dispatcher.slots.clamp(min, max));
    Ok(json!({"ok": format!("autoscale now max={max} min={min}")}))
}

pub(super) fn enable_events(dispatcher: &mut Dispatcher, _: &RawValue) -> Answer {
    let before = dispatcher.shared.events.enable(true);
    Ok(json!({"ok": if before { "task events already enabled" } else { "task events enabled" }}))
}

pub(super) fn disable_events(dispatcher: &mut Dispatcher, _: &RawValue) -> Answer {
    let before = dispatcher.shared.events.enable(false);
    Ok(json!({"ok": if before { "task events disabled" } else { "task events already disabled" }}))
}

pub(super) fn heartbeat(dispatcher: &mut Dispatcher, _: &RawValue) -> Answer {
    dispatcher.shared.events.worker(WorkerNews::Heartbeat, worker_state(REQUESTED_FREQUENCY));
    Ok(Value::Null)
}

fn known(dispatcher: &Dispatcher, task: &str) -> Option<TaskName> {
    let name = TaskName::parse(task).ok()?;
    dispatcher.tasks.contains_key(&name).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_rate_is_told_as_python_tells_it() {
        assert_eq!(bad_rate("5/x"), "KeyError('x')");
        assert_eq!(bad_rate("fast"), "ValueError(\"could not convert string to float: 'fast'\")");
    }
}
