//! A task as Flower shows it: the fields of Celery's event state, from the ledger's row.

use serde_json::{Map, Value, json};

use celery::pyrepr::{self, Sequence};
use celery::task::json::{elements, text};
use celery::task::{Phase, TaskId};
use ledger::{Message, Task};
use runtime::clock::Time;
use serde_json::value::RawValue;

/// The members of Celery's `Task.as_dict`, in its order.
pub fn task(task: &Task, message: Option<&Message>) -> Map<String, Value> {
    let ended = |phases: &[Phase]| seconds(task.finished_at.filter(|_| phases.contains(&task.phase)));
    let (args, kwargs) = arguments(task, message);
    let mut shown = Map::new();
    let mut set = |name: &str, value: Value| shown.insert(name.to_owned(), value);
    set("uuid", task.id.as_str().into());
    set("name", task.name.as_deref().into());
    set("state", task.status.as_str().into());
    set("received", seconds(task.received_at));
    set("sent", Value::Null);
    set("started", seconds(task.started_at));
    set("rejected", Value::Null);
    set("succeeded", ended(&[Phase::Succeeded]));
    set("failed", ended(&[Phase::Failed, Phase::Lost]));
    set("retried", seconds(task.received_at.filter(|_| task.phase == Phase::Retrying)));
    set("revoked", ended(&[Phase::Revoked, Phase::Expired, Phase::Skipped]));
    set("args", args.into());
    set("kwargs", kwargs.into());
    set("eta", task.due_at.map(|at| at.rfc3339()).into());
    set("expires", task.expires_at.map(|at| at.rfc3339()).into());
    set("retries", task.retries.into());
    set("worker", task.worker.as_deref().into());
    set("result", task.result.as_ref().map(|value| pyrepr::repr(value, Sequence::List)).into());
    set("exception", exception(task).into());
    set("timestamp", seconds(newest(task)));
    set("runtime", task.runtime.into());
    set("traceback", task.traceback.as_deref().into());
    set("exchange", Value::Null);
    set("routing_key", Value::Null);
    set("clock", task.seq.into());
    set("client", Value::Null);
    let root = task.root_id.as_ref().unwrap_or(&task.id).as_str();
    set("root", root.into());
    set("root_id", root.into());
    set("parent", task.parent_id.as_ref().map(TaskId::as_str).into());
    set("parent_id", task.parent_id.as_ref().map(TaskId::as_str).into());
    set("children", json!([]));
    shown
}

fn newest(task: &Task) -> Option<Time> {
    let times = [task.finished_at, task.started_at, task.received_at, task.queued_at];
    times.into_iter().flatten().max().or(Some(task.submitted_at))
}

fn seconds(time: Option<Time>) -> Value {
    time.map(|time| time.as_micros() as f64 / 1e6).into()
}

/// Python's texts of the arguments: from the message, or from events.
fn arguments(task: &Task, message: Option<&Message>) -> (Option<String>, Option<String>) {
    if !task.options.redact.is_empty() {
        return (Some("***".to_owned()), Some("***".to_owned()));
    }
    if task.argsrepr.is_some() || task.kwargsrepr.is_some() {
        return (task.argsrepr.clone(), task.kwargsrepr.clone());
    }
    let Some(message) = message else { return (None, None) };
    let header = |name: &str| {
        let headers: Map<String, Value> = serde_json::from_str(message.headers.as_deref()?).ok()?;
        headers.get(name)?.as_str().map(str::to_owned)
    };
    let body: Option<&RawValue> = serde_json::from_str(&message.body).ok();
    let parts = body.and_then(elements).unwrap_or_default();
    let part = |at: usize| parts.get(at).map(|value| pyrepr::safe(value, Sequence::Tuple));
    (header("argsrepr").or_else(|| part(0)), header("kwargsrepr").or_else(|| part(1)))
}

/// `ValueError('boom')`.
pub fn exception(task: &Task) -> Option<String> {
    let failure = task.failure.as_ref()?;
    Some(format!("{}({})", failure.kind, pyrepr::quoted(&failure.message)))
}

/// The result in `GET /api/task/result`: the value, or Python's text of an exception.
pub fn outcome(task: &Task) -> Value {
    match &task.result {
        Some(value) => serde_json::from_str(value.get()).unwrap_or_else(|_| text(value).into()),
        None => exception(task).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::{Failure, sample_task};

    #[test]
    fn a_failed_task_has_its_time_and_pythons_text_of_the_error() {
        let mut failed = sample_task("t", Phase::Failed, Time(1_000_000));
        failed.finished_at = Some(Time(2_500_000));
        failed.failure = Some(Failure { kind: "ValueError".to_owned(), message: "it's no".to_owned() });
        let shown = task(&failed, None);
        assert_eq!(shown["exception"], "ValueError(\"it's no\")");
        assert_eq!(
            (&shown["failed"], &shown["succeeded"], &shown["timestamp"]),
            (&json!(2.5), &Value::Null, &json!(2.5))
        );
        assert_eq!(shown["root_id"], "t");
    }
}
