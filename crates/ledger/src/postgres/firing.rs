//! Firings: one transaction moves the rows of schedules forward and submits their ticks.

use sqlx::Row;

use super::dialect::Adapter;
use super::pool::{self, Tx, is_deadlock};
use super::{Store, insert};
use crate::schedules::{Last, MOST_AHEAD, RunRow, settle};
use crate::statements::statements;
use crate::{Error, Fired, Firing, Firings, Submission};
use celery::task::TaskId;
use runtime::clock::{self, Time};

statements! {
    RUNNING = "select t.schedule, coalesce(t.given_id, cast(t.id as text)) \
         from unnest($1::text[], $2::bigint[], $3::bigint[]) as f(schedule, first_no, last_no) \
         join taskgate.task t on t.schedule = f.schedule and t.task_no between f.first_no and f.last_no \
         join taskgate.flight u on u.task_no = t.task_no";
    /// Skips rows that another replica has locked.
    CLAIM = "select s.schedule_id \
         from unnest($1::text[], $2::bigint[], $3::bigint[]) as f(id, version, tick) \
         join taskgate.schedule s on s.schedule_id = f.id where s.version = f.version and s.next_run_at = f.tick \
         order by s.schedule_id for update of s skip locked";
    ADVANCE = "update taskgate.schedule s set next_run_at = f.next_run_at, due_at = f.due_at, last_tick_at = f.tick \
         from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) as f(id, tick, next_run_at, due_at) \
         where s.schedule_id = f.id";
    RAN = "update taskgate.schedule s set last_run_at = f.run_at, last_task_id = f.task_id, \
         last_first_no = f.first_no, last_last_no = f.last_no \
         from unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[]) as f(id, run_at, task_id, first_no, last_no) \
         where s.schedule_id = f.id";
    RUN = "insert into taskgate.schedule_run (schedule_id, scheduled_at, fired_at, outcome, task_id, reason) \
         select * from unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[])";
}

pub(super) async fn still_running(adapter: &Adapter, firings: &[Firings]) -> Result<Vec<(String, TaskId)>, Error> {
    let rows = sqlx::query(RUNNING)
        .bind(firings.iter().map(|firing| firing.schedule.as_str()).collect::<Vec<_>>())
        .bind(firings.iter().map(|firing| firing.first_no).collect::<Vec<_>>())
        .bind(firings.iter().map(|firing| firing.last_no).collect::<Vec<_>>())
        .fetch_all(adapter.reads())
        .await?;
    rows.iter()
        .map(|row| {
            let id = TaskId::parse(row.try_get::<&str, _>(1)?);
            let corrupt = |_| Error::Corrupt { table: "task", column: "task_id", row: String::new() };
            Ok((row.try_get(0)?, id.map_err(corrupt)?))
        })
        .collect()
}

