//! Submissions: one transaction for the batch. Only one connection writes, so ids and keys that the look-up finds free stay free.

use sqlx::Row;

use crate::admission::{Taken, judge, refusing_keys};
use crate::rows::{label_rows, labels_text, options_text, short};
use crate::statements::statements;
use crate::{Conflict, Error, Event, Inserted, NewTask, Submission};
use celery::task::{GroupId, Phase, TaskId};

use super::pool::{Pools, Tx, list};
use super::save;
use super::{dags, fan_out, limits};

statements! {
    TASK = "insert into task (submitted_at, due_at, expires_at, seq, delivery, retries, group_index, priority, \
         ignore_result, adopted, corrected, task_id, phase, status, name, queue, root_id, parent_id, group_id, retry_of, schedule, \
         labels, options) values ($1, $2, $3, 1, 1, 0, $4, $5, $6, 0, 0, $7, $8, 'PENDING', $9, $10, $11, $12, $13, $14, $15, $16, \
         $17) returning task_no";
    MESSAGE = "insert into message (task_no, headers, body) values ($1, $2, $3)";
    OUTBOX = "insert into outbox (task_no, wake_at, accepted_at, queue, line, rank, share, gate, gate_max) \
         values ($1, $2, $3, $4, case when $5 is not null then $4 end, $5, case when $5 is not null then '' end, $6, $7)";
    LABEL = "insert into label (key, value, task_no) values ($1, $2, $3)";
    EDGE = "insert into edge (from_no, to_no, kind) values ($1, $2, $3) on conflict do nothing";
    GROUP = "insert into task_group (group_id, root_id, total, chord_size, submitted_at, structure) \
         values ($1, $2, $3, $4, $5, $6)";
    RETRIED = "update task set retried_as = $2 where task_id = $1";
    /// An expired key is free, so it is replaced.
    IDEMPOTENCY = "insert or replace into idempotency (scope, key, fingerprint, answer, expires_at) \
         values ($1, $2, $3, $4, $5)";
    UNIQUE = "insert or replace into unique_key (key, task_id, expires_at) values ($1, $2, $3)";
    TAKEN_TASKS = "select task_id from task where task_id in (select value from json_each($1))";
    TAKEN_GROUPS =
        "select group_id from task_group where group_id in (select value from json_each($1))";
    TAKEN_IDEMPOTENCY =
        "select fingerprint, answer from idempotency where scope = $1 and key = $2 and expires_at > $3";
    TAKEN_UNIQUE = "select task_id from unique_key where key = $1 and expires_at > $2";
}

/// There is one writer, so no other transaction takes an id meanwhile.
pub(super) const MAX_ATTEMPTS: usize = 1;

pub(super) type Answers = Vec<Result<Inserted, Conflict>>;

pub(super) async fn insert(pools: &Pools, batch: &[Submission]) -> Result<Answers, Error> {
    let mut tx = pools.begin().await?;
    let answers = within(&mut tx, batch).await?;
    tx.commit().await?;
    Ok(answers)
}

/// The insert as part of a transaction.
pub(super) async fn within(tx: &mut Tx, batch: &[Submission]) -> Result<Answers, Error> {
    let verdicts = judge(batch, taken(tx, batch).await?);
    let mut answers = Vec::with_capacity(batch.len());
    for (submission, refused) in batch.iter().zip(verdicts) {
        answers.push(match refused {
            Some(conflict) => Err(conflict),
            None => Ok(write(tx, submission).await?),
        });
    }
    Ok(answers)
}

async fn taken(tx: &mut Tx, batch: &[Submission]) -> Result<Taken, Error> {
    let mut taken = Taken::default();
    let ids: Vec<&str> = batch.iter().flat_map(|s| &s.tasks).map(|task| task.id.as_str()).collect();
    for row in sqlx::query(TAKEN_TASKS).bind(list(&ids)).fetch_all(&mut **tx).await? {
        taken.tasks.insert(row.try_get(0)?);
    }
    let groups: Vec<&str> = batch.iter().flat_map(|s| &s.groups).map(|group| group.id.as_str()).collect();
    for row in sqlx::query(TAKEN_GROUPS).bind(list(&groups)).fetch_all(&mut **tx).await? {
        taken.groups.insert(row.try_get(0)?);
    }
    let now = batch.iter().map(|submission| submission.at.0).max().unwrap_or_default();
    for key in batch.iter().filter_map(|submission| submission.idempotency.as_ref()) {
        let query = sqlx::query(TAKEN_IDEMPOTENCY).bind(&key.scope).bind(&key.key).bind(now);
        if let Some(row) = query.fetch_optional(&mut **tx).await? {
            taken.idempotency.insert((key.scope.clone(), key.key.clone()), (row.try_get(0)?, row.try_get(1)?));
        }
    }
    for key in batch.iter().filter_map(|submission| submission.unique.as_ref()) {
        if let Some(row) = sqlx::query(TAKEN_UNIQUE).bind(&key.key).bind(now).fetch_optional(&mut **tx).await? {
            taken.unique.insert(key.key.clone(), row.try_get(0)?);
        }
    }
    let refusing = refusing_keys(batch);
    if !refusing.is_empty() {
        taken.keys = limits::decide(tx, &refusing).await?;
    }
    Ok(taken)
}

