//! Schedules: edits guarded by the version, and runs by hand. The adapter's `firing` moves rows forward and submits their ticks.

use async_trait::async_trait;
use sqlx::Row;

use super::dialect::{Adapter, AdapterRow, locking};
use super::{audit, firing, insert};
use crate::schedules::{read_schedule_row, repetition, run, schedule_columns, settle};
use crate::statements::statements;
use crate::{Created, Cursor, Edit, Error, Fired, Firing, Firings, NewRun, Page, Run, Schedule, Schedules, Submission};
use celery::task::TaskId;
use runtime::clock::Time;

statements! {
    CREATE = concat!(
        "insert into schedule (",
        schedule_columns!(),
        ") values ($1, $2, $3, $4, $5, $6, $7, $8, $9, null, null, null, null, null, $10, $11) on conflict do nothing"
    );
    SEED =
        "insert into schedule_seed (name, seeded_at) values ($1, $2) on conflict do nothing";
    SCHEDULE = concat!("select ", schedule_columns!(), " from schedule where name = $1");
    SCHEDULES =
        concat!("select ", schedule_columns!(), " from schedule where name > $1 order by name limit $2");
    EDIT = "update schedule set version = version + 1, updated_at = $4, document = $5, paused = $6, \
         anchor_at = $7, next_run_at = $8, due_at = $9 \
         where schedule_id = $1 and version = $2 and next_run_at is not distinct from $3 returning version";
    DELETE =
        "delete from schedule where schedule_id = $1 and (cast($2 as bigint) is null or version = $2)";
    DELETE_RUNS = "delete from schedule_run where schedule_id = $1";
    UPCOMING =
        concat!("select ", schedule_columns!(), " from schedule where due_at <= $1 order by due_at limit $2");
    RUNS = "select run_no, scheduled_at, fired_at, outcome, reason, task_id from schedule_run \
         where schedule_id = $1 and run_no < $2 order by run_no desc limit $3";
    /// The oldest rows have the lowest numbers.
    PRUNE = "delete from schedule_run where run_no in (\
         select run_no from (select run_no, fired_at from schedule_run order by run_no limit $2) oldest where fired_at < $1)";
    LOCK = concat!("select 1 from schedule where schedule_id = $1", locking!());
}

#[async_trait]
impl Schedules for Adapter {
    async fn create_schedule(&self, schedule: &Schedule, seed: bool) -> Result<Created, Error> {
        let mut tx = self.begin().await?;
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
        let row = sqlx::query(SCHEDULE).bind(name).fetch_optional(self.reads()).await?;
        row.as_ref().map(schedule).transpose()
    }

    async fn schedules(&self, after: Option<&str>, limit: i64) -> Result<Vec<Schedule>, Error> {
        let rows = sqlx::query(SCHEDULES).bind(after.unwrap_or_default()).bind(limit).fetch_all(self.reads()).await?;
        rows.iter().map(schedule).collect()
    }

    async fn edit_schedule(&self, id: &str, edit: &Edit) -> Result<Option<i64>, Error> {
        let mut tx = self.begin().await?;
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
        let mut tx = self.begin().await?;
        let gone = sqlx::query(DELETE).bind(id).bind(expected).execute(&mut *tx).await?.rows_affected() == 1;
        if gone {
            sqlx::query(DELETE_RUNS).bind(id).execute(&mut *tx).await?;
        }
        audit::open_current(&mut tx).await?;
        tx.commit().await?;
        Ok(gone)
    }

    async fn upcoming(&self, until: Time, limit: i64) -> Result<Vec<Schedule>, Error> {
        let rows = sqlx::query(UPCOMING).bind(until.0).bind(limit).fetch_all(self.reads()).await?;
        rows.iter().map(schedule).collect()
    }

    async fn still_running(&self, firings: &[Firings]) -> Result<Vec<(String, TaskId)>, Error> {
        firing::still_running(self, firings).await
    }

    async fn fire(&self, firings: &[Firing], at: Time) -> Result<Vec<Option<Fired>>, Error> {
        firing::fire(self, firings, at).await
    }

    async fn run_schedule(&self, id: &str, run: &NewRun) -> Result<Option<Fired>, Error> {
        let batch: Vec<Submission> = run.submission.iter().cloned().collect();
        for _ in 0..insert::MAX_ATTEMPTS {
            let mut tx = self.begin().await?;
            if sqlx::query(LOCK).bind(id).fetch_optional(&mut *tx).await?.is_none() {
                return Ok(None);
            }
            let Some(answers) = self.insert_within(&mut tx, &batch, true).await? else {
                tx.rollback().await?;
                continue;
            };
            if let Some(fired) = repetition(&answers) {
                tx.rollback().await?;
                return Ok(Some(fired));
            }
            let (rows, last, fired) = settle(std::slice::from_ref(run), &mut answers.into_iter());
            firing::note(&mut tx, id, &last, &rows).await?;
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
            .fetch_all(self.reads())
            .await?;
        let mut found = rows.iter().map(run_of).collect::<Result<Vec<Run>, Error>>()?;
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|run| Cursor(run.no));
        Ok((found, next))
    }

    async fn prune_runs(&self, before: Time, limit: i64) -> Result<i64, Error> {
        let gone = sqlx::query(PRUNE).bind(before.0).bind(limit).execute(self.writes()).await?.rows_affected();
        Ok(i64::try_from(gone).unwrap_or(i64::MAX))
    }
}

fn schedule(row: &AdapterRow) -> Result<Schedule, Error> {
    read_schedule_row!(row).try_into()
}

fn run_of(row: &AdapterRow) -> Result<Run, Error> {
    let times = (row.try_get(1)?, row.try_get(2)?);
    run(row.try_get(0)?, times, row.try_get(3)?, row.try_get(4)?, row.try_get(5)?)
}
