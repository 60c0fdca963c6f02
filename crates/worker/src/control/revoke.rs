//! Commands that prevent tasks from running, or end them.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::super::dispatcher::Dispatcher;
use super::super::execute::Kill;
use super::super::request::celery_error;
use super::super::signals::number_of;
use super::inspect::texts;
use super::{Answer, read};
use crate::events::timestamp;
use broker::backend::{Record, Unless};
use celery::json;
use celery::pyrepr::{self, Sequence};
use celery::result::ResultMeta;
use celery::task::TaskId;

#[derive(Deserialize)]
struct Revoke {
    task_id: Value,
    #[serde(default)]
    terminate: Option<bool>,
    #[serde(default)]
    signal: Option<Value>,
}

#[derive(Deserialize)]
struct Terminate {
    signal: Value,
    task_id: Value,
}

#[derive(Deserialize)]
struct Stamped {
    headers: Map<String, Value>,
    #[serde(default)]
    terminate: Option<bool>,
    #[serde(default)]
    signal: Option<Value>,
}

pub(super) fn revoke(dispatcher: &mut Dispatcher, arguments: &RawValue) -> Answer {
    let Revoke { task_id, terminate, signal } = read("revoke", arguments)?;
    let ids = texts(&task_id);
    if terminate.unwrap_or(false) {
        return end(dispatcher, &ids, signal.as_ref());
    }
    flag(dispatcher, &ids);
    let quoted: Vec<String> = ids.iter().map(|id| pyrepr::quoted(id)).collect();
    Ok(json!({"ok": format!("tasks {{{}}} flagged as revoked", quoted.join(", "))}))
}

pub(super) fn terminate(dispatcher: &mut Dispatcher, arguments: &RawValue) -> Answer {
    let Terminate { signal, task_id } = read("terminate", arguments)?;
    end(dispatcher, &texts(&task_id), Some(&signal))
}

pub(super) fn revoke_by_stamped_headers(dispatcher: &mut Dispatcher, arguments: &RawValue) -> Answer {
    let Stamped { headers, terminate, signal } = read("revoke_by_stamped_headers", arguments)?;
    for (name, values) in &headers {
        let values = values.as_array().cloned().unwrap_or_else(|| vec![values.clone()]);
        dispatcher.revoked.add_stamp(name, values);
    }
    let shown = serde_json::value::to_raw_value(&headers).unwrap_or_else(|_| json::null());
    let shown = pyrepr::repr(&shown, Sequence::List);
    dispatcher.settle_waiting_revoked();
    if !terminate.unwrap_or(false) {
        return Ok(json!({"ok": format!("headers {shown} flagged as revoked, but not terminated")}));
    }
    let signal = number(signal.as_ref())?;
    let revoked = std::mem::take(&mut dispatcher.revoked);
    let ended = dispatcher.kill(Kill::Terminate { signal }, |request| revoked.contains(&request.message));
    dispatcher.revoked = revoked;
    Ok(json!({"ok": format!("headers {shown} revoked: {}", ended.join(", "))}))
}

/// Remembers the ids and settles those that wait here. Tasks that do not run here get their REVOKED record at once, as in Celery.
fn flag(dispatcher: &mut Dispatcher, ids: &[String]) {
    let now = Instant::now();
    for id in ids {
        dispatcher.revoked.add(id, now);
        if !dispatcher.entries.values().any(|entry| entry.request.id() == id) {
            note(dispatcher, id);
        }
    }
    dispatcher.settle_waiting_revoked();
}

fn note(dispatcher: &Dispatcher, id: &str) {
    let Ok(task_id) = TaskId::parse(id) else { return };
    let value = celery_error("TaskRevokedError", "revoked").encode();
    let record =
        ResultMeta { date_done: Some(timestamp()), children: None, ..ResultMeta::new(task_id, "REVOKED", value) };
    // Without a message of it nobody knows where its results would go over the broker.
    let record = Record { task_id: id.to_owned(), text: record.encode(), reply: None };
    let shared = Arc::clone(&dispatcher.shared);
    dispatcher.spawn(async move {
        let expires = shared.settings.result_expires;
        shared.patiently("noting a revoke", || shared.records.store(&record, expires, Unless::Known)).await;
    });
}

fn end(dispatcher: &mut Dispatcher, ids: &[String], signal: Option<&Value>) -> Answer {
    let signal = number(signal)?;
    flag(dispatcher, ids);
    let ended = dispatcher.kill(Kill::Terminate { signal }, |request| ids.iter().any(|id| id == request.id()));
    let what = if ended.is_empty() { "tasks unknown".to_owned() } else { ended.join(", ") };
    Ok(json!({"ok": format!("terminate: {what}")}))
}

/// `"SIGTERM"`, `"term"` or 15; SIGTERM by default.
fn number(signal: Option<&Value>) -> Result<i32, String> {
    match signal {
        None | Some(Value::Null) => Ok(libc::SIGTERM),
        Some(Value::Number(number)) => {
            let known =
                number.as_i64().and_then(|number| i32::try_from(number).ok()).filter(|number| (1..65).contains(number));
            known.ok_or_else(|| format!("TypeError('signal must be 1 to 64, not {number}')"))
        }
        Some(Value::String(name)) => number_of(name).ok_or_else(|| format!("KeyError({})", pyrepr::quoted(name))),
        Some(other) => Err(format!("TypeError('signal is {other}')")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_a_name_or_a_number() {
        for (said, meant) in [(json!("SIGKILL"), 9), (json!("term"), 15), (json!(2), 2), (Value::Null, 15)] {
            assert_eq!(number(Some(&said)), Ok(meant));
        }
        assert_eq!(number(Some(&json!("SIGNOPE"))), Err("KeyError('SIGNOPE')".to_owned()));
        assert!(number(Some(&json!(0))).is_err());
    }
}
