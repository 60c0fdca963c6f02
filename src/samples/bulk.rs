//! `tasks.reindex_notices` and `tasks.send_emails`: each runs one chunk of a fan-out. These samples only count.

use serde::Deserialize;
use serde::de::IgnoredAny;

use taskgate_worker::{Context, Registry, TaskError};

#[derive(Deserialize)]
struct Range {
    start: i64,
    end: i64,
}

#[derive(Deserialize)]
struct Batch {
    emails: Vec<IgnoredAny>,
}

pub(super) fn register(registry: &mut Registry) {
    registry.task("tasks.reindex_notices", async |_: Context, range: Range| {
        range.end.checked_sub(range.start).ok_or_else(|| TaskError::fail("OverflowError", "the range has no length"))
    });
    registry.task("tasks.send_emails", async |_: Context, batch: Batch| Ok::<_, TaskError>(batch.emails.len()));
}
