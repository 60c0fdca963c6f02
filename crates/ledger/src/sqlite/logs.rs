//! Task logs: a row for lines that arrived together. The only writer numbers the lines.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{SqliteLedger, tasks};
use crate::Error;
use crate::logs::{Line, Logs, Piece, Standing, append};
use celery::task::TaskId;
use celery::task_log::TaskLog;
use runtime::clock::Time;

pub(super) const STANDING: &str = "select next_seq, bytes, began_at, closed from task_log \
     where task_no = $1 and attempt = $2 order by first_no desc limit 1";
pub(super) const LAST: &str = "select first_no + count from task_log where task_no = $1 order by first_no desc limit 1";
pub(super) const APPEND: &str = "insert into task_log \
     (task_no, first_no, count, attempt, next_seq, bytes, began_at, closed, at, lines) \
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
pub(super) const PIECES: &str = "select first_no, attempt, lines from task_log \
     where task_no = $1 and first_no + count > $2 + 1 and first_no > $2 - 20000 order by first_no limit $3";
pub(super) const PRUNE: &str =
    "delete from task_log where rowid in (select rowid from task_log where at < $1 order by at limit $2)";

#[async_trait]
impl Logs for SqliteLedger {
    async fn append_logs(&self, news: &[TaskLog], most: i64, now: Time) -> Result<Vec<TaskId>, Error> {
        let mut ids: Vec<TaskId> = news.iter().map(|one| one.uuid.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        let known = tasks::standing(&self.pools.read, &ids).await?;
        let mut grown: Vec<TaskId> = Vec::new();
        let mut tx = self.pools.begin().await?;
        for one in news {
            let Some(task) = known.iter().find(|task| task.id == one.uuid) else { continue };
            let found = sqlx::query(STANDING).bind(task.no).bind(one.retries).fetch_optional(&mut *tx).await?;
            let before = found.as_ref().map(standing).transpose()?;
            let Some((lines, after)) = append(before.as_ref(), one, most, now) else { continue };
            let next = sqlx::query(LAST).bind(task.no).fetch_optional(&mut *tx).await?;
            let first: i64 = next.map_or(Ok(1), |row| row.try_get(0))?;
            sqlx::query(APPEND)
                .bind(task.no)
                .bind(first)
                .bind(i32::try_from(lines.len()).unwrap_or(i32::MAX))
                .bind(one.retries)
                .bind(after.next_seq)
                .bind(after.bytes)
                .bind(after.began_at)
                .bind(after.closed)
                .bind(now.0)
                .bind(serde_json::to_string(&lines).expect("texts and numbers are JSON"))
                .execute(&mut *tx)
                .await?;
            grown.push(one.uuid.clone());
        }
        grown.dedup();
        tx.commit().await?;
        Ok(grown)
    }

    async fn log_pieces(&self, task_no: i64, after: i64, limit: i64) -> Result<Vec<Piece>, Error> {
        let rows = sqlx::query(PIECES).bind(task_no).bind(after).bind(limit).fetch_all(&self.pools.read).await?;
        rows.iter().map(piece).collect()
    }

    async fn prune_logs(&self, before: Time, limit: i64) -> Result<i64, Error> {
        let gone = sqlx::query(PRUNE).bind(before.0).bind(limit).execute(&self.pools.write).await?;
        Ok(i64::try_from(gone.rows_affected()).unwrap_or(i64::MAX))
    }
}

fn standing(row: &SqliteRow) -> Result<Standing, Error> {
    Ok(Standing {
        next_seq: row.try_get(0)?,
        bytes: row.try_get(1)?,
        began_at: row.try_get(2)?,
        closed: row.try_get(3)?,
    })
}

fn piece(row: &SqliteRow) -> Result<Piece, Error> {
    let (first_no, attempt, text): (i64, i32, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let corrupt = |_| Error::Corrupt { table: "task_log", column: "lines", row: first_no.to_string() };
    let lines: Vec<Line> = serde_json::from_str(&text).map_err(corrupt)?;
    Ok(Piece { first_no, attempt, lines })
}
