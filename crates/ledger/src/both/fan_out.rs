//! Large fan-outs. The replica that moves the row forward writes the piece, in the same transaction; the others find it written.

use async_trait::async_trait;
use sqlx::Row;

use super::dialect::{Adapter, Tx};
use super::insert;
use crate::statements::statements;
use crate::{Error, FanOut, FanOuts, Inserted, Submission};
use celery::task::{GroupId, TaskId};

statements! {
    INSERT = "insert into fan_out (group_id, root_id, total, submitted_at, plan) \
         values ($1, $2, $3, $4, $5)";
    NEXT = "select fan_out_no, group_id, root_id, total, written, plan from fan_out \
         where fan_out_no > $1 order by fan_out_no limit 1";
    ADVANCE =
        "update fan_out set written = $3 where fan_out_no = $1 and written = $2 and $3 < total";
    FINISH = "delete from fan_out where fan_out_no = $1 and written = $2 and $3 >= total";
}

/// Inserts a fan-out in the transaction of its submission.
pub(super) async fn insert(tx: &mut Tx, submission: &Submission) -> Result<(), sqlx::Error> {
    let Some(new) = &submission.fan_out else { return Ok(()) };
    sqlx::query(INSERT)
        .bind(new.group_id.as_str())
        .bind(new.root_id.as_str())
        .bind(new.total)
        .bind(submission.at.0)
        .bind(&new.plan)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

#[async_trait]
impl FanOuts for Adapter {
    async fn next_fan_out(&self, after: i64) -> Result<Option<FanOut>, Error> {
        let Some(row) = sqlx::query(NEXT).bind(after).fetch_optional(self.reads()).await? else { return Ok(None) };
        let no: i64 = row.try_get(0)?;
        let corrupt = |column| Error::Corrupt { table: "fan_out", column, row: no.to_string() };
        Ok(Some(FanOut {
            no,
            group_id: GroupId::parse(row.try_get::<&str, _>(1)?).map_err(|_| corrupt("group_id"))?,
            root_id: TaskId::parse(row.try_get::<&str, _>(2)?).map_err(|_| corrupt("root_id"))?,
            total: row.try_get(3)?,
            written: row.try_get(4)?,
            plan: row.try_get(5)?,
        }))
    }

    async fn write_piece(&self, fan_out: &FanOut, piece: &Submission) -> Result<Option<Inserted>, Error> {
        let batch = std::slice::from_ref(piece);
        for attempt in 0..insert::MAX_ATTEMPTS {
            let mut tx = self.begin().await?;
            if !moved_on(&mut tx, fan_out, piece).await? {
                return Ok(None);
            }
            let Some(mut answers) = self.insert_within(&mut tx, batch, attempt > 0).await? else {
                tx.rollback().await?;
                continue;
            };
            let Some(Ok(inserted)) = answers.pop() else {
                return Err(Error::Refused("a task id of a fan-out is taken".into()));
            };
            tx.commit().await?;
            return Ok(Some(inserted));
        }
        Err(Error::Refused("a fan-out met a unique violation that no look-up explains".into()))
    }
}

async fn moved_on(tx: &mut Tx, fan_out: &FanOut, piece: &Submission) -> Result<bool, Error> {
    for statement in [ADVANCE, FINISH] {
        let query = sqlx::query(statement).bind(fan_out.no).bind(fan_out.written).bind(fan_out.after(piece));
        if query.execute(&mut **tx).await?.rows_affected() == 1 {
            return Ok(true);
        }
    }
    Ok(false)
}
