//! A task with all its data, and its summary in a list.

use crate::edge::answer::Lends;
use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{ErrorView, LinksView, Mask, ResultView};
use celery::task::Phase;
use celery::task::json;
use ledger::{Message, Task};
use runtime::clock::Time;

/// The result body, and everything else that the ledger has.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Task)]
pub struct TaskView<'a> {
    #[serde(flatten)]
    pub result: ResultView<'a>,
    /// Precise: `accepted`, `held`, `waiting`, `queued`, `received`, `running`, `retrying`, `succeeded`, `failed`, `revoked`, `expired`, `skipped`, `lost` or `ignored`.
    #[schema(value_type = String, example = "succeeded")]
    pub phase: Phase,
    /// Grows by one with every change.
    pub seq: i64,
    /// Null when the message was never seen.
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    pub args: Option<Cow<'a, RawValue>>,
    #[schema(value_type = Option<Object>)]
    pub kwargs: Option<Cow<'a, RawValue>>,
    /// Python's text of the arguments, for tasks that another program submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub argsrepr: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub kwargsrepr: Option<&'a str>,
    #[schema(value_type = Option<String>)]
    pub queue: Option<&'a str>,
    /// 0 is served first, 9 last.
    pub priority: u8,
    #[schema(value_type = Option<String>)]
    pub worker: Option<&'a str>,
    /// Seconds, as the worker measured it.
    pub runtime: Option<f64>,
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: BTreeMap<&'a str, &'a str>,
    #[schema(value_type = String, format = DateTime)]
    pub submitted_at: Time,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub queued_at: Option<Time>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub received_at: Option<Time>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Time>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Time>,
    /// When a held task is published.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub eta: Option<Time>,
    /// After this time it does not start any more.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Time>,
    #[schema(value_type = Option<String>)]
    pub retry_of: Option<&'a str>,
    #[schema(value_type = Option<String>)]
    pub retried_as: Option<&'a str>,
    #[schema(value_type = Option<String>)]
    pub schedule: Option<&'a str>,
    /// The reason for its phase, when taskgate decided it.
    #[schema(value_type = Option<String>)]
    pub reason: Option<&'a str>,
    /// The task had been given up, and its real end came later.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub corrected: bool,
    pub links: LinksView,
}

impl Lends for TaskView<'static> {
    type With<'a> = TaskView<'a>;
}

impl<'a> TaskView<'a> {
    pub fn of(task: &'a Task, message: Option<&'a Message>) -> Self {
        let mask = Mask::new(&task.options.redact);
        let (args, kwargs) = message.map_or((None, None), arguments);
        let hides = !task.options.redact.is_empty();
        Self {
            result: ResultView::of(task),
            phase: task.phase,
            seq: task.seq,
            args: mask.optional(args),
            kwargs: mask.optional(kwargs),
            argsrepr: task.argsrepr.as_deref().filter(|_| !hides),
            kwargsrepr: task.kwargsrepr.as_deref().filter(|_| !hides),
            queue: task.queue.as_deref(),
            priority: task.priority.get(),
            worker: task.worker.as_deref(),
            runtime: task.runtime,
            labels: labels(task),
            submitted_at: task.submitted_at,
            queued_at: task.queued_at,
            received_at: task.received_at,
            started_at: task.started_at,
            finished_at: task.finished_at,
            eta: task.due_at,
            expires: task.expires_at,
            retry_of: task.retry_of.as_ref().map(AsRef::as_ref),
            retried_as: task.retried_as.as_ref().map(AsRef::as_ref),
            schedule: task.schedule.as_deref(),
            reason: task.reason.as_deref(),
            corrected: task.corrected,
            links: LinksView::task(task.id.as_str()),
        }
    }
}

/// `args` and `kwargs` of a message body.
fn arguments(message: &Message) -> (Option<&RawValue>, Option<&RawValue>) {
    let Ok(body) = serde_json::from_str::<&RawValue>(&message.body) else { return (None, None) };
    let elements = json::elements(body).unwrap_or_default();
    (elements.first().copied(), elements.get(1).copied())
}

fn labels(task: &Task) -> BTreeMap<&str, &str> {
    task.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// A task in a list, without arguments, return value and traceback, which may be large.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TaskSummary)]
pub struct SummaryView<'a> {
    #[schema(value_type = String)]
    pub task_id: &'a str,
    #[schema(value_type = Option<String>)]
    pub task: Option<&'a str>,
    #[schema(value_type = String)]
    pub status: &'a str,
    pub ready: bool,
    pub successful: bool,
    pub failed: bool,
    pub error: Option<ErrorView<'a>>,
    #[schema(value_type = serde_json::Value)]
    pub progress: Option<Cow<'a, RawValue>>,
    pub retries: i32,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub date_done: Option<Time>,
    #[schema(value_type = Option<String>)]
    pub parent_id: Option<&'a str>,
    #[schema(value_type = Option<String>)]
    pub root_id: Option<&'a str>,
    #[schema(value_type = Option<String>)]
    pub group_id: Option<&'a str>,
    #[schema(value_type = String, example = "queued")]
    pub phase: Phase,
    pub seq: i64,
    #[schema(value_type = Option<String>)]
    pub queue: Option<&'a str>,
    pub priority: u8,
    #[schema(value_type = Option<String>)]
    pub worker: Option<&'a str>,
    pub runtime: Option<f64>,
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: BTreeMap<&'a str, &'a str>,
    #[schema(value_type = String, format = DateTime)]
    pub submitted_at: Time,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Time>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Time>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub eta: Option<Time>,
    #[schema(value_type = Option<String>)]
    pub retry_of: Option<&'a str>,
    #[schema(value_type = Option<String>)]
    pub retried_as: Option<&'a str>,
    #[schema(value_type = Option<String>)]
    pub schedule: Option<&'a str>,
    #[schema(value_type = Option<String>)]
    pub reason: Option<&'a str>,
    pub links: LinksView,
}

impl<'a> SummaryView<'a> {
    pub fn of(task: &'a Task) -> Self {
        let ResultView {
            task_id,
            task: name,
            status,
            ready,
            successful,
            failed,
            error,
            progress,
            retries,
            date_done,
            parent_id,
            root_id,
            group_id,
            ..
        } = ResultView::of(task);
        Self {
            task_id,
            task: name,
            status,
            ready,
            successful,
            failed,
            error,
            progress,
            retries,
            date_done,
            parent_id,
            root_id,
            group_id,
            phase: task.phase,
            seq: task.seq,
            queue: task.queue.as_deref(),
            priority: task.priority.get(),
            worker: task.worker.as_deref(),
            runtime: task.runtime,
            labels: labels(task),
            submitted_at: task.submitted_at,
            started_at: task.started_at,
            finished_at: task.finished_at,
            eta: task.due_at,
            retry_of: task.retry_of.as_ref().map(AsRef::as_ref),
            retried_as: task.retried_as.as_ref().map(AsRef::as_ref),
            schedule: task.schedule.as_deref(),
            reason: task.reason.as_deref(),
            links: LinksView::task(task.id.as_str()),
        }
    }
}

/// A page of tasks, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TaskList)]
pub struct TaskListView<'a> {
    pub tasks: Vec<SummaryView<'a>>,
    /// The `cursor` of the next page; null on the last one.
    pub next: Option<String>,
}

impl Lends for TaskListView<'static> {
    type With<'a> = TaskListView<'a>;
}
