//! The rows of new tasks: one statement for each table, whatever the number of tasks, and all of them in one call.
//!
//! A call's way to the connection's thread and back costs more than a row, so all tasks of a batch go there together, as a JSON
//! array in the order of their numbers. The numbers follow the last one that was assigned: only one connection writes.

use serde::Serialize;
use sqlx::Row as _;

use crate::rows::{labels_text, options_text, short};
use crate::statements::statements;
use crate::{Error, NewTask, Submission};
use celery::task::{GroupId, TaskId};

use super::pool::{Tx, list};

/// The statement that inserts into a table what it takes from each element (`i.value`) of a list; element `i.key` has the number
/// `$2 + i.key`.
macro_rules! of_each {
    ($list:literal, $into:literal, $values:literal) => {
        concat!(
            "with i as materialized (select key, value from json_each(",
            $list,
            ")) insert into ",
            $into,
            " select $2 + i.key, ",
            $values
        )
    };
}

/// Defines the statements that insert into one table each, and [`ALL`] of them.
macro_rules! inserts {
    ($($name:ident = $sql:expr;)+) => {
        statements! {
            LAST_NUMBER = "select coalesce(max(seq), 0) from sqlite_sequence where name = 'task'";
            $($name = $sql;)+
        }
        /// `$1` rows, `$2` the first one's number, `$3` messages.
        const ALL: &str = concat!($($sql, ";"),+);
    };
}

inserts! {
    TASKS = of_each!(
        "$1",
        "task (task_no, submitted_at, due_at, expires_at, seq, delivery, retries, group_index, priority, ignore_result, adopted, \
         corrected, task_id, phase, status, name, queue, root_id, parent_id, group_id, retry_of, schedule, labels, options)",
        "i.value ->> 'at', i.value ->> 'due_at', i.value ->> 'expires_at', 1, 1, 0, i.value ->> 'group_index', \
         i.value ->> 'priority', i.value ->> 'ignore_result', 0, 0, i.value ->> 'id', i.value ->> 'phase', 'PENDING', \
         i.value ->> 'name', i.value ->> 'queue', i.value ->> 'root_id', i.value ->> 'parent_id', i.value ->> 'group_id', \
         i.value ->> 'retry_of', i.value ->> 'schedule', i.value ->> 'labels', i.value ->> 'options' from i"
    );
    MESSAGES = of_each!("$3", "message (task_no, headers, body)", "i.value ->> 0, i.value ->> 1 from i");
    UNFINISHED = of_each!("$1", "unfinished (task_no, waits)", "i.value ->> 'phase' = 'waiting' from i");
    OUTBOX = of_each!(
        "$1",
        "outbox (task_no, wake_at, accepted_at, queue, line, rank, share, gate, gate_max)",
        "i.value ->> 'wake_at', i.value ->> 'at', i.value ->> 'queue', \
         case when i.value ->> 'rank' is not null then i.value ->> 'queue' end, i.value ->> 'rank', \
         case when i.value ->> 'rank' is not null then '' end, i.value ->> 'gate', i.value ->> 'gate_max' \
         from i where i.value ->> 'phase' <> 'waiting'"
    );
    EVENTS = of_each!(
        "$1",
        "event (task_no, seq, at, delivery, retries, corrected, phase, status)",
        "1, i.value ->> 'at', 1, 0, 0, i.value ->> 'phase', 'PENDING' from i"
    );
}

/// What the tables but `message` have of a task. What it does not have is left out, because SQLite reads the text for each column.
#[derive(Serialize)]
struct Row<'a> {
    at: i64,
    phase: &'static str,
    id: &'a str,
    name: &'a str,
    queue: &'a str,
    priority: u8,
    ignore_result: bool,
    wake_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_index: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_of: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rank: Option<i16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gate_max: Option<i32>,
}

impl<'a> Row<'a> {
    fn of(submission: &Submission, task: &'a NewTask) -> Self {
        debug_assert_eq!(task.phase.status(), "PENDING", "a new task has not begun");
        let gate = task.gate();
        Self {
            at: submission.at.0,
            phase: task.phase.as_str(),
            id: task.id.as_str(),
            name: task.name.as_str(),
            queue: task.queue.as_str(),
            priority: task.priority.get(),
            ignore_result: task.ignore_result,
            wake_at: task.wake_at(submission.at),
            due_at: task.due_at.map(|at| at.0),
            expires_at: task.expires_at.map(|at| at.0),
            group_index: task.group_index,
            root_id: (task.root_id != task.id).then_some(task.root_id.as_str()),
            parent_id: task.parent_id.as_ref().map(TaskId::as_str),
            group_id: task.group_id.as_ref().map(GroupId::as_str),
            retry_of: task.retry_of.as_ref().map(TaskId::as_str),
            schedule: task.schedule.as_deref().map(short),
            labels: labels_text(&task.labels),
            options: options_text(&task.options),
            rank: task.rank(),
            gate: gate.as_ref().map(|gate| gate.name().to_owned()),
            gate_max: gate.and_then(|gate| gate.max()),
        }
    }
}

/// Writes the tasks of all submissions. Returns the number of the first; the others follow in order.
pub(super) async fn write(tx: &mut Tx, batch: &[&Submission]) -> Result<i64, Error> {
    let last: i64 = sqlx::query(LAST_NUMBER).fetch_one(&mut **tx).await?.try_get(0)?;
    let first = last + 1;
    if batch.iter().all(|submission| submission.tasks.is_empty()) {
        return Ok(first);
    }
    let both = || batch.iter().flat_map(|&submission| submission.tasks.iter().map(move |task| (submission, task)));
    let rows = list(&both().map(|(submission, task)| Row::of(submission, task)).collect::<Vec<_>>());
    let messages = list(&both().map(|(_, task)| (task.headers.as_deref(), &task.body)).collect::<Vec<_>>());
    sqlx::query(ALL).bind(rows).bind(first).bind(messages).execute(&mut **tx).await?;
    Ok(first)
}