async fn write(tx: &mut Tx, submission: &Submission) -> Result<Inserted, Error> {
    let mut inserted = Inserted { task_nos: Vec::new() };
    for task in &submission.tasks {
        let no = self::task(tx, submission, task).await?;
        save::event(tx, &Event::accepted(no, task, submission.at)).await?;
        inserted.task_nos.push(no);
    }
    extras(tx, submission, &inserted.task_nos).await?;
    Ok(inserted)
}

async fn task(tx: &mut Tx, submission: &Submission, task: &NewTask) -> Result<i64, Error> {
    let row = sqlx::query(TASK)
        .bind(submission.at.0)
        .bind(task.due_at.map(|at| at.0))
        .bind(task.expires_at.map(|at| at.0))
        .bind(task.group_index)
        .bind(task.priority.get())
        .bind(task.ignore_result)
        .bind(task.id.as_str())
        .bind(task.phase.as_str())
        .bind(task.name.as_str())
        .bind(task.queue.as_str())
        .bind((task.root_id != task.id).then_some(task.root_id.as_str()))
        .bind(task.parent_id.as_ref().map(TaskId::as_str))
        .bind(task.group_id.as_ref().map(GroupId::as_str))
        .bind(task.retry_of.as_ref().map(TaskId::as_str))
        .bind(task.schedule.as_deref().map(short))
        .bind(labels_text(&task.labels))
        .bind(options_text(&task.options))
        .fetch_one(&mut **tx)
        .await?;
    let no: i64 = row.try_get(0)?;
    sqlx::query(MESSAGE).bind(no).bind(&task.headers).bind(&task.body).execute(&mut **tx).await?;
    sqlx::query(save::START_UNFINISHED).bind(no).bind(task.phase == Phase::Waiting).execute(&mut **tx).await?;
    if task.phase != Phase::Waiting {
        let wake_at = task.wake_at(submission.at);
        let outbox = sqlx::query(OUTBOX).bind(no).bind(wake_at).bind(submission.at.0).bind(task.queue.as_str());
        let gate = task.gate();
        let outbox = outbox.bind(task.rank()).bind(gate.as_ref().map(|gate| gate.name().to_owned()));
        outbox.bind(gate.and_then(|gate| gate.max())).execute(&mut **tx).await?;
    }
    for (key, value) in label_rows(&task.labels) {
        sqlx::query(LABEL).bind(key).bind(value).bind(no).execute(&mut **tx).await?;
    }
    if let Some(old) = &task.retry_of {
        sqlx::query(RETRIED).bind(old.as_str()).bind(task.id.as_str()).execute(&mut **tx).await?;
    }
    Ok(no)
}

async fn extras(tx: &mut Tx, submission: &Submission, numbers: &[i64]) -> Result<(), Error> {
    for edge in &submission.edges {
        let query = sqlx::query(EDGE).bind(numbers[edge.from]).bind(numbers[edge.to]).bind(edge.kind.as_str());
        query.execute(&mut **tx).await?;
    }
    for group in &submission.groups {
        sqlx::query(GROUP)
            .bind(group.id.as_str())
            .bind(group.root_id.as_str())
            .bind(group.total)
            .bind(group.chord_size)
            .bind(submission.at.0)
            .bind(group.structure.as_ref().map(|json| json.get()))
            .execute(&mut **tx)
            .await?;
    }
    fan_out::insert(tx, submission).await?;
    dags::insert(tx, submission, numbers).await?;
    if let Some(key) = &submission.idempotency {
        sqlx::query(IDEMPOTENCY)
            .bind(&key.scope)
            .bind(&key.key)
            .bind(&key.fingerprint)
            .bind(key.answer.get())
            .bind(key.expires_at.0)
            .execute(&mut **tx)
            .await?;
    }
    if let Some(key) = &submission.unique {
        let until = key.until.map_or(i64::MAX, |at| at.0);
        sqlx::query(UNIQUE).bind(&key.key).bind(key.task_id.as_str()).bind(until).execute(&mut **tx).await?;
    }
    Ok(())
}
