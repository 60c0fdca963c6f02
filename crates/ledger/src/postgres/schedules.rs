//! Schedules: edits guarded by the version, and the one transaction that moves rows forward and submits their ticks.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::schedules::{Last, MOST_AHEAD, RunRow, read_schedule_row, repetition, run, schedule_columns, settle};
use crate::statements::statements;
use crate::{Created, Cursor, Edit, Error, Fired, Firing, Firings, NewRun, Page, Run, Schedule, Schedules, Submission};
use celery::task::TaskId;
use runtime::clock::{self, Time};

use super::pool::{self, Tx, is_deadlock};
use super::{PostgresLedger, Store, audit, insert};

statements! {
    CREATE = concat!(
        "insert into taskgate.schedule (",
        schedule_columns!(),
        ") values ($1, $2, $3, $4, $5, $6, $7, $8, $9, null, null, null, null, null, $10, $11) on conflict do nothing"
    );
    SEED =
        "insert into taskgate.schedule_seed (name, seeded_at) values ($1, $2) on conflict do nothing";
    SCHEDULE = concat!("select ", schedule_columns!(), " from taskgate.schedule where name = $1");
    SCHEDULES =
        concat!("select ", schedule_columns!(), " from taskgate.schedule where name > $1 order by name limit $2");
    EDIT = "update taskgate.schedule set version = version + 1, updated_at = $4, document = $5, paused = $6, \
         anchor_at = $7, next_run_at = $8, due_at = $9 \
         where schedule_id = $1 and version = $2 and next_run_at is not distinct from $3 returning version";
    DELETE =
        "delete from taskgate.schedule where schedule_id = $1 and ($2::bigint is null or version = $2)";
    DELETE_RUNS = "delete from taskgate.schedule_run where schedule_id = $1";
    UPCOMING =
        concat!("select ", schedule_columns!(), " from taskgate.schedule where due_at <= $1 order by due_at limit $2");
    RUNNING = "select t.schedule, coalesce(t.given_id, cast(t.id as text)) \
         from unnest($1::text[], $2::bigint[], $3::bigint[]) as f(schedule, first_no, last_no) \
         join taskgate.task t on t.schedule = f.schedule and t.task_no between f.first_no and f.last_no \
         join taskgate.flight u on u.task_no = t.task_no";
    /// Skips rows that another replica has locked.
    CLAIM = "select s.schedule_id \
         from unnest($1::text[], $2::bigint[], $3::bigint[]) as f(id, version, tick) \
         join taskgate.schedule s on s.schedule_id = f.id where s.version = f.version and s.next_run_at = f.tick \
         order by s.schedule_id for update of s skip locked";
    LOCK = "select 1 from taskgate.schedule where schedule_id = $1 for update";
    ADVANCE = "update taskgate.schedule s set next_run_at = f.next_run_at, due_at = f.due_at, last_tick_at = f.tick \
         from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) as f(id, tick, next_run_at, due_at) \
         where s.schedule_id = f.id";
    RAN = "update taskgate.schedule s set last_run_at = f.run_at, last_task_id = f.task_id, \
         last_first_no = f.first_no, last_last_no = f.last_no \
         from unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[]) as f(id, run_at, task_id, first_no, last_no) \
         where s.schedule_id = f.id";
    RUN = "insert into taskgate.schedule_run (schedule_id, scheduled_at, fired_at, outcome, task_id, reason) \
         select * from unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[])";
    RUNS = "select run_no, scheduled_at, fired_at, outcome, reason, task_id from taskgate.schedule_run \
         where schedule_id = $1 and run_no < $2 order by run_no desc limit $3";
    /// The oldest rows have the lowest numbers.
    PRUNE = "delete from taskgate.schedule_run where run_no in (\
         select run_no from (select run_no, fired_at from taskgate.schedule_run order by run_no limit $2) oldest where fired_at < $1)";
}

#[async_trait]
impl Schedules for PostgresLedger {
    async fn create_schedule(&self, schedule: &Schedule, seed: bool) -> Result<Created, Error> {
        let mut tx = pool::begin(&self.pool).await?;
        if seed {
            let seeded = sqlx::query(SEED).bind(&schedule.name).bind(schedule.created_at.0).execute(&mut *tx).await?;
            if seeded.rows_affected() == 0 {
                return Ok(Created::SeededBefore);
            }
        }
        let created = sqlx::query(CREATE)
            .bind(&schedule.id)
            .bind(&schedule.name)
            .bind(schedule.version)
            .bind(schedule.paused)
            .bind(schedule.created_at.0)
            .bind(schedule.updated_at.0)
            .bind(schedule.anchor_at.0)
            .bind(schedule.next.map(|next| next.tick.0))
            .bind(schedule.next.map(|next| next.due_at.0))
            .bind(schedule.document.get())
            .bind(&schedule.namespace)
            .execute(&mut *tx)
            .await?;
        audit::open_current(&mut tx).await?;
        tx.commit().await?;
        Ok(if created.rows_affected() == 1 { Created::Done } else { Created::NameTaken })
    }

    async fn schedule(&self, name: &str) -> Result<Option<Schedule>, Error> {
        let row = sqlx::query(SCHEDULE).bind(name).fetch_optional(&self.pool).await?;
        row.as_ref().map(schedule).transpose()
    }

    async fn schedules(&self, after: Option<&str>, limit: i64) -> Result<Vec<Schedule>, Error> {
        let rows = sqlx::query(SCHEDULES).bind(after.unwrap_or_default()).bind(limit).fetch_all(&self.pool).await?;
        rows.iter().map(schedule).collect()
    }

