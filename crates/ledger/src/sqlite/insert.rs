//! Submissions: one transaction for the batch. Only one connection writes, so ids and keys that the look-up finds free stay free.

use sqlx::Row;

use crate::admission::{Taken, judge, refusing_keys};
use crate::rows::label_rows;
use crate::statements::statements;
use crate::{Conflict, Error, Inserted, NewTask, Submission};

use super::pool::{Pools, Tx, list};
use super::{dags, fan_out, insert_rows, limits};

statements! {
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
    let both = batch.iter().zip(&verdicts);
    let admitted: Vec<&Submission> = both.filter(|(_, refused)| refused.is_none()).map(|(one, _)| one).collect();
    let mut inserted = write(tx, &admitted).await?.into_iter();
    let answer = |refused: Option<Conflict>| match refused {
        Some(conflict) => Err(conflict),
        None => Ok(inserted.next().expect("one answer per admitted submission")),
    };
    Ok(verdicts.into_iter().map(answer).collect())
}

async fn taken(tx: &mut Tx, batch: &[Submission]) -> Result<Taken, Error> {
    let mut taken = Taken::default();
    let ids: Vec<&str> = batch.iter().flat_map(|s| &s.tasks).map(|task| task.id.as_str()).collect();
    for row in sqlx::query(TAKEN_TASKS).bind(list(&ids)).fetch_all(&mut **tx).await? {
        taken.tasks.insert(row.try_get(0)?);
    }
    let groups: Vec<&str> = batch.iter().flat_map(|s| &s.groups).map(|group| group.id.as_str()).collect();
    if !groups.is_empty() {
        for row in sqlx::query(TAKEN_GROUPS).bind(list(&groups)).fetch_all(&mut **tx).await? {
            taken.groups.insert(row.try_get(0)?);
        }
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

async fn write(tx: &mut Tx, batch: &[&Submission]) -> Result<Vec<Inserted>, Error> {
    let mut numbers = insert_rows::write(tx, batch).await?..;
    let mut all = Vec::with_capacity(batch.len());
    for submission in batch {
        let inserted = Inserted { task_nos: numbers.by_ref().take(submission.tasks.len()).collect() };
        for (task, no) in submission.tasks.iter().zip(&inserted.task_nos) {
            labels_and_origin(tx, task, *no).await?;
        }
        extras(tx, submission, &inserted.task_nos).await?;
        all.push(inserted);
    }
    Ok(all)
}

async fn labels_and_origin(tx: &mut Tx, task: &NewTask, no: i64) -> Result<(), Error> {
    for (key, value) in label_rows(&task.labels) {
        sqlx::query(LABEL).bind(key).bind(value).bind(no).execute(&mut **tx).await?;
    }
    if let Some(old) = &task.retry_of {
        sqlx::query(RETRIED).bind(old.as_str()).bind(task.id.as_str()).execute(&mut **tx).await?;
    }
    Ok(())
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
