//! Lines: the changes of a pass. Only passes write turns and slots, and only one pass runs at a time.

use sqlx::Row;

use super::pool::Tx;
use crate::Error;
use crate::lines::{Entering, Line, Lines};
use crate::statements::statements;

statements! {
    HEADS = "select s.share, o.task_no from unnest($3::text[]) as s(share) cross join lateral \
         (select task_no from taskgate.outbox where line = $1 and rank = $2 and share = s.share order by task_no limit $4) o";
    SLOTS = "select q.queue, (select count(*) from taskgate.window_slot s where s.queue = q.queue) as slots \
         from unnest($1::text[]) as q(queue)";
    ENTER = "update taskgate.outbox o set line = n.queue, rank = n.rank, share = n.share, gate = null, gate_max = null, \
         parked = null, wake_at = coalesce(t.expires_at, 9223372036854775807) \
         from unnest($1::bigint[], $2::text[], $3::smallint[], $4::text[]) as n(task_no, queue, rank, share) \
         join taskgate.task t on t.task_no = n.task_no where o.task_no = n.task_no";
    /// Registers a new key with the lowest turn of the other keys.
    REGISTER = "insert into taskgate.line_share (queue, rank, share, turn, weight) \
         select n.queue, n.rank, n.share, coalesce((select min(s.turn) from taskgate.line_share s \
         where s.queue = n.queue and s.rank = n.rank), 0), n.weight \
         from unnest($1::text[], $2::smallint[], $3::text[], $4::int[]) as n(queue, rank, share, weight) \
         on conflict (queue, rank, share) do update set weight = excluded.weight";
    TURN = "insert into taskgate.line_share (queue, rank, share, turn, weight) \
         select * from unnest($1::text[], $2::smallint[], $3::text[], $4::bigint[], $5::int[]) \
         on conflict (queue, rank, share) do update set turn = excluded.turn";
    FORGET = "delete from taskgate.line_share s \
         using unnest($1::text[], $2::smallint[], $3::text[]) as n(queue, rank, share) \
         where s.queue = n.queue and s.rank = n.rank and s.share = n.share";
    /// Takes room for a task, unless a worker has received it already.
    OCCUPY = "insert into taskgate.window_slot (task_no, queue) \
         select n.task_no, n.queue from unnest($1::bigint[], $2::text[]) as n(task_no, queue) \
         where exists (select 1 from taskgate.flight f where f.task_no = n.task_no and f.phase = 'queued') on conflict do nothing";
}

/// The first tasks of each of these keys, at most `depth` each.
pub(super) async fn heads(
    tx: &mut Tx,
    queue: &str,
    rank: i16,
    keys: &[&str],
    depth: i64,
) -> Result<Vec<(String, i64)>, Error> {
    let rows = sqlx::query(HEADS).bind(queue).bind(rank).bind(keys).bind(depth).fetch_all(&mut **tx).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Loads the windows of these queues: a pass has tasks for them that did not wait in a line.
pub(super) async fn open(tx: &mut Tx, lines: &mut Lines, queues: &[(String, u32)]) -> Result<(), Error> {
    if queues.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = queues.iter().map(|(queue, _)| queue.as_str()).collect();
    for row in sqlx::query(SLOTS).bind(names).fetch_all(&mut **tx).await? {
        let queue: String = row.try_get(0)?;
        let window = queues.iter().find(|(name, _)| *name == queue).map(|(_, window)| *window);
        let (room, _) = crate::lines::room(window, row.try_get(1)?);
        lines.add(queue, Line { room, ..Line::default() }, false);
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
    let empty = lines.empty();
    if !empty.is_empty() {
        sqlx::query(FORGET)
            .bind(empty.iter().map(|(queue, ..)| *queue).collect::<Vec<_>>())
            .bind(empty.iter().map(|(_, rank, _)| *rank).collect::<Vec<_>>())
            .bind(empty.iter().map(|(.., share)| *share).collect::<Vec<_>>())
            .execute(&mut **tx)
            .await?;
    }
    let turns = lines.turns(carried);
    if !turns.is_empty() {
        sqlx::query(TURN)
            .bind(turns.iter().map(|turn| turn.queue.as_str()).collect::<Vec<_>>())
            .bind(turns.iter().map(|turn| turn.rank).collect::<Vec<_>>())
            .bind(turns.iter().map(|turn| turn.share.as_str()).collect::<Vec<_>>())
            .bind(turns.iter().map(|turn| turn.turn).collect::<Vec<_>>())
            .bind(turns.iter().map(|turn| turn.weight).collect::<Vec<_>>())
            .execute(&mut **tx)
            .await?;
    }
    if !occupied.is_empty() {
        let (numbers, queues): (Vec<i64>, Vec<&str>) = occupied.iter().map(|(no, queue)| (*no, queue.as_str())).unzip();
        sqlx::query(OCCUPY).bind(numbers).bind(queues).execute(&mut **tx).await?;
    }
    enter(tx, entering).await
}

async fn enter(tx: &mut Tx, entering: &[Entering]) -> Result<(), Error> {
    if entering.is_empty() {
        return Ok(());
    }
    sqlx::query(ENTER)
        .bind(entering.iter().map(|task| task.task_no).collect::<Vec<_>>())
        .bind(entering.iter().map(|task| task.queue.as_str()).collect::<Vec<_>>())
        .bind(entering.iter().map(|task| task.rank).collect::<Vec<_>>())
        .bind(entering.iter().map(|task| task.share.as_str()).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    let keys = crate::lines::keys(entering);
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query(REGISTER)
        .bind(keys.iter().map(|key| key.queue.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.rank).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.share.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.weight).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    Ok(())
}
