//! Task logs: one row for lines that arrive together. Only one transaction writes at a time, so that no two lines get the same number.

use async_trait::async_trait;
use sqlx::Row;

use super::dialect::{Adapter, AdapterRow};
use super::tasks;
use crate::Error;
use crate::logs::{Line, Logs, Piece, Standing, append};
use crate::statements::statements;
use celery::task::TaskId;
use celery::task_log::TaskLog;
use runtime::clock::Time;

statements! {
    STANDING = "select next_seq, bytes, began_at, closed from task_log \
         where task_no = $1 and attempt = $2 order by first_no desc limit 1";
    LAST = "select first_no + count from task_log where task_no = $1 order by first_no desc limit 1";
    APPEND = "insert into task_log \
         (task_no, first_no, count, attempt, next_seq, bytes, began_at, closed, at, lines) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    PIECES = "select first_no, attempt, lines from task_log \
         where task_no = $1 and first_no + count > $2 + 1 and first_no > $2 - 20000 order by first_no limit $3";
    PRUNE = "delete from task_log where (task_no, first_no) in (select task_no, first_no from task_log \
         where at < $1 order by at limit $2)";
}

#[async_trait]
impl Logs for Adapter {
    async fn append_logs(&self, news: &[TaskLog], most: i64, now: Time) -> Result<Vec<TaskId>, Error> {
        let mut ids: Vec<TaskId> = news.iter().map(|piece| piece.uuid.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        let known = tasks::standing(self.reads(), &ids).await?;
        let mut grown: Vec<TaskId> = Vec::new();
        let mut tx = self.begin_logs().await?;
        for piece in news {
            let Some(task) = known.iter().find(|task| task.id == piece.uuid) else { continue };
            let found = sqlx::query(STANDING).bind(task.no).bind(piece.retries).fetch_optional(&mut *tx).await?;
            let before = found.as_ref().map(standing).transpose()?;
            let Some((lines, after)) = append(before.as_ref(), piece, most, now) else { continue };
            let next = sqlx::query(LAST).bind(task.no).fetch_optional(&mut *tx).await?;
            let first: i64 = next.map_or(Ok(1), |row| row.try_get(0))?;
            sqlx::query(APPEND)
                .bind(task.no)
                .bind(first)
                .bind(i32::try_from(lines.len()).unwrap_or(i32::MAX))
                .bind(piece.retries)
                .bind(after.next_seq)
                .bind(after.bytes)
                .bind(after.began_at)
                .bind(after.closed)
                .bind(now.0)
                .bind(serde_json::to_string(&lines).expect("texts and numbers are JSON"))
                .execute(&mut *tx)
                .await?;
            grown.push(piece.uuid.clone());
        }
        grown.dedup();
        self.tell_grown(&mut tx, &grown).await?;
        tx.commit().await?;
        Ok(grown)
    }

    async fn log_pieces(&self, task_no: i64, after: i64, limit: i64) -> Result<Vec<Piece>, Error> {
        let rows = sqlx::query(PIECES).bind(task_no).bind(after).bind(limit).fetch_all(self.reads()).await?;
        rows.iter().map(piece).collect()
    }

    async fn prune_logs(&self, before: Time, limit: i64) -> Result<i64, Error> {
        let gone = sqlx::query(PRUNE).bind(before.0).bind(limit).execute(self.writes()).await?;
        Ok(i64::try_from(gone.rows_affected()).unwrap_or(i64::MAX))
    }
}

fn standing(row: &AdapterRow) -> Result<Standing, Error> {
    Ok(Standing {
        next_seq: row.try_get(0)?,
        bytes: row.try_get(1)?,
        began_at: row.try_get(2)?,
        closed: row.try_get(3)?,
    })
}

fn piece(row: &AdapterRow) -> Result<Piece, Error> {
    let (first_no, attempt, text): (i64, i32, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let corrupt = |_| Error::Corrupt { table: "task_log", column: "lines", row: first_no.to_string() };
    let lines: Vec<Line> = serde_json::from_str(&text).map_err(corrupt)?;
    Ok(Piece { first_no, attempt, lines })
}
