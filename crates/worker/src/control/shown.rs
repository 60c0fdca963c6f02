//! Formats requests and queues for remote control.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::super::dispatcher::{Entry, Stage};
use super::super::request::Request;
use celery::time;

/// Celery's task info. With `safe`, arguments are shown as in events.
pub(super) fn task(entry: &Entry, hostname: &str, safe: bool) -> Value {
    let request = &entry.request;
    let (started, acknowledged, pid) = match &entry.stage {
        Stage::Active { started, acknowledged, pid, .. } => {
            (Some(time::to_unix(*started)), *acknowledged, Some(pid.load(Ordering::Relaxed)))
        }
        _ => (None, false, None),
    };
    let value = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    let (args, kwargs) = if safe {
        (request.shown_args().into(), request.shown_kwargs().into())
    } else {
        (value(request.message.args.get()), value(request.message.kwargs.get()))
    };
    json!({
        "id": request.id(),
        "name": request.message.task.as_str(),
        "args": args,
        "kwargs": kwargs,
        "type": request.message.task.as_str(),
        "hostname": hostname,
        "time_start": started,
        "acknowledged": acknowledged,
        "delivery_info": delivery_info(request),
        "worker_pid": pid,
    })
}

fn delivery_info(request: &Request) -> Value {
    let origin = &request.origin;
    json!({
        "exchange": origin.exchange,
        "routing_key": origin.routing_key,
        "priority": origin.priority.get(),
        "redelivered": origin.redelivered,
    })
}

/// A queue as kombu describes one that was declared by its name alone.
pub(super) fn queue(name: &str) -> Value {
    json!({
        "name": name,
        "exchange": {
            "name": name, "type": "direct", "arguments": null, "durable": true, "passive": false, "auto_delete": false,
            "delivery_mode": null, "no_declare": false,
        },
        "routing_key": name,
        "queue_arguments": null, "binding_arguments": null, "consumer_arguments": null,
        "durable": true, "exclusive": false, "auto_delete": false, "no_ack": false, "alias": null, "bindings": [],
        "no_declare": null, "expires": null, "message_ttl": null, "max_length": null, "max_length_bytes": null,
        "max_priority": null,
    })
}
