//! A task's row from either database, and its conversion into the ledger's types. A row that breaks the schema's rules is
//! [`Error::Corrupt`], with table, column and row.

use std::borrow::Cow;
use std::collections::BTreeMap;

use celery::task::{GroupId, Json, Phase, Priority, TaskId};
use runtime::clock::Time;

use super::error::Error;
use super::types::{Failure, Task, TaskOptions};

/// The longest text in an index: a b-tree entry must stay below 2,700 bytes.
const INDEXED_CHARS: usize = 255;

/// Plain columns of `task`, by name.
pub(super) struct TaskRow {
    pub task_no: i64,
    pub task_id: String,
    pub name: Option<String>,
    pub queue: Option<String>,
    pub priority: i32,
    pub phase: String,
    pub status: String,
    pub seq: i64,
    pub delivery: i32,
    pub retries: i32,
    pub worker: Option<String>,
    pub root_id: Option<String>,
    pub parent_id: Option<String>,
    pub group_id: Option<String>,
    pub group_index: Option<i32>,
    pub ignore_result: bool,
    pub labels: Option<String>,
    pub options: Option<String>,
    pub submitted_at: i64,
    pub queued_at: Option<i64>,
    pub received_at: Option<i64>,
    pub started_at: Option<i64>,
    pub finished_at: Option<i64>,
    pub due_at: Option<i64>,
    pub expires_at: Option<i64>,
    pub revoke_requested_at: Option<i64>,
    pub runtime: Option<f64>,
    pub result: Option<String>,
    pub failure_type: Option<String>,
    pub failure_message: Option<String>,
    pub traceback: Option<String>,
    pub progress: Option<String>,
    pub children: Option<String>,
    pub retry_of: Option<String>,
    pub retried_as: Option<String>,
    pub schedule: Option<String>,
    pub reason: Option<String>,
    pub adopted: bool,
    pub corrected: bool,
    pub argsrepr: Option<String>,
    pub kwargsrepr: Option<String>,
}

/// Fills a [`TaskRow`] from a database row that has these columns by name.
macro_rules! read_task_row {
    ($row:expr) => {
        $crate::rows::read_task_row!($row; task_no, task_id, name, queue, priority, phase, status, seq, delivery, retries,
            worker, root_id, parent_id, group_id, group_index, ignore_result, labels, options, submitted_at, queued_at,
            received_at, started_at, finished_at, due_at, expires_at, revoke_requested_at, runtime, result, failure_type,
            failure_message, traceback, progress, children, retry_of, retried_as, schedule, reason, adopted, corrected,
            argsrepr, kwargsrepr)
    };
    ($row:expr; $($column:ident),+) => {
        $crate::rows::TaskRow { $($column: $row.try_get(stringify!($column))?),+ }
    };
}
pub(super) use read_task_row;

/// The columns of [`TaskRow`], from the table alias `t`.
macro_rules! task_columns {
    () => {
        "t.task_no, t.task_id, t.name, t.queue, cast(t.priority as integer) as priority, t.phase, t.status, t.seq, t.delivery, \
         t.retries, t.worker, t.root_id, t.parent_id, t.group_id, t.group_index, t.ignore_result, t.labels, t.options, \
         t.submitted_at, t.queued_at, t.received_at, t.started_at, t.finished_at, t.due_at, t.expires_at, \
         t.revoke_requested_at, t.runtime, t.result, t.failure_type, t.failure_message, t.traceback, t.progress, t.children, \
         t.retry_of, t.retried_as, t.schedule, t.reason, t.adopted, t.corrected, t.argsrepr, t.kwargsrepr"
    };
}
pub(super) use task_columns;

/// The same columns without the large texts, for transitions that do not read them.
macro_rules! light_task_columns {
    () => {
        "t.task_no, t.task_id, t.name, t.queue, cast(t.priority as integer) as priority, t.phase, t.status, t.seq, t.delivery, \
         t.retries, t.worker, t.root_id, t.parent_id, t.group_id, t.group_index, t.ignore_result, t.labels, t.options, \
         t.submitted_at, t.queued_at, t.received_at, t.started_at, t.finished_at, t.due_at, t.expires_at, \
         t.revoke_requested_at, t.runtime, cast(null as text) as result, t.failure_type, t.failure_message, \
         cast(null as text) as traceback, cast(null as text) as progress, cast(null as text) as children, \
         t.retry_of, t.retried_as, t.schedule, t.reason, t.adopted, t.corrected, t.argsrepr, t.kwargsrepr"
    };
}
pub(super) use light_task_columns;

impl TryFrom<TaskRow> for Task {
    type Error = Error;

