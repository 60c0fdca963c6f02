//! Writes the contents of an [`Applied`]: changed tasks, the small tables that depend on a task's phase, events.

use sqlx::Row;

use crate::applied::{Applied, Entry};
use crate::rows::{clean, labels_text, options_text};
use crate::statements::statements;
use crate::{Error, Event};
use celery::task::{GroupId, Phase, TaskId};

use super::pool::Tx;

statements! {
    /// Result, failure and traceback are written only with a new outcome (`$18`), progress and children only when there are new
    /// ones: they may be large and are not loaded for a transition.
    UPDATE = "update task set phase = $2, status = $3, seq = $4, delivery = $5, retries = $6, worker = $7, \
         queued_at = $8, received_at = $9, started_at = $10, finished_at = $11, due_at = $12, runtime = $13, corrected = $14, \
         reason = $15, progress = coalesce($16, progress), children = coalesce($17, children), \
         result = case when $18 then $19 else result end, \
         failure_type = case when $18 then $20 else failure_type end, \
         failure_message = case when $18 then $21 else failure_message end, \
         traceback = case when $18 then $22 else traceback end where task_no = $1";
    COMPLETE = "update task set name = $2, queue = $3, root_id = $4, parent_id = $5, group_id = $6, \
         argsrepr = $7, kwargsrepr = $8, priority = $9 where task_no = $1";
    ADOPT = "insert into task (submitted_at, seq, delivery, retries, priority, ignore_result, adopted, \
         corrected, task_id, phase, status, name, queue, root_id, parent_id, group_id, argsrepr, kwargsrepr, finished_at, labels, \
         options) select $1, 1, 1, 0, $2, 0, 1, 0, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15 \
         where not exists (select 1 from tombstone where task_id = $3) on conflict (task_id) do nothing returning task_no";
    START_UNFINISHED =
        "insert into unfinished (task_no, waits) values ($1, $2) on conflict do nothing";
    FINISH = "delete from unfinished where task_no = $1";
    FREE = "delete from unique_key where task_id = $1 and expires_at = 9223372036854775807";
    LET_GO = "delete from gate_hold where task_no = $1";
    TAKEN = "delete from window_slot where task_no = $1";
    TROUBLE = "insert into trouble (task_no, phase, dead) values ($1, $2, $2 in ('failed', 'lost')) \
         on conflict (task_no) do update set phase = excluded.phase, dead = excluded.dead";
    NO_TROUBLE = "delete from trouble where task_no = $1";
    STANDS = "update unfinished set at_worker = $2, waits = $3 where task_no = $1";
    EVENT = "insert into event (task_no, seq, at, delivery, retries, corrected, phase, status, worker, reason, \
         meta) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
}

/// Writes what was applied.
pub(super) async fn save(tx: &mut Tx, applied: &mut Applied) -> Result<(), Error> {
    adopt(tx, applied).await?;
    for entry in applied.entries.iter().filter(|entry| entry.touched) {
        update(tx, entry).await?;
        if entry.task.adopted && !entry.new {
            complete(tx, entry).await?;
        }
        follow_phase(tx, entry).await?;
    }
    for event in &applied.events {
        self::event(tx, event).await?;
    }
    Ok(())
}

/// Inserts new tasks. A task that was pruned is dropped with its events.
async fn adopt(tx: &mut Tx, applied: &mut Applied) -> Result<(), Error> {
    let mut gone = Vec::new();
    for entry in applied.entries.iter_mut().filter(|entry| entry.new) {
        let task = &entry.task;
        let row = sqlx::query(ADOPT)
            .bind(task.submitted_at.0)
            .bind(task.priority.get())
            .bind(task.id.as_str())
            .bind(task.phase.as_str())
            .bind(&task.status)
            .bind(&task.name)
            .bind(&task.queue)
            .bind(task.root_id.as_ref().map(TaskId::as_str))
            .bind(task.parent_id.as_ref().map(TaskId::as_str))
            .bind(task.group_id.as_ref().map(GroupId::as_str))
            .bind(&task.argsrepr)
            .bind(&task.kwargsrepr)
            .bind(task.finished_at.map(|at| at.0))
            .bind(labels_text(&task.labels))
            .bind(options_text(&task.options))
            .fetch_optional(&mut **tx)
            .await?;
        match row {
            Some(row) => {
                entry.task.no = row.try_get(0)?;
                sqlx::query(START_UNFINISHED).bind(entry.task.no).bind(false).execute(&mut **tx).await?;
            }
            None => gone.push(entry.task.id.clone()),
        }
    }
    applied.forget(&gone);
    applied.number_events();
    Ok(())
}

