//! Commands that only read.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::super::dispatcher::{Dispatcher, Entry, Stage};
use super::super::transport::Place;
use super::{Answer, read, shown, usage};
use celery::time;

#[derive(Deserialize)]
struct Safe {
    #[serde(default)]
    safe: Option<bool>,
}

pub(super) fn active(dispatcher: &mut Dispatcher, arguments: &RawValue) -> Answer {
    let Safe { safe } = read("active", arguments)?;
    Ok(list(dispatcher, |stage| matches!(stage, Stage::Active { .. }), safe.unwrap_or(false)))
}

pub(super) fn reserved(dispatcher: &mut Dispatcher, _: &RawValue) -> Answer {
    Ok(list(dispatcher, |stage| matches!(stage, Stage::Reserved), false))
}

pub(super) fn scheduled(dispatcher: &mut Dispatcher, _: &RawValue) -> Answer {
    let hostname = dispatcher.shared.settings.hostname.clone();
    let entries = sorted(dispatcher).into_iter().filter_map(|entry| match entry.stage {
        Stage::Scheduled(eta) => {
            Some(json!({"eta": time::format(eta), "priority": 6, "request": shown::task(entry, &hostname, false)}))
        }
        _ => None,
    });
    Ok(entries.collect())
}

#[derive(Deserialize)]
struct Ids {
    ids: Value,
}

pub(super) fn query_task(dispatcher: &mut Dispatcher, arguments: &RawValue) -> Answer {
    let Ids { ids } = read("query_task", arguments)?;
    let ids = texts(&ids);
    let hostname = dispatcher.shared.settings.hostname.clone();
    let found = sorted(dispatcher).into_iter().filter(|entry| ids.iter().any(|id| id == entry.request.id()));
    let shown = found.map(|entry| {
        let state = match entry.stage {
            Stage::Active { .. } => "active",
            Stage::Scheduled(_) => "scheduled",
            Stage::Reserved => "reserved",
            Stage::Settling => "ready",
        };
        (entry.request.id().to_owned(), json!([state, shown::task(entry, &hostname, false)]))
    });
    Ok(Value::Object(shown.collect::<Map<_, _>>()))
}

pub(super) fn revoked(dispatcher: &mut Dispatcher, _: &RawValue) -> Answer {
    Ok(dispatcher.revoked.ids().map(Value::from).collect())
}

#[derive(Deserialize)]
struct Registered {
    #[serde(default)]
    taskinfoitems: Option<Vec<String>>,
    #[serde(default)]
    #[expect(dead_code, reason = "accepted as Celery accepts it: there are no built-in tasks here")]
    builtins: Option<bool>,
}

pub(super) fn registered(dispatcher: &mut Dispatcher, arguments: &RawValue) -> Answer {
    let Registered { taskinfoitems, .. } = read("registered", arguments)?;
    let items = taskinfoitems.filter(|items| !items.is_empty());
    let items = items.unwrap_or_else(|| ["exchange", "routing_key", "rate_limit"].map(str::to_owned).to_vec());
    let mut names: Vec<_> = dispatcher.tasks.values().collect();
    names.sort_by(|one, other| one.name.cmp(&other.name));
    let shown = names.into_iter().map(|task| {
        let facts = items.iter().filter_map(|item| match item.as_str() {
            "rate_limit" => dispatcher.rate_texts.get(&task.name).map(|rate| format!("rate_limit={rate}")),
            "max_retries" => Some(format!("max_retries={}", task.options.retry.max)),
            "ignore_result" => Some(format!("ignore_result={}", python(task.options.ignore_result))),
            _ => None,
        });
        let facts: Vec<String> = facts.collect();
        let name = task.name.as_str();
        Value::from(if facts.is_empty() { name.to_owned() } else { format!("{name} [{}]", facts.join(" ")) })
    });
    Ok(shown.collect())
}

pub(super) fn active_queues(dispatcher: &mut Dispatcher, _: &RawValue) -> Answer {
    Ok(dispatcher.queues.borrow().iter().map(|queue| shown::queue(queue.as_str())).collect())
}

