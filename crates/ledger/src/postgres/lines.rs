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
         (select line from taskgate.outbox where line is not null order by line limit 1) union all \
         select (select o.line from taskgate.outbox o where o.line > w.line order by o.line limit 1) \
         from waiting w where w.line is not null) \
         select w.line, (select count(*) from taskgate.window_slot s where s.queue = w.line) as slots, \
         exists (select 1 from taskgate.line_share s where s.queue = w.line) as is_shared \
         from waiting w where w.line is not null and not exists (select 1 from taskgate.queue_pause p where p.queue = w.line) limit 1000";
    FIRST =
        "select task_no, rank from taskgate.outbox where line = $1 order by rank, share, task_no limit $2";
    /// `$2` the rank before.
    NEXT_RANK =
        "select rank from taskgate.outbox where line = $1 and rank > $2 order by rank limit 1";
    /// The keys of a rank whose turn is next.
    SHARES = "select share, turn, weight from taskgate.line_share where queue = $1 and rank = $2 \
         order by turn, share limit $3";
    /// The turn of tasks without a key; if they have none yet, they start at the others' position.
    WITHOUT = "select coalesce((select s.turn from taskgate.line_share s where s.queue = $1 and s.rank = $2 and s.share = ''), \
         (select min(s.turn) from taskgate.line_share s where s.queue = $1 and s.rank = $2), 0) as turn \
         from (select 1 from taskgate.outbox where line = $1 and rank = $2 and share = '' limit 1) as found";
    HEADS = "select s.share, o.task_no from unnest($3::text[]) as s(share) cross join lateral \
         (select task_no from taskgate.outbox where line = $1 and rank = $2 and share = s.share order by task_no limit $4) o";
    SLOTS = "select q.queue, (select count(*) from taskgate.window_slot s where s.queue = q.queue) as slots \
         from unnest($1::text[]) as q(queue)";
    ENTER = "update taskgate.outbox o set line = n.queue, rank = n.rank, share = n.share, gate = null, gate_max = null, \
         parked = null, wake_at = coalesce(t.expires_at, 9223372036854775807) \
         from unnest($1::bigint[], $2::text[], $3::smallint[], $4::text[]) as n(task_no, queue, rank, share) \
         join taskgate.task t on t.task_no = n.task_no where o.task_no = n.task_no";
    /// Registers a new key, at the others' position.
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

/// The reads of a pass.
pub(super) struct Read<'a>(pub &'a mut Tx);

impl Reads for Read<'_> {
    async fn waiting(&mut self) -> Result<Vec<(String, i64, bool)>, Error> {
        let rows = sqlx::query(WAITING).fetch_all(&mut **self.0).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
    }

    async fn first(&mut self, queue: &str, limit: i64) -> Result<Vec<Pick>, Error> {
        let rows = sqlx::query(FIRST).bind(queue).bind(limit).fetch_all(&mut **self.0).await?;
        let pick = |row: &sqlx::postgres::PgRow| {
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
        let share = |row: &sqlx::postgres::PgRow| {
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
        let rows = sqlx::query(HEADS).bind(queue).bind(rank).bind(keys).bind(depth).fetch_all(&mut **self.0).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }
}

/// Loads the windows of queues that get tasks which did not wait in a line.
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
        .bind(entering.iter().map(|one| one.task_no).collect::<Vec<_>>())
        .bind(entering.iter().map(|one| one.queue.as_str()).collect::<Vec<_>>())
        .bind(entering.iter().map(|one| one.rank).collect::<Vec<_>>())
        .bind(entering.iter().map(|one| one.share.as_str()).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    let keys = crate::lines::keys(entering);
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query(REGISTER)
        .bind(keys.iter().map(|one| one.queue.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|one| one.rank).collect::<Vec<_>>())
        .bind(keys.iter().map(|one| one.share.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|one| one.weight).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    Ok(())
}
