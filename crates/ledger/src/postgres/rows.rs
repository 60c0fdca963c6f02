//! Rows of PostgreSQL become values of the vocabulary.

use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::rows::{json, phase, read_task_row};
use crate::{Error, Event, Task};
use celery::task::{GroupId, TaskId};
use runtime::clock::Time;

pub(super) fn task(row: &PgRow) -> Result<Task, Error> {
    read_task_row!(row).try_into()
}

pub(super) fn tasks(rows: &[PgRow]) -> Result<Vec<Task>, Error> {
    rows.iter().map(task).collect()
}

/// An event joined with its task's names. By place: thousands are read in a second.
pub(super) fn event(row: &PgRow) -> Result<Event, Error> {
    let task_no: i64 = row.try_get(0)?;
    let corrupt = |column| Error::Corrupt { table: "event", column, row: task_no.to_string() };
    let task_id = TaskId::parse(row.try_get::<&str, _>(1)?).map_err(|_| corrupt("task_id"))?;
    let group_id: Option<&str> = row.try_get(4)?;
    let root_id: Option<&str> = row.try_get(5)?;
    let adopted: bool = row.try_get(6)?;
    Ok(Event {
        task_no,
        name: row.try_get(2)?,
        queue: row.try_get(3)?,
        group_id: group_id.map(GroupId::parse).transpose().map_err(|_| corrupt("group_id"))?,
        root_id: root_id
            .map(TaskId::parse)
            .transpose()
            .map_err(|_| corrupt("root_id"))?
            .or_else(|| (!adopted).then(|| task_id.clone())),
        task_id,
        seq: row.try_get(7)?,
        feed: row.try_get(8)?,
        at: Time(row.try_get(9)?),
        phase: phase(row.try_get(10)?, "event", task_no)?,
        status: row.try_get(11)?,
        delivery: row.try_get(12)?,
        retries: row.try_get(13)?,
        worker: row.try_get(14)?,
        meta: json(row.try_get(15)?).map_err(|_| corrupt("meta"))?,
        reason: row.try_get(16)?,
        corrected: row.try_get(17)?,
    })
}

/// The columns that [`event`] reads, in its order and first in their statement, of two aliases: `e` and `t` by default.
#[rustfmt::skip]
macro_rules! event_columns {
    () => { event_columns!("e", "t") };
    ($e:literal, $t:literal) => {
        concat!(
            $e, ".task_no, ", $t, ".task_id, ", $t, ".name, ", $t, ".queue, ", $t, ".group_id, ", $t, ".root_id, ",
            $t, ".adopted, ", $e, ".seq, ", $e, ".feed, ", $e, ".at, ", $e, ".phase, ", $e, ".status, ", $e, ".delivery, ",
            $e, ".retries, ", $e, ".worker, ", $e, ".meta, ", $e, ".reason, ", $e, ".corrected"
        )
    };
}
pub(super) use event_columns;
