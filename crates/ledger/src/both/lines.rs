//! Lines: what a pass reads about tasks that wait for room in a queue's window.
//!
//! [`crate::line_reads`] decides what is read, and in which order. The adapter's `line_writes` changes the lines.

use sqlx::Row;

use super::dialect::{AdapterRow, Tx};
use super::line_writes::heads;
use crate::Error;
use crate::line_reads::Reads;
use crate::lines::{Pick, Share};
use crate::statements::statements;

statements! {
    /// Lines of queues that are not paused, found by skipping along the index. `is_shared`: keys take turns in the line.
    WAITING = "with recursive waiting as (\
         select * from (select line from outbox where line is not null order by line limit 1) as first union all \
         select (select o.line from outbox o where o.line > w.line order by o.line limit 1) \
         from waiting w where w.line is not null) \
         select w.line, (select count(*) from window_slot s where s.queue = w.line) as slots, \
         exists (select 1 from line_share s where s.queue = w.line) as is_shared \
         from waiting w where w.line is not null and not exists (select 1 from queue_pause p where p.queue = w.line) limit 1000";
    FIRST = "select task_no, rank from outbox where line = $1 order by rank, share, task_no limit $2";
    /// `$2` the previous rank.
    NEXT_RANK = "select rank from outbox where line = $1 and rank > $2 order by rank limit 1";
    /// The keys of a rank whose turn is next.
    SHARES = "select share, turn, weight from line_share where queue = $1 and rank = $2 order by turn, share limit $3";
    /// The turn of tasks without a key; if they have none yet, the lowest turn of the keys.
    WITHOUT = "select coalesce((select s.turn from line_share s where s.queue = $1 and s.rank = $2 and s.share = ''), \
         (select min(s.turn) from line_share s where s.queue = $1 and s.rank = $2), 0) as turn \
         from (select 1 from outbox where line = $1 and rank = $2 and share = '' limit 1) as found";
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
        let pick =
            |row: &AdapterRow| Ok(Pick { task_no: row.try_get(0)?, rank: row.try_get(1)?, share: String::new() });
        rows.iter().map(pick).collect()
    }

    async fn next_rank(&mut self, queue: &str, after: i16) -> Result<Option<i16>, Error> {
        let row = sqlx::query(NEXT_RANK).bind(queue).bind(after).fetch_optional(&mut **self.0).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    async fn shares(&mut self, queue: &str, rank: i16, limit: i64) -> Result<Vec<Share>, Error> {
        let rows = sqlx::query(SHARES).bind(queue).bind(rank).bind(limit).fetch_all(&mut **self.0).await?;
        let share = |row: &AdapterRow| {
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
        heads(self.0, queue, rank, keys, depth).await
    }
}
