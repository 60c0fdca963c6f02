//! Lines: the changes of a pass. Only passes write turns and slots, and only one pass runs at a time.

use sqlx::Row;

use super::pool::Tx;
use crate::Error;
use crate::lines::{Entering, Line, Lines};
use crate::statements::statements;

statements! {
    HEADS =
        "select task_no from outbox where line = $1 and rank = $2 and share = $3 order by task_no limit $4";
    SLOTS = "select count(*) from window_slot where queue = $1";
    ENTER = "update outbox set line = $2, rank = $3, share = $4, gate = null, gate_max = null, parked = 0, \
         wake_at = coalesce((select expires_at from task t where t.task_no = outbox.task_no), 9223372036854775807) where task_no = $1";
    /// Registers a new key with the lowest turn of the other keys.
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

/// The first tasks of each of these keys, at most `depth` each.
pub(super) async fn heads(
    tx: &mut Tx,
    queue: &str,
    rank: i16,
    keys: &[&str],
    depth: i64,
) -> Result<Vec<(String, i64)>, Error> {
    let mut found = Vec::new();
    for key in keys {
        let query = sqlx::query(HEADS).bind(queue).bind(rank).bind(key).bind(depth);
        for row in query.fetch_all(&mut **tx).await? {
            found.push(((*key).to_owned(), row.try_get(0)?));
        }
    }
    Ok(found)
}

/// Loads the windows of these queues: a pass has tasks for them that did not wait in a line.
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
    for task in entering {
        let query = sqlx::query(ENTER).bind(task.task_no).bind(&task.queue).bind(task.rank).bind(&task.share);
        query.execute(&mut **tx).await?;
    }
    for key in crate::lines::keys(entering) {
        let query = sqlx::query(REGISTER).bind(&key.queue).bind(key.rank).bind(&key.share).bind(key.weight);
        query.execute(&mut **tx).await?;
    }
    Ok(())
}