pub(super) fn stats(dispatcher: &mut Dispatcher, _: &RawValue) -> Answer {
    let shared = &dispatcher.shared;
    let totals: Map<String, Value> =
        dispatcher.totals.iter().map(|(name, total)| (name.as_str().to_owned(), (*total).into())).collect();
    let place = shared.transport.place();
    let started: u64 = dispatcher.totals.values().sum();
    let mut processes = shared.children.pids();
    if processes.is_empty() {
        processes.push(std::process::id());
    }
    let per_child = shared.settings.max_tasks_per_child.map_or_else(|| "N/A".into(), Value::from);
    let seconds = |limit: Option<std::time::Duration>| limit.map_or(0.0, |limit| limit.as_secs_f64());
    let mut stats = json!({
        "total": totals,
        "pid": std::process::id(),
        "clock": shared.events.lamport.now().to_string(),
        "uptime": dispatcher.started.elapsed().as_secs(),
        "pool": {
            "implementation": "taskgate.worker:TaskPool",
            "max-concurrency": dispatcher.slots,
            "processes": processes,
            "max-tasks-per-child": per_child,
            "put-guarded-by-semaphore": true,
            "timeouts": [seconds(shared.settings.soft_time_limit), seconds(shared.settings.time_limit)],
            // Tasks go through one queue to whichever child is free; none are written to a child ahead of time.
            "writes": {
                "total": started, "avg": "1.00", "all": "1.00", "raw": started.to_string(), "strategy": "fair",
                "inqueues": {"total": dispatcher.slots, "active": dispatcher.running},
            },
        },
        "broker": {
            "hostname": place.host, "userid": place.user, "virtual_host": place.part, "port": place.port,
            "insist": false, "ssl": place.tls, "transport": place.transport, "connect_timeout": 4, "transport_options": {},
            "login_method": null, "uri_prefix": null, "heartbeat": place.heartbeat, "failover_strategy": "round-robin",
            "alternates": [], "credential_provider": null,
        },
        "prefetch_count": if dispatcher.places.limit() == usize::MAX { 0 } else { dispatcher.places.limit() },
        "rusage": usage::rusage(),
    });
    if let Some(bounds) = dispatcher.autoscale {
        stats["autoscaler"] = json!({"max": bounds.max, "min": bounds.min, "current": dispatcher.slots, "qty": 0});
    }
    Ok(stats)
}

pub(super) fn conf(dispatcher: &mut Dispatcher, _: &RawValue) -> Answer {
    let settings = &dispatcher.shared.settings;
    Ok(json!({
        "broker_url": address(&dispatcher.shared.transport.place()),
        "result_backend": dispatcher.shared.records.address(),
        "timezone": "UTC",
        "broker_transport_options": {"visibility_timeout": settings.visibility_timeout.as_secs()},
        "result_expires": settings.result_expires.as_secs(),
        "task_acks_late": settings.acks_late,
        "task_default_queue": settings.default_queue.as_str(),
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "task_track_started": settings.track_started,
        "task_soft_time_limit": settings.soft_time_limit.map(|limit| limit.as_secs_f64()),
        "task_time_limit": settings.time_limit.map(|limit| limit.as_secs_f64()),
        "worker_concurrency": dispatcher.slots,
        "worker_prefetch_multiplier": settings.prefetch_multiplier,
        "worker_send_task_events": dispatcher.shared.events.enabled(),
    }))
}

pub(super) fn report(dispatcher: &mut Dispatcher, _: &RawValue) -> Answer {
    let place = dispatcher.shared.transport.place();
    let (broker, backend, transport) = (address(&place), dispatcher.shared.records.address(), place.transport);
    let version = env!("CARGO_PKG_VERSION");
    let text = format!(
        "\nsoftware -> taskgate:{version} (rust)\nplatform -> system:Linux\nsettings -> transport:{transport} results:{backend}\n\n\
         broker_url: '{broker}'\nresult_backend: '{backend}'\n"
    );
    Ok(json!({"ok": text}))
}

/// The address of a broker, without user and password.
fn address(place: &Place) -> String {
    let Place { transport, host, port, part, .. } = place;
    format!("{transport}://{host}:{port}/{part}")
}

pub(super) fn clock(dispatcher: &mut Dispatcher, _: &RawValue) -> Answer {
    Ok(json!({"clock": dispatcher.shared.events.lamport.now()}))
}

fn list(dispatcher: &Dispatcher, which: impl Fn(&Stage) -> bool, safe: bool) -> Value {
    let hostname = &dispatcher.shared.settings.hostname;
    let entries = sorted(dispatcher).into_iter().filter(|entry| which(&entry.stage));
    entries.map(|entry| shown::task(entry, hostname, safe)).collect()
}

/// All entries, in the order of their arrival.
fn sorted(dispatcher: &Dispatcher) -> Vec<&Entry> {
    let mut entries: Vec<_> = dispatcher.entries.iter().collect();
    entries.sort_by_key(|(key, _)| **key);
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// One text or a list of them.
pub(super) fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) => values.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn python(yes: bool) -> &'static str {
    if yes { "True" } else { "False" }
}
