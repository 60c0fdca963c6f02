//! Schedules: edits guarded by the version, and the one transaction that moves rows forward and submits their ticks.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::schedules::{Last, MOST_AHEAD, RunRow, read_schedule_row, repetition, run, schedule_columns, settle};
use crate::statements::statements;
use crate::{Created, Cursor, Edit, Error, Fired, Firing, Firings, NewRun, Page, Run, Schedule, Schedules, Submission};
use celery::task::TaskId;
use runtime::clock::{self, Time};

use super::pool::Tx;
use super::{SqliteLedger, audit, insert};

statements! {
    CREATE = concat!(
        "insert into schedule (",
        schedule_columns!(),
        ") values ($1, $2, $3, $4, $5, $6, $7, $8, $9, null, null, null, null, null, $10, $11) on conflict do nothing"
    );
    SEED = "insert into schedule_seed (name, seeded_at) values ($1, $2) on conflict do nothing";
    SCHEDULE = concat!("select ", schedule_columns!(), " from schedule where name = $1");
    SCHEDULES =
        concat!("select ", schedule_columns!(), " from schedule where name > $1 order by name limit $2");
    EDIT = "update schedule set version = version + 1, updated_at = $4, document = $5, paused = $6, \
         anchor_at = $7, next_run_at = $8, due_at = $9 \
         where schedule_id = $1 and version = $2 and next_run_at is $3 returning version";
    DELETE = "delete from schedule where schedule_id = $1 and ($2 is null or version = $2)";
    DELETE_RUNS = "delete from schedule_run where schedule_id = $1";
    UPCOMING =
        concat!("select ", schedule_columns!(), " from schedule where due_at <= $1 order by due_at limit $2");
    RUNNING = "select t.task_id from task t join unfinished u on u.task_no = t.task_no \
         where t.schedule = $1 and t.task_no between $2 and $3";
    CLAIM = "select 1 from schedule where schedule_id = $1 and version = $2 and next_run_at = $3";
    LOCK = "select 1 from schedule where schedule_id = $1";
    ADVANCE =
        "update schedule set next_run_at = $3, due_at = $4, last_tick_at = $2 where schedule_id = $1";
    RAN = "update schedule set last_run_at = $2, last_task_id = $3, last_first_no = $4, \
         last_last_no = $5 where schedule_id = $1";
    RUN = "insert into schedule_run (schedule_id, scheduled_at, fired_at, outcome, task_id, reason) \
         values ($1, $2, $3, $4, $5, $6)";
    RUNS = "select run_no, scheduled_at, fired_at, outcome, reason, task_id from schedule_run \
         where schedule_id = $1 and run_no < $2 order by run_no desc limit $3";
    /// The oldest rows have the lowest numbers.
    PRUNE = "delete from schedule_run where run_no in (\
         select run_no from (select run_no, fired_at from schedule_run order by run_no limit $2) where fired_at < $1)";
}

#[async_trait]
impl Schedules for SqliteLedger {
    async fn create_schedule(&self, schedule: &Schedule, seed: bool) -> Result<Created, Error> {
        let mut tx = self.pools.begin().await?;
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
        let row = sqlx::query(SCHEDULE).bind(name).fetch_optional(&self.pools.read).await?;
        row.as_ref().map(schedule).transpose()
    }

    async fn schedules(&self, after: Option<&str>, limit: i64) -> Result<Vec<Schedule>, Error> {
        let query = sqlx::query(SCHEDULES).bind(after.unwrap_or_default()).bind(limit);
        query.fetch_all(&self.pools.read).await?.iter().map(schedule).collect()
    }

    async fn edit_schedule(&self, id: &str, edit: &Edit) -> Result<Option<i64>, Error> {
        let mut tx = self.pools.begin().await?;
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
        let mut tx = self.pools.begin().await?;
        let gone = sqlx::query(DELETE).bind(id).bind(expected).execute(&mut *tx).await?.rows_affected() == 1;
        if gone {
            sqlx::query(DELETE_RUNS).bind(id).execute(&mut *tx).await?;
        }
        audit::open_current(&mut tx).await?;
        tx.commit().await?;
        Ok(gone)
    }