    async fn edit_schedule(&self, id: &str, edit: &Edit) -> Result<Option<i64>, Error> {
        let mut tx = pool::begin(&self.pool).await?;
        let row = sqlx::query(EDIT)
            .bind(id)
            .bind(edit.expected)
            .bind(edit.seen.map(|at| at.0))
            .bind(edit.at.0)
            .bind(edit.document.get())
            .bind(edit.paused)
            .bind(edit.anchor_at.0)
            .bind(edit.next.map(|next| next.tick.0))
            .bind(edit.next.map(|next| next.due_at.0))
            .fetch_optional(&mut *tx)
            .await?;
        audit::open_current(&mut tx).await?;
        tx.commit().await?;
        row.map(|row| Ok(row.try_get(0)?)).transpose()
    }

    async fn delete_schedule(&self, id: &str, expected: Option<i64>) -> Result<bool, Error> {
        let mut tx = pool::begin(&self.pool).await?;
        let gone = sqlx::query(DELETE).bind(id).bind(expected).execute(&mut *tx).await?.rows_affected() == 1;
        if gone {
            sqlx::query(DELETE_RUNS).bind(id).execute(&mut *tx).await?;
        }
        audit::open_current(&mut tx).await?;
        tx.commit().await?;
        Ok(gone)
    }

    async fn upcoming(&self, until: Time, limit: i64) -> Result<Vec<Schedule>, Error> {
        let rows = sqlx::query(UPCOMING).bind(until.0).bind(limit).fetch_all(&self.pool).await?;
        rows.iter().map(schedule).collect()
    }

    async fn still_running(&self, firings: &[Firings]) -> Result<Vec<(String, TaskId)>, Error> {
        let rows = sqlx::query(RUNNING)
            .bind(firings.iter().map(|firing| firing.schedule.as_str()).collect::<Vec<_>>())
            .bind(firings.iter().map(|firing| firing.first_no).collect::<Vec<_>>())
            .bind(firings.iter().map(|firing| firing.last_no).collect::<Vec<_>>())
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let id = TaskId::parse(row.try_get::<&str, _>(1)?);
                let corrupt = |_| Error::Corrupt { table: "task", column: "task_id", row: String::new() };
                Ok((row.try_get(0)?, id.map_err(corrupt)?))
            })
            .collect()
    }

    async fn fire(&self, firings: &[Firing], at: Time) -> Result<Vec<Option<Fired>>, Error> {
        for attempt in 0..insert::MAX_ATTEMPTS {
            match try_fire(&self.store, firings, at, attempt > 0).await {
                Ok(Some(fired)) => return Ok(fired),
                Ok(None) => {}
                Err(error) if is_deadlock(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Refused("a firing met a unique violation that no look-up explains".into()))
    }

    async fn run_schedule(&self, id: &str, run: &NewRun) -> Result<Option<Fired>, Error> {
        let batch: Vec<Submission> = run.submission.iter().cloned().collect();
        for _ in 0..insert::MAX_ATTEMPTS {
            let mut tx = pool::begin(&self.pool).await?;
            if sqlx::query(LOCK).bind(id).fetch_optional(&mut *tx).await?.is_none() {
                return Ok(None);
            }
            let Some(answers) = insert::within(&mut tx, &self.store, &batch, true).await? else {
                tx.rollback().await?;
                continue;
            };
            if let Some(fired) = repetition(&answers) {
                tx.rollback().await?;
                return Ok(Some(fired));
            }
            let (rows, last, fired) = settle(std::slice::from_ref(run), &mut answers.into_iter());
            ran(&mut tx, &[(id, last)]).await?;
            runs(&mut tx, &rows.iter().map(|row| (id, row)).collect::<Vec<_>>()).await?;
            audit::open_current(&mut tx).await?;
            tx.commit().await?;
            return Ok(Some(fired));
        }
        Err(Error::Refused("a run met a unique violation that no look-up explains".into()))
    }

    async fn runs(&self, schedule_id: &str, page: &Page) -> Result<(Vec<Run>, Option<Cursor>), Error> {
        let before = page.after.map_or(i64::MAX, |cursor| cursor.0);
        let rows = sqlx::query(RUNS)
            .bind(schedule_id)
            .bind(before)
            .bind(page.limit.saturating_add(1))
            .fetch_all(&self.pool)
            .await?;
        let mut found = rows.iter().map(run_of).collect::<Result<Vec<Run>, Error>>()?;
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|run| Cursor(run.no));
        Ok((found, next))
    }

    async fn prune_runs(&self, before: Time, limit: i64) -> Result<i64, Error> {
        let gone = sqlx::query(PRUNE).bind(before.0).bind(limit).execute(&self.pool).await?.rows_affected();
        Ok(i64::try_from(gone).unwrap_or(i64::MAX))
    }
}

fn schedule(row: &PgRow) -> Result<Schedule, Error> {
    read_schedule_row!(row).try_into()
}

fn run_of(row: &PgRow) -> Result<Run, Error> {
    let times = (row.try_get(1)?, row.try_get(2)?);
    run(row.try_get(0)?, times, row.try_get(3)?, row.try_get(4)?, row.try_get(5)?)
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
    ran(&mut tx, &lasts).await?;
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

async fn ran(tx: &mut Tx, lasts: &[(&str, Last)]) -> Result<(), Error> {
    let ran: Vec<&(&str, Last)> = lasts.iter().filter(|(_, last)| last.run_at.is_some()).collect();
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
