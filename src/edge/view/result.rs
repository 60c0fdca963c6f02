//! The result body: the outcome of a task.

use crate::edge::answer::Lends;
use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{ErrorView, Mask, SentView};
use celery::serial;
use celery::task::Phase;
use ledger::Task;
use runtime::clock::Time;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Result)]
pub struct ResultView<'a> {
    #[schema(value_type = String, example = "0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c42")]
    pub task_id: &'a str,
    /// Null while the name is unknown, for a task that another program submitted.
    #[schema(value_type = Option<String>, example = "tasks.add")]
    pub task: Option<&'a str>,
    /// Celery's state, or the task's own.
    #[schema(value_type = String, example = "SUCCESS")]
    pub status: &'a str,
    /// The result will not change any more.
    pub ready: bool,
    pub successful: bool,
    pub failed: bool,
    /// The return value; null unless successful.
    #[schema(value_type = serde_json::Value, example = 5)]
    pub result: Option<Cow<'a, RawValue>>,
    /// False when the result has an encoding that is not read here (pickle is never loaded): `result` is then `{"encoding": content type,
    /// "bytes": base64}`, the whole record as the worker stored it. Left out otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_readable: Option<bool>,
    pub error: Option<ErrorView<'a>>,
    #[schema(value_type = Option<String>)]
    pub traceback: Option<&'a str>,
    /// The newest `update_state` meta.
    #[schema(value_type = serde_json::Value)]
    pub progress: Option<Cow<'a, RawValue>>,
    /// Tasks and groups that it sent while running.
    pub children: Vec<SentView>,
    pub retries: i32,
    /// When it was finished.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub date_done: Option<Time>,
    #[schema(value_type = Option<String>)]
    pub parent_id: Option<&'a str>,
    #[schema(value_type = Option<String>)]
    pub root_id: Option<&'a str>,
    #[schema(value_type = Option<String>)]
    pub group_id: Option<&'a str>,
}

impl Lends for ResultView<'static> {
    type With<'a> = ResultView<'a>;
}

impl<'a> ResultView<'a> {
    pub fn of(task: &'a Task) -> Self {
        let mask = Mask::new(&task.options.redact);
        Self {
            task_id: task.id.as_str(),
            task: task.name.as_deref(),
            status: &task.status,
            ready: task.phase.is_final(),
            successful: task.phase == Phase::Succeeded,
            failed: matches!(task.phase, Phase::Failed | Phase::Lost),
            result: mask.optional(task.result.as_deref()),
            result_readable: task
                .result
                .as_deref()
                .is_some_and(|result| serial::is_opaque(result.get()))
                .then_some(false),
            error: task.failure.as_ref().map(ErrorView::of),
            traceback: task.traceback.as_deref(),
            progress: mask.optional(task.progress.as_deref()),
            children: SentView::list(task.children.as_deref()),
            retries: task.retries,
            date_done: task.finished_at,
            parent_id: task.parent_id.as_ref().map(AsRef::as_ref),
            root_id: task.root_id.as_ref().map(AsRef::as_ref),
            group_id: task.group_id.as_ref().map(AsRef::as_ref),
        }
    }
}