pub(super) async fn fire(adapter: &Adapter, firings: &[Firing], at: Time) -> Result<Vec<Option<Fired>>, Error> {
    for attempt in 0..insert::MAX_ATTEMPTS {
        match try_fire(&adapter.store, firings, at, attempt > 0).await {
            Ok(Some(fired)) => return Ok(fired),
            Ok(None) => {}
            Err(error) if is_deadlock(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Refused("a firing met a unique violation that no look-up explains".into()))
}

/// Records a run by hand: as the last run of its schedule, and in rows of its own.
pub(super) async fn note(tx: &mut Tx, id: &str, last: &Last, rows: &[RunRow]) -> Result<(), Error> {
    ran(tx, &[(id, last)]).await?;
    runs(tx, &rows.iter().map(|row| (id, row)).collect::<Vec<_>>()).await
}

/// `None` after a conflict: the caller looks up taken ids and keys, and tries again.
async fn try_fire(
    store: &Store,
    firings: &[Firing],
    at: Time,
    look_up: bool,
) -> Result<Option<Vec<Option<Fired>>>, Error> {
    let mut tx = pool::begin(&store.pool).await?;
    let claimed = claim(&mut tx, firings).await?;
    let ours = || firings.iter().filter(|firing| claimed.contains(&firing.schedule_id));
    let submissions = || ours().flat_map(|firing| &firing.runs).filter_map(|run| run.submission.as_ref());
    let has_keys = submissions().any(|submission| submission.unique.is_some());
    let batch: Vec<Submission> = submissions().cloned().collect();
    let answers = match insert::within(&mut tx, store, &batch, look_up || has_keys).await {
        Ok(Some(answers)) => answers,
        lost => {
            // The rollback must complete: the next attempt would skip rows that are still locked.
            tx.rollback().await?;
            return lost.map(|_| None);
        }
    };
    let mut answers = answers.into_iter();
    let (mut rows, mut lasts, mut fired) = (Vec::new(), Vec::new(), Vec::with_capacity(firings.len()));
    for firing in firings {
        if !claimed.contains(&firing.schedule_id) {
            fired.push(None);
            continue;
        }
        let (settled, last, outcome) = settle(&firing.runs, &mut answers);
        let id = firing.schedule_id.as_str();
        rows.extend(settled.into_iter().map(|row| (id, row)));
        lasts.push((id, last));
        fired.push(Some(outcome));
    }
    advance(&mut tx, &ours().collect::<Vec<_>>()).await?;
    ran(&mut tx, &lasts.iter().map(|(id, last)| (*id, last)).collect::<Vec<_>>()).await?;
    runs(&mut tx, &rows.iter().map(|(id, row)| (*id, row)).collect::<Vec<_>>()).await?;
    // Everything except the commit is done, so the tick becomes visible at its time; after a crash before that, another replica fires it.
    tokio::time::sleep(at.since(clock::now()).min(MOST_AHEAD)).await;
    tx.commit().await?;
    Ok(Some(fired))
}

/// Locks the rows that still wait for the expected tick; skips rows that another replica has locked.
async fn claim(tx: &mut Tx, firings: &[Firing]) -> Result<std::collections::HashSet<String>, Error> {
    let rows = sqlx::query(CLAIM)
        .bind(firings.iter().map(|firing| firing.schedule_id.as_str()).collect::<Vec<_>>())
        .bind(firings.iter().map(|firing| firing.version).collect::<Vec<_>>())
        .bind(firings.iter().map(|firing| firing.expected.0).collect::<Vec<_>>())
        .fetch_all(&mut **tx)
        .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

async fn advance(tx: &mut Tx, firings: &[&Firing]) -> Result<(), Error> {
    sqlx::query(ADVANCE)
        .bind(firings.iter().map(|firing| firing.schedule_id.as_str()).collect::<Vec<_>>())
        .bind(firings.iter().map(|firing| firing.last_tick_at.0).collect::<Vec<_>>())
        .bind(firings.iter().map(|firing| firing.next.map(|next| next.tick.0)).collect::<Vec<_>>())
        .bind(firings.iter().map(|firing| firing.next.map(|next| next.due_at.0)).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn ran(tx: &mut Tx, lasts: &[(&str, &Last)]) -> Result<(), Error> {
    let ran: Vec<&(&str, &Last)> = lasts.iter().filter(|(_, last)| last.run_at.is_some()).collect();
    if ran.is_empty() {
        return Ok(());
    }
    sqlx::query(RAN)
        .bind(ran.iter().map(|(id, _)| *id).collect::<Vec<_>>())
        .bind(ran.iter().map(|(_, last)| last.run_at.map(|at| at.0)).collect::<Vec<_>>())
        .bind(ran.iter().map(|(_, last)| last.task_id.as_ref().map(TaskId::as_str)).collect::<Vec<_>>())
        .bind(ran.iter().map(|(_, last)| last.tasks.map(|tasks| tasks.0)).collect::<Vec<_>>())
        .bind(ran.iter().map(|(_, last)| last.tasks.map(|tasks| tasks.1)).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn runs(tx: &mut Tx, rows: &[(&str, &RunRow)]) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(RUN)
        .bind(rows.iter().map(|(id, _)| *id).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.scheduled_at.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.fired_at.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.outcome.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.task_id.as_ref().map(TaskId::as_str)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.reason.as_deref()).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    Ok(())
}