    fn try_from(row: TaskRow) -> Result<Self, Error> {
        let corrupt = |column| Error::Corrupt { table: "task", column, row: row.task_no.to_string() };
        let task = |text: &String, column| TaskId::parse(text).map_err(|_| corrupt(column));
        let optional = |text: &Option<String>, column| text.as_ref().map(|text| task(text, column)).transpose();
        let id = task(&row.task_id, "task_id")?;
        let root_id = optional(&row.root_id, "root_id")?.or_else(|| (!row.adopted).then(|| id.clone()));
        let group_id = row.group_id.as_ref().map(GroupId::parse).transpose().map_err(|_| corrupt("group_id"))?;
        Ok(Self {
            no: row.task_no,
            phase: row.phase.parse().map_err(|_| corrupt("phase"))?,
            priority: u8::try_from(row.priority).ok().and_then(Priority::new).ok_or_else(|| corrupt("priority"))?,
            parent_id: optional(&row.parent_id, "parent_id")?,
            retry_of: optional(&row.retry_of, "retry_of")?,
            retried_as: optional(&row.retried_as, "retried_as")?,
            labels: labels(row.labels.as_deref()).map_err(|_| corrupt("labels"))?,
            options: options(row.options.as_deref()).map_err(|_| corrupt("options"))?,
            result: json(row.result.clone()).map_err(|_| corrupt("result"))?,
            progress: json(row.progress.clone()).map_err(|_| corrupt("progress"))?,
            children: json(row.children.clone()).map_err(|_| corrupt("children"))?,
            failure: failure(row.failure_type, row.failure_message),
            id,
            root_id,
            group_id,
            name: row.name,
            queue: row.queue,
            status: row.status,
            seq: row.seq,
            delivery: row.delivery,
            retries: row.retries,
            worker: row.worker,
            group_index: row.group_index,
            ignore_result: row.ignore_result,
            submitted_at: Time(row.submitted_at),
            queued_at: row.queued_at.map(Time),
            received_at: row.received_at.map(Time),
            started_at: row.started_at.map(Time),
            finished_at: row.finished_at.map(Time),
            due_at: row.due_at.map(Time),
            expires_at: row.expires_at.map(Time),
            runtime: row.runtime,
            traceback: row.traceback,
            schedule: row.schedule,
            reason: row.reason,
            adopted: row.adopted,
            corrected: row.corrected,
            argsrepr: row.argsrepr,
            kwargsrepr: row.kwargsrepr,
            revoke_requested_at: row.revoke_requested_at.map(Time),
        })
    }
}

pub(super) fn failure(kind: Option<String>, message: Option<String>) -> Option<Failure> {
    kind.map(|kind| Failure { kind, message: message.unwrap_or_default() })
}

/// Parses JSON text that was checked when it was stored.
pub(super) fn json(text: Option<String>) -> Result<Option<Json>, serde_json::Error> {
    text.map(serde_json::value::RawValue::from_string).transpose()
}

fn labels(text: Option<&str>) -> Result<Vec<(String, String)>, serde_json::Error> {
    let Some(text) = text else { return Ok(Vec::new()) };
    Ok(serde_json::from_str::<BTreeMap<String, String>>(text)?.into_iter().collect())
}

/// The labels as a JSON object sorted by key, or null when there are none; for a repeated key the last value counts.
pub(super) fn labels_text(labels: &[(String, String)]) -> Option<String> {
    (!labels.is_empty()).then(|| {
        let sorted: BTreeMap<_, _> = labels.iter().map(|(key, value)| (clean(key), clean(value))).collect();
        serde_json::to_string(&sorted).expect("a map of texts is JSON")
    })
}

/// The labels for the index, sorted, without repetition.
pub(super) fn label_rows(labels: &[(String, String)]) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (short(key), short(value))).collect()
}

fn options(text: Option<&str>) -> Result<TaskOptions, serde_json::Error> {
    text.map_or_else(|| Ok(TaskOptions::default()), serde_json::from_str)
}

pub(super) fn options_text(options: &TaskOptions) -> Option<String> {
    (*options != TaskOptions::default()).then(|| serde_json::to_string(options).expect("options are plain JSON"))
}

/// Parses the phase of an event's or a group member's row.
pub(super) fn phase(text: &str, table: &'static str, row: i64) -> Result<Phase, Error> {
    text.parse().map_err(|_| Error::Corrupt { table, column: "phase", row: row.to_string() })
}

/// Replaces U+0000 by U+FFFD in both databases, because PostgreSQL's texts cannot contain it. (JSON texts escape it and stay unchanged.)
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

pub(super) fn cleaned(text: Option<&str>) -> Option<String> {
    text.map(|text| clean(text).into_owned())
}

/// The clean text, cut to the length of an index entry.
pub(super) fn short(text: &str) -> String {
    let text = clean(text);
    match text.char_indices().nth(INDEXED_CHARS) {
        Some((end, _)) => text[..end].to_owned(),
        None => text.into_owned(),
    }
}
