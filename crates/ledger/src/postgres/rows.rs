//! Converts rows of PostgreSQL into the ledger's types.

use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::history::Told;
use crate::rows::read_task_row;
use crate::{Error, Event, Task};
use celery::task::{GroupId, Phase, TaskId};
use runtime::clock::Time;

pub(super) fn task(row: &PgRow) -> Result<Task, Error> {
    read_task_row!(row).try_into()
}

pub(super) fn tasks(rows: &[PgRow]) -> Result<Vec<Task>, Error> {
    rows.iter().map(task).collect()
}

/// The fields of a task that an event needs.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub task_no: i64,
    pub task_id: TaskId,
    pub name: Option<String>,
    pub queue: Option<String>,
    pub group_id: Option<GroupId>,
    pub root_id: Option<TaskId>,
    pub adopted: bool,
    pub submitted_at: Time,
    pub first_phase: Phase,
}

/// The columns of [`subject`], in its order and first in the statement, from `t` and `k`.
macro_rules! subject_columns {
    () => {
        "t.task_no, coalesce(t.given_id, cast(t.id as text)) as task_id, nullif(k.name, '') as name, nullif(k.queue, '') as queue, \
         t.group_id, t.root_id, t.adopted, t.submitted_at, t.first_phase"
    };
}
pub(super) use subject_columns;

/// Reads columns by index, for speed: thousands of rows are read in a second.
pub(super) fn subject(row: &PgRow) -> Result<Subject, Error> {
    let task_no: i64 = row.try_get(0)?;
    let corrupt = |column| Error::Corrupt { table: "task", column, row: task_no.to_string() };
    let task_id = TaskId::parse(row.try_get::<&str, _>(1)?).map_err(|_| corrupt("task_id"))?;
    let group_id: Option<&str> = row.try_get(4)?;
    let root_id: Option<&str> = row.try_get(5)?;
    let adopted: bool = row.try_get(6)?;
    let first: Option<&str> = row.try_get(8)?;
    Ok(Subject {
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
        adopted,
        submitted_at: Time(row.try_get(7)?),
        first_phase: first.map_or(Ok(Phase::Accepted), str::parse).map_err(|_| corrupt("first_phase"))?,
    })
}

impl Subject {
    /// Its first event, which is not stored in the history. `None` for an adopted task, which another client submitted.
    pub fn submitted(&self) -> Option<Told> {
        let phase = self.first_phase;
        (!self.adopted).then(|| Told {
            seq: 1,
            delivery: 1,
            retries: 0,
            phase,
            corrected: false,
            at: self.submitted_at,
            status: phase.status().to_owned(),
            worker: None,
            reason: None,
            meta: None,
        })
    }

    /// `feed` is the event's position, zero if it is not known.
    pub fn event(&self, told: Told, feed: i64) -> Event {
        Event {
            task_no: self.task_no,
            task_id: self.task_id.clone(),
            name: self.name.clone(),
            queue: self.queue.clone(),
            group_id: self.group_id.clone(),
            root_id: self.root_id.clone(),
            seq: told.seq,
            feed,
            at: told.at,
            phase: told.phase,
            status: told.status,
            delivery: told.delivery,
            retries: told.retries,
            worker: told.worker,
            meta: told.meta,
            reason: told.reason,
            corrected: told.corrected,
        }
    }
}