    async fn upcoming(&self, until: Time, limit: i64) -> Result<Vec<Schedule>, Error> {
        let query = sqlx::query(UPCOMING).bind(until.0).bind(limit);
        query.fetch_all(&self.pools.read).await?.iter().map(schedule).collect()
    }

    async fn still_running(&self, firings: &[Firings]) -> Result<Vec<(String, TaskId)>, Error> {
        let mut found = Vec::new();
        for firing in firings {
            let query = sqlx::query(RUNNING).bind(&firing.schedule).bind(firing.first_no).bind(firing.last_no);
            for row in query.fetch_all(&self.pools.read).await? {
                let corrupt = |_| Error::Corrupt { table: "task", column: "task_id", row: firing.schedule.clone() };
                let id = TaskId::parse(row.try_get::<&str, _>(0)?).map_err(corrupt)?;
                found.push((firing.schedule.clone(), id));
            }
        }
        Ok(found)
    }

    /// Does not wait for `at` inside the transaction, because it would block the only writer.
    async fn fire(&self, firings: &[Firing], at: Time) -> Result<Vec<Option<Fired>>, Error> {
        tokio::time::sleep(at.since(clock::now()).min(MOST_AHEAD)).await;
        let mut tx = self.pools.begin().await?;
        let mut fired = Vec::with_capacity(firings.len());
        for firing in firings {
            fired.push(fire_one(&mut tx, firing).await?);
        }
        tx.commit().await?;
        Ok(fired)
    }

    async fn run_schedule(&self, id: &str, run: &NewRun) -> Result<Option<Fired>, Error> {
        let mut tx = self.pools.begin().await?;
        if sqlx::query(LOCK).bind(id).fetch_optional(&mut *tx).await?.is_none() {
            return Ok(None);
        }
        let batch: Vec<Submission> = run.submission.iter().cloned().collect();
        let answers = insert::within(&mut tx, &batch).await?;
        if let Some(fired) = repetition(&answers) {
            return Ok(Some(fired));
        }
        let fired = note(&mut tx, id, std::slice::from_ref(run), answers).await?;
        audit::open_current(&mut tx).await?;
        tx.commit().await?;
        Ok(Some(fired))
    }

    async fn runs(&self, schedule_id: &str, page: &Page) -> Result<(Vec<Run>, Option<Cursor>), Error> {
        let before = page.after.map_or(i64::MAX, |cursor| cursor.0);
        let query = sqlx::query(RUNS).bind(schedule_id).bind(before).bind(page.limit.saturating_add(1));
        let rows = query.fetch_all(&self.pools.read).await?;
        let mut found = rows.iter().map(run_of).collect::<Result<Vec<Run>, Error>>()?;
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|run| Cursor(run.no));
        Ok((found, next))
    }

    async fn prune_runs(&self, before: Time, limit: i64) -> Result<i64, Error> {
        let gone = sqlx::query(PRUNE).bind(before.0).bind(limit).execute(&self.pools.write).await?.rows_affected();
        Ok(i64::try_from(gone).unwrap_or(i64::MAX))
    }
}

fn schedule(row: &SqliteRow) -> Result<Schedule, Error> {
    read_schedule_row!(row).try_into()
}

fn run_of(row: &SqliteRow) -> Result<Run, Error> {
    let times = (row.try_get(1)?, row.try_get(2)?);
    run(row.try_get(0)?, times, row.try_get(3)?, row.try_get(4)?, row.try_get(5)?)
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
    note(tx, id, runs, answers).await
}

async fn note(tx: &mut Tx, id: &str, runs: &[NewRun], answers: insert::Answers) -> Result<Fired, Error> {
    let (rows, last, fired) = settle(runs, &mut answers.into_iter());
    ran(tx, id, &last).await?;
    for row in &rows {
        insert_run(tx, id, row).await?;
    }
    Ok(fired)
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
