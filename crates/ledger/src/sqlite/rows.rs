//! Converts rows of SQLite into the ledger's types.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::rows::{json, phase, read_task_row};
use crate::{Error, Event, Task};
use celery::task::{GroupId, TaskId};
use runtime::clock::Time;

pub(super) fn task(row: &SqliteRow) -> Result<Task, Error> {
    read_task_row!(row).try_into()
}

pub(super) fn tasks(rows: &[SqliteRow]) -> Result<Vec<Task>, Error> {
    rows.iter().map(task).collect()
}

/// An event joined with its task's names.
pub(super) fn event(row: &SqliteRow) -> Result<Event, Error> {
    let task_no: i64 = row.try_get("task_no")?;
    let corrupt = |column| Error::Corrupt { table: "event", column, row: task_no.to_string() };
    let task_id = TaskId::parse(row.try_get::<&str, _>("task_id")?).map_err(|_| corrupt("task_id"))?;
    let root_id: Option<String> = row.try_get("root_id")?;
    let group_id: Option<String> = row.try_get("group_id")?;
    let adopted: bool = row.try_get("adopted")?;
    Ok(Event {
        task_no,
        name: row.try_get("name")?,
        queue: row.try_get("queue")?,
        group_id: group_id.map(GroupId::parse).transpose().map_err(|_| corrupt("group_id"))?,
        root_id: root_id
            .map(TaskId::parse)
            .transpose()
            .map_err(|_| corrupt("root_id"))?
            .or_else(|| (!adopted).then(|| task_id.clone())),
        task_id,
        seq: row.try_get("seq")?,
        feed: row.try_get("feed")?,
        at: Time(row.try_get("at")?),
        phase: phase(row.try_get("phase")?, "event", task_no)?,
        status: row.try_get("status")?,
        delivery: row.try_get("delivery")?,
        retries: row.try_get("retries")?,
        worker: row.try_get("worker")?,
        meta: json(row.try_get("meta")?).map_err(|_| corrupt("meta"))?,
        reason: row.try_get("reason")?,
        corrected: row.try_get("corrected")?,
    })
}

/// The columns that [`event`] reads, of the aliases `e` and `t`.
macro_rules! event_columns {
    () => {
        "e.task_no, t.task_id, t.name, t.queue, t.group_id, t.root_id, t.adopted, e.seq, e.feed, e.at, e.phase, e.status, \
         e.delivery, e.retries, e.worker, e.meta, e.reason, e.corrected"
    };
}
pub(super) use event_columns;
