//! A change of a task, as streams show it.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Mask;
use celery::task::Phase;
use ledger::{Event, REJECTED, Task};
use runtime::clock::Time;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventView<'a> {
    #[schema(value_type = String)]
    pub task_id: &'a str,
    pub seq: i64,
    #[schema(value_type = String, example = "PROGRESS")]
    pub status: &'a str,
    #[schema(value_type = String, example = "running")]
    pub phase: Phase,
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    #[schema(value_type = Option<String>)]
    pub worker: Option<&'a str>,
    pub retries: i32,
    /// `update_state`'s object.
    #[schema(value_type = serde_json::Value)]
    pub meta: Option<Cow<'a, RawValue>>,
    /// The reason of a change by taskgate or the broker: queued again, held, lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub reason: Option<&'a str>,
    /// In the stream of everything only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub task: Option<&'a str>,
    /// In the stream of everything only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub queue: Option<&'a str>,
    /// The task had been given up, and its real end came later.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub corrected: bool,
}

impl<'a> EventView<'a> {
    pub fn of(event: &'a Event, mask: Mask<'_>) -> Self {
        Self {
            task_id: event.task_id.as_str(),
            seq: event.seq,
            status: &event.status,
            phase: event.phase,
            at: event.at,
            worker: event.worker.as_deref(),
            retries: event.retries,
            meta: mask.optional(event.meta.as_deref()),
            reason: event.reason.as_deref(),
            task: None,
            queue: None,
            corrected: event.corrected,
        }
    }

    /// With the task's name and queue, for streams of many tasks.
    pub fn named(event: &'a Event, mask: Mask<'_>) -> Self {
        Self { task: event.name.as_deref(), queue: event.queue.as_deref(), ..Self::of(event, mask) }
    }

    /// `progress` for a state that the task named itself, `end` for a final one, else `state`.
    pub fn kind(&self) -> &'static str {
        if self.phase.is_final() {
            "end"
        } else if self.phase == Phase::Running && ![Phase::Running.status(), REJECTED].contains(&self.status) {
            "progress"
        } else {
            "state"
        }
    }
}

/// The state of a task when its stream begins.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Snapshot)]
pub struct SnapshotView<'a> {
    #[serde(flatten)]
    pub event: EventView<'a>,
    #[schema(value_type = String, format = DateTime)]
    pub submitted_at: Time,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Time>,
}

impl<'a> SnapshotView<'a> {
    pub fn of(task: &'a Task) -> Self {
        let times = [task.started_at, task.received_at, task.queued_at];
        let event = EventView {
            task_id: task.id.as_str(),
            seq: task.seq,
            status: &task.status,
            phase: task.phase,
            at: times.into_iter().flatten().max().unwrap_or(task.submitted_at),
            worker: task.worker.as_deref(),
            retries: task.retries,
            meta: Mask::new(&task.options.redact).optional(task.progress.as_deref()),
            reason: task.reason.as_deref(),
            task: task.name.as_deref(),
            queue: task.queue.as_deref(),
            corrected: task.corrected,
        };
        Self { event, submitted_at: task.submitted_at, started_at: task.started_at }
    }
}
