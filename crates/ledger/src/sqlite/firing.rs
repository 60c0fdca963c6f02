//! Firings: one transaction moves the rows of schedules forward and submits their ticks.

use sqlx::Row;

use super::dialect::{Adapter, Tx};
use super::insert;
use crate::schedules::{Last, MOST_AHEAD, RunRow, settle};
use crate::statements::statements;
use crate::{Error, Fired, Firing, Firings, NewRun, Submission};
use celery::task::TaskId;
use runtime::clock::{self, Time};

statements! {
    RUNNING = "select t.task_id from task t join unfinished u on u.task_no = t.task_no \
         where t.schedule = $1 and t.task_no between $2 and $3";
    CLAIM = "select 1 from schedule where schedule_id = $1 and version = $2 and next_run_at = $3";
    ADVANCE =
        "update schedule set next_run_at = $3, due_at = $4, last_tick_at = $2 where schedule_id = $1";
    RAN = "update schedule set last_run_at = $2, last_task_id = $3, last_first_no = $4, \
         last_last_no = $5 where schedule_id = $1";
    RUN = "insert into schedule_run (schedule_id, scheduled_at, fired_at, outcome, task_id, reason) \
         values ($1, $2, $3, $4, $5, $6)";
}

pub(super) async fn still_running(adapter: &Adapter, firings: &[Firings]) -> Result<Vec<(String, TaskId)>, Error> {
    let mut found = Vec::new();
    for firing in firings {
        let query = sqlx::query(RUNNING).bind(&firing.schedule).bind(firing.first_no).bind(firing.last_no);
        for row in query.fetch_all(adapter.reads()).await? {
            let corrupt = |_| Error::Corrupt { table: "task", column: "task_id", row: firing.schedule.clone() };
            let id = TaskId::parse(row.try_get::<&str, _>(0)?).map_err(corrupt)?;
            found.push((firing.schedule.clone(), id));
        }
    }
    Ok(found)
}

/// Does not wait for `at` inside the transaction, because it would block the only writer.
pub(super) async fn fire(adapter: &Adapter, firings: &[Firing], at: Time) -> Result<Vec<Option<Fired>>, Error> {
    tokio::time::sleep(at.since(clock::now()).min(MOST_AHEAD)).await;
    let mut tx = adapter.begin().await?;
    let mut fired = Vec::with_capacity(firings.len());
    for firing in firings {
        fired.push(fire_one(&mut tx, firing).await?);
    }
    tx.commit().await?;
    Ok(fired)
}

async fn fire_one(tx: &mut Tx, firing: &Firing) -> Result<Option<Fired>, Error> {
    let claim = sqlx::query(CLAIM).bind(&firing.schedule_id).bind(firing.version).bind(firing.expected.0);
    if claim.fetch_optional(&mut **tx).await?.is_none() {
        return Ok(None);
    }
    sqlx::query(ADVANCE)
        .bind(&firing.schedule_id)
        .bind(firing.last_tick_at.0)
        .bind(firing.next.map(|next| next.tick.0))
        .bind(firing.next.map(|next| next.due_at.0))
        .execute(&mut **tx)
        .await?;
    write(tx, &firing.schedule_id, &firing.runs).await.map(Some)
}

async fn write(tx: &mut Tx, id: &str, runs: &[NewRun]) -> Result<Fired, Error> {
    let batch: Vec<Submission> = runs.iter().filter_map(|run| run.submission.clone()).collect();
    let answers = insert::within(tx, &batch).await?;
    let (rows, last, fired) = settle(runs, &mut answers.into_iter());
    note(tx, id, &last, &rows).await?;
    Ok(fired)
}

/// Notes the last run of a schedule, and the rows of its runs.
pub(super) async fn note(tx: &mut Tx, id: &str, last: &Last, rows: &[RunRow]) -> Result<(), Error> {
    ran(tx, id, last).await?;
    for row in rows {
        insert_run(tx, id, row).await?;
    }
    Ok(())
}

async fn ran(tx: &mut Tx, id: &str, last: &Last) -> Result<(), Error> {
    let Some(run_at) = last.run_at else { return Ok(()) };
    sqlx::query(RAN)
        .bind(id)
        .bind(run_at.0)
        .bind(last.task_id.as_ref().map(TaskId::as_str))
        .bind(last.tasks.map(|tasks| tasks.0))
        .bind(last.tasks.map(|tasks| tasks.1))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn insert_run(tx: &mut Tx, id: &str, row: &RunRow) -> Result<(), Error> {
    sqlx::query(RUN)
        .bind(id)
        .bind(row.scheduled_at.0)
        .bind(row.fired_at.0)
        .bind(row.outcome.as_str())
        .bind(row.task_id.as_ref().map(TaskId::as_str))
        .bind(row.reason.as_deref())
        .execute(&mut **tx)
        .await?;
    Ok(())
}
