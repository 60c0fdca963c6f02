//! The outbox outside of passes: puts tasks back into it, adds remarks to their histories, and counts those that wait.

use sqlx::Row;

use super::dialect::Adapter;
use super::{learn, outbox_rows};
use crate::applied::Applied;
use crate::statements::statements;
use crate::{Backlog, Error, Event};
use celery::task::TaskId;
use runtime::clock::Time;

statements! {
    BACKLOG = "select count(*), min(accepted_at) from outbox where wake_at <= $1";
    NEXT_DUE = "select min(wake_at) from outbox where wake_at > $1";
}

pub(super) async fn backlog(adapter: &Adapter, now: Time) -> Result<Backlog, Error> {
    let row = sqlx::query(BACKLOG).bind(now.0).fetch_one(adapter.reads()).await?;
    Ok(Backlog {
        due: row.try_get::<i64, _>(0)? + adapter.count_outside(now).await?,
        oldest: row.try_get::<Option<i64>, _>(1)?.map(Time),
    })
}

pub(super) async fn next_due(adapter: &Adapter, now: Time) -> Result<Option<Time>, Error> {
    let next: Option<i64> = sqlx::query(NEXT_DUE).bind(now.0).fetch_one(adapter.reads()).await?.try_get(0)?;
    Ok(next.filter(|&at| at != i64::MAX).map(Time))
}

pub(super) async fn requeue(
    adapter: &Adapter,
    asked: &[(TaskId, i64)],
    reason: &str,
    at: Time,
) -> Result<Vec<Event>, Error> {
    let ids: Vec<&TaskId> = asked.iter().map(|(id, _)| id).collect();
    let mut tx = adapter.begin().await?;
    outbox_rows::lock(&mut tx, &ids).await?;
    let mut found = learn::lock(&mut tx, &ids).await?;
    let numbers: Vec<i64> = found.iter().map(|task| task.no).collect();
    let with_messages = outbox_rows::with_messages(&mut tx, &numbers).await?;
    found.retain(|task| with_messages.contains(&task.no));
    let (mut applied, places) = Applied::requeued(found, asked, reason, at);
    let numbers: Vec<i64> = places.iter().map(|(number, _)| *number).collect();
    outbox_rows::remove(&mut tx, &numbers).await?;
    adapter.save(&mut tx, &mut applied, 0).await?;
    outbox_rows::remember(&mut tx, &places, at).await?;
    tx.commit().await?;
    Ok(applied.events)
}

pub(super) async fn remark(adapter: &Adapter, ids: &[TaskId], reason: &str, at: Time) -> Result<Vec<Event>, Error> {
    let mut tx = adapter.begin().await?;
    let mut applied = Applied::new(learn::lock(&mut tx, &ids.iter().collect::<Vec<_>>()).await?);
    for id in ids {
        applied.remark(id, reason, at);
    }
    adapter.save(&mut tx, &mut applied, 0).await?;
    tx.commit().await?;
    Ok(applied.events)
}
