//! Lines: tasks that wait for room in a queue's window, the turns of keys, and the changes of a pass.
//!
//! Only passes write turns and slots, and only one pass runs at a time. [`crate::line_reads`] determines what is read, and when.

use sqlx::Row;

use super::pool::Tx;
use crate::Error;
use crate::line_reads::Reads;
use crate::lines::{Entering, Line, Lines, Pick, Share};
use crate::statements::statements;

statements! {
    /// Lines of unpaused queues, found by skipping along the index. `is_shared`: keys take turns in it.
    WAITING = "with recursive waiting as (\
         select * from (select line from outbox where line is not null order by line limit 1) union all \
         select (select o.line from outbox o where o.line > w.line order by o.line limit 1) \
         from waiting w where w.line is not null) \
         select w.line, (select count(*) from window_slot s where s.queue = w.line) as slots, \
         exists (select 1 from line_share s where s.queue = w.line) as is_shared \
         from waiting w where w.line is not null and not exists (select 1 from queue_pause p where p.queue = w.line) limit 1000";
    FIRST =
        "select task_no, rank from outbox where line = $1 order by rank, share, task_no limit $2";
    /// `$2` the rank before.
    NEXT_RANK = "select rank from outbox where line = $1 and rank > $2 order by rank limit 1";
    /// The keys of a rank whose turn is next.
    SHARES =
        "select share, turn, weight from line_share where queue = $1 and rank = $2 order by turn, share limit $3";
    /// The turn of tasks without a key; if they have none yet, they start at the others' position.
    WITHOUT = "select coalesce((select s.turn from line_share s where s.queue = $1 and s.rank = $2 and s.share = ''), \
         (select min(s.turn) from line_share s where s.queue = $1 and s.rank = $2), 0) as turn \
         from (select 1 from outbox where line = $1 and rank = $2 and share = '' limit 1) as found";
    HEADS =
        "select task_no from outbox where line = $1 and rank = $2 and share = $3 order by task_no limit $4";
    SLOTS = "select count(*) from window_slot where queue = $1";
    ENTER = "update outbox set line = $2, rank = $3, share = $4, gate = null, gate_max = null, parked = 0, \
         wake_at = coalesce((select expires_at from task t where t.task_no = outbox.task_no), 9223372036854775807) where task_no = $1";
    /// Registers a new key, at the others' position.
    REGISTER = "insert into line_share (queue, rank, share, turn, weight) values ($1, $2, $3, \
         coalesce((select min(s.turn) from line_share s where s.queue = $1 and s.rank = $2), 0), $4) \
         on conflict (queue, rank, share) do update set weight = excluded.weight";
    TURN = "insert into line_share (queue, rank, share, turn, weight) values ($1, $2, $3, $4, $5) \
         on conflict (queue, rank, share) do update set turn = excluded.turn";
    FORGET = "delete from line_share where queue = $1 and rank = $2 and share = $3";
    /// Takes room for a task, unless a worker has received it already.
    OCCUPY = "insert into window_slot (task_no, queue) select $1, $2 \
         where exists (select 1 from task t where t.task_no = $1 and t.phase = 'queued') on conflict do nothing";
}

/// The reads of a pass.
pub(super) struct Read<'a>(pub &'a mut Tx);

impl Reads for Read<'_> {
    async fn waiting(&mut self) -> Result<Vec<(String, i64, bool)>, Error> {
        let rows = sqlx::query(WAITING).fetch_all(&mut **self.0).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
    }

    async fn first(&mut self, queue: &str, limit: i64) -> Result<Vec<Pick>, Error> {
        let rows = sqlx::query(FIRST).bind(queue).bind(limit).fetch_all(&mut **self.0).await?;
        let pick = |row: &sqlx::sqlite::SqliteRow| {
            Ok(Pick { task_no: row.try_get(0)?, rank: row.try_get(1)?, share: String::new() })
        };
        rows.iter().map(pick).collect()
    }

    async fn next_rank(&mut self, queue: &str, after: i16) -> Result<Option<i16>, Error> {
        let row = sqlx::query(NEXT_RANK).bind(queue).bind(after).fetch_optional(&mut **self.0).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    async fn shares(&mut self, queue: &str, rank: i16, limit: i64) -> Result<Vec<Share>, Error> {
        let rows = sqlx::query(SHARES).bind(queue).bind(rank).bind(limit).fetch_all(&mut **self.0).await?;
        let share = |row: &sqlx::sqlite::SqliteRow| {
            let (key, turn, weight) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            Ok(Share { key, turn, weight, ..Share::default() })
        };
        rows.iter().map(share).collect()
    }

    async fn turn_without_key(&mut self, queue: &str, rank: i16) -> Result<Option<i64>, Error> {
        let row = sqlx::query(WITHOUT).bind(queue).bind(rank).fetch_optional(&mut **self.0).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    async fn heads(&mut self, queue: &str, rank: i16, keys: &[&str], depth: i64) -> Result<Vec<(String, i64)>, Error> {
        let mut found = Vec::new();
        for key in keys {
            let query = sqlx::query(HEADS).bind(queue).bind(rank).bind(key).bind(depth);
            for row in query.fetch_all(&mut **self.0).await? {
                found.push(((*key).to_owned(), row.try_get(0)?));
            }
        }
        Ok(found)
    }
}

/// Loads the windows of queues that get tasks which did not wait in a line.
pub(super) async fn open(tx: &mut Tx, lines: &mut Lines, queues: &[(String, u32)]) -> Result<(), Error> {
    for (queue, window) in queues {
        let slots = sqlx::query(SLOTS).bind(queue).fetch_one(&mut **tx).await?.try_get(0)?;
        let (room, _) = crate::lines::room(Some(*window), slots);
        lines.add(queue.clone(), Line { room, ..Line::default() }, false);
    }
    Ok(())
}

/// Writes the result of a pass: published tasks take room, the turns of their keys advance, keys without tasks are removed, and new
/// tasks go to the end of their lines.
pub(super) async fn settle(
    tx: &mut Tx,
    lines: &Lines,
    carried: &[i64],
    occupied: &[(i64, String)],
    entering: &[Entering],
) -> Result<(), Error> {
    for (queue, rank, share) in lines.empty() {
        sqlx::query(FORGET).bind(queue).bind(rank).bind(share).execute(&mut **tx).await?;
    }
    for turn in lines.turns(carried) {
        let query = sqlx::query(TURN).bind(turn.queue).bind(turn.rank).bind(turn.share);
        query.bind(turn.turn).bind(turn.weight).execute(&mut **tx).await?;
    }
    for (task_no, queue) in occupied {
        sqlx::query(OCCUPY).bind(task_no).bind(queue).execute(&mut **tx).await?;
    }
    for one in entering {
        let query = sqlx::query(ENTER).bind(one.task_no).bind(&one.queue).bind(one.rank).bind(&one.share);
        query.execute(&mut **tx).await?;
    }
    for one in crate::lines::keys(entering) {
        let query = sqlx::query(REGISTER).bind(&one.queue).bind(one.rank).bind(&one.share).bind(one.weight);
        query.execute(&mut **tx).await?;
    }
    Ok(())
}
