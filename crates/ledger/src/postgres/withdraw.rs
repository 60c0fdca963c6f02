//! Withdraws a task before it is published.
//!
//! A pass over the outbox locks its rows while it publishes. So a withdrawal first deletes the row, for which it waits for the pass. If there
//! is no row, it locks the task and checks again, because a pass may have put the task into the outbox meanwhile.

use crate::applied::Applied;
use crate::statements::statements;
use crate::{Error, News, Withdrawn};
use celery::task::TaskId;

use super::{Store, learn, numbers, pool, save, tasks};

statements! {
    TAKE = "delete from taskgate.outbox where task_no = any($1)";
    IS_THERE = "select 1 from taskgate.outbox where task_no = $1";
}

pub(super) async fn withdraw(store: &Store, id: &TaskId, news: News) -> Result<Withdrawn, Error> {
    loop {
        if let Some(withdrawn) = try_withdraw(store, id, &news).await? {
            return Ok(withdrawn);
        }
    }
}

/// `None` when a pass put the task into the outbox between the two checks: the next attempt waits for it.
async fn try_withdraw(store: &Store, id: &TaskId, news: &News) -> Result<Option<Withdrawn>, Error> {
    let mut tx = pool::begin(&store.pool).await?;
    let found: Vec<i64> = tasks::numbers_of(&mut tx, &numbers::keys([id])).await?.into_values().collect();
    let taken = sqlx::query(TAKE).bind(found).execute(&mut *tx).await?.rows_affected() == 1;
    let Some(task) = learn::lock(&mut tx, &[id]).await?.pop() else { return Ok(Some(Withdrawn::Unknown)) };
    if task.phase.is_final() {
        tx.rollback().await?;
        return Ok(Some(Withdrawn::Finished(Box::new(task))));
    }
    if !task.phase.is_ours() || task.is_replaced() {
        tx.rollback().await?;
        return Ok(Some(Withdrawn::Published(Box::new(task))));
    }
    if !taken && sqlx::query(IS_THERE).bind(task.no).fetch_optional(&mut *tx).await?.is_some() {
        tx.rollback().await?;
        return Ok(None);
    }
    let mut applied = Applied::new(vec![task]);
    applied.learn(news);
    save::save(&mut tx, store, &mut applied, 0).await?;
    tx.commit().await?;
    Ok(Some(Withdrawn::Done(applied.events)))
}