async fn update(tx: &mut Tx, entry: &Entry) -> Result<(), Error> {
    let task = &entry.task;
    sqlx::query(UPDATE)
        .bind(task.no)
        .bind(task.phase.as_str())
        .bind(&task.status)
        .bind(task.seq)
        .bind(task.delivery)
        .bind(task.retries)
        .bind(&task.worker)
        .bind(task.queued_at.map(|at| at.0))
        .bind(task.received_at.map(|at| at.0))
        .bind(task.started_at.map(|at| at.0))
        .bind(task.finished_at.map(|at| at.0))
        .bind(task.due_at.map(|at| at.0))
        .bind(task.runtime)
        .bind(task.corrected)
        .bind(&task.reason)
        .bind(task.progress.as_ref().map(|json| json.get()))
        .bind(task.children.as_ref().map(|json| json.get()))
        .bind(entry.outcome)
        .bind(task.result.as_ref().map(|json| json.get()))
        .bind(task.failure.as_ref().map(|failure| failure.kind.as_str()))
        .bind(task.failure.as_ref().map(|failure| failure.message.as_str()))
        .bind(&task.traceback)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Writes new data of an adopted task: names, queue, priority, parent and group.
async fn complete(tx: &mut Tx, entry: &Entry) -> Result<(), Error> {
    let task = &entry.task;
    sqlx::query(COMPLETE)
        .bind(task.no)
        .bind(&task.name)
        .bind(&task.queue)
        .bind(task.root_id.as_ref().map(TaskId::as_str))
        .bind(task.parent_id.as_ref().map(TaskId::as_str))
        .bind(task.group_id.as_ref().map(GroupId::as_str))
        .bind(&task.argsrepr)
        .bind(&task.kwargsrepr)
        .bind(task.priority.get())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Updates `unfinished` and `trouble` to match the phase.
async fn follow_phase(tx: &mut Tx, entry: &Entry) -> Result<(), Error> {
    let task = &entry.task;
    let (before, phase) = (entry.before, task.phase);
    if phase != Phase::Queued && before != phase {
        sqlx::query(TAKEN).bind(task.no).execute(&mut **tx).await?;
    }
    if phase.is_final() && (entry.new || !before.is_final()) {
        sqlx::query(FINISH).bind(task.no).execute(&mut **tx).await?;
        sqlx::query(LET_GO).bind(task.no).execute(&mut **tx).await?;
        sqlx::query(FREE).bind(task.id.as_str()).execute(&mut **tx).await?;
    }
    let place = |phase: Phase| (phase.is_at_worker(), phase == Phase::Waiting);
    if !phase.is_final() && (entry.new || place(before) != place(phase)) {
        let (at_worker, waits) = place(phase);
        sqlx::query(STANDS).bind(task.no).bind(at_worker).bind(waits).execute(&mut **tx).await?;
    }
    if !phase.is_final() || (before == phase && !entry.new) {
        return Ok(());
    }
    if phase == Phase::Succeeded {
        sqlx::query(NO_TROUBLE).bind(task.no).execute(&mut **tx).await?;
    } else {
        sqlx::query(TROUBLE).bind(task.no).bind(phase.as_str()).execute(&mut **tx).await?;
    }
    Ok(())
}

pub(super) async fn event(tx: &mut Tx, event: &Event) -> Result<(), Error> {
    sqlx::query(EVENT)
        .bind(event.task_no)
        .bind(event.seq)
        .bind(event.at.0)
        .bind(event.delivery)
        .bind(event.retries)
        .bind(event.corrected)
        .bind(event.phase.as_str())
        .bind(clean(&event.status).into_owned())
        .bind(&event.worker)
        .bind(&event.reason)
        .bind(event.meta.as_ref().map(|json| json.get()))
        .execute(&mut **tx)
        .await?;
    Ok(())
}
