//! `tasks.request_info`: returns what the worker knows about the call.

use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use celery::task::{GroupId, TaskId};
use taskgate_worker::{Context, Registry};

#[derive(Serialize)]
struct Info {
    id: TaskId,
    task: String,
    retries: u32,
    args: Box<RawValue>,
    kwargs: Box<RawValue>,
    group: Option<GroupId>,
    root_id: Option<TaskId>,
    parent_id: Option<TaskId>,
}

pub(super) fn register(registry: &mut Registry) {
    registry.task("tasks.request_info", async |context: Context, _: IgnoredAny| {
        Ok(Info {
            id: context.id().clone(),
            task: context.task().to_owned(),
            retries: context.retries(),
            args: context.args().to_owned(),
            kwargs: context.kwargs().to_owned(),
            group: context.group_id().cloned(),
            root_id: context.root_id().cloned(),
            parent_id: context.parent_id().cloned(),
        })
    });
}
