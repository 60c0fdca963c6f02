//! Decides what a pass reads from the lines, in which order and how much. Shared by both adapters, which provide the statements.
//!
//! The cost per task is reading the next keys and their first tasks by index, however many keys and tasks wait.

use std::future::Future;

use crate::lines::{Line, Lines, Pick, SPARE, Share, depth, fill, room, take_turns};
use crate::{Carrier, Error};

/// An adapter's statements, inside the transaction of a pass.
pub(super) trait Reads: Send {
    /// Unpaused queues with a line, each with its number of used slots and whether keys take turns in it.
    fn waiting(&mut self) -> impl Future<Output = Result<Vec<(String, i64, bool)>, Error>> + Send;
    /// The first tasks by rank and acceptance, in a line without keys.
    fn first(&mut self, queue: &str, limit: i64) -> impl Future<Output = Result<Vec<Pick>, Error>> + Send;
    /// The next rank after this one that has tasks.
    fn next_rank(&mut self, queue: &str, after: i16) -> impl Future<Output = Result<Option<i16>, Error>> + Send;
    /// The keys of a rank whose turn is next, without their tasks.
    fn shares(&mut self, queue: &str, rank: i16, limit: i64) -> impl Future<Output = Result<Vec<Share>, Error>> + Send;
    /// The turn of the tasks without a key, if there are any.
    fn turn_without_key(&mut self, queue: &str, rank: i16) -> impl Future<Output = Result<Option<i64>, Error>> + Send;
    /// The first tasks of each of these keys, at most `depth` each.
    fn heads(
        &mut self,
        queue: &str,
        rank: i16,
        keys: &[&str],
        depth: i64,
    ) -> impl Future<Output = Result<Vec<(String, i64)>, Error>> + Send;
}

/// The tasks that may leave the lines, as far as the windows allow.
pub(super) async fn load(reads: &mut impl Reads, carrier: &dyn Carrier, limit: i64) -> Result<Lines, Error> {
    let mut lines = Lines::default();
    let mut budget = usize::try_from(limit).unwrap_or_default();
    for (queue, slots, is_shared) in reads.waiting().await? {
        let (room, is_dry) = room(carrier.window(&queue, is_shared), slots);
        lines.is_waiting = true;
        lines.is_dry |= is_dry;
        let mut line = Line { room, ..Line::default() };
        let most = room.min(budget);
        let has_rest = if is_shared {
            by_turns(reads, &queue, &mut line, most).await?
        } else {
            in_order(reads, &queue, &mut line, most).await?
        };
        line.room -= line.picks.len();
        budget -= line.picks.len();
        lines.add(queue, line, has_rest);
    }
    Ok(lines)
}

/// Picks tasks in order of rank and acceptance. True when more may wait.
async fn in_order(reads: &mut impl Reads, queue: &str, line: &mut Line, room: usize) -> Result<bool, Error> {
    if room > 0 {
        line.picks = reads.first(queue, i64::try_from(room).unwrap_or(i64::MAX)).await?;
    }
    Ok(line.picks.len() >= room)
}

/// Picks tasks rank by rank, with keys taking turns within a rank. True when more may wait.
async fn by_turns(reads: &mut impl Reads, queue: &str, line: &mut Line, room: usize) -> Result<bool, Error> {
    let mut rank = i16::MIN;
    loop {
        let left = room - line.picks.len();
        if left == 0 {
            return Ok(true);
        }
        let Some(next) = reads.next_rank(queue, rank).await? else { return Ok(false) };
        rank = next;
        let limit = i64::try_from(left).unwrap_or(i64::MAX).saturating_add(SPARE);
        let mut shares = reads.shares(queue, rank, limit).await?;
        let is_cut = shares.len() as i64 >= limit;
        if shares.iter().all(|share| !share.key.is_empty())
            && let Some(turn) = reads.turn_without_key(queue, rank).await?
        {
            shares.push(Share { turn, weight: 1, ..Share::default() });
        }
        let depth = depth(&shares, left);
        let keys: Vec<&str> = shares.iter().map(|share| share.key.as_str()).collect();
        let found = reads.heads(queue, rank, &keys, depth).await?;
        fill(&mut shares, found, depth);
        let picks = take_turns(&shares, rank, left);
        let is_drained = !is_cut && shares.iter().all(|share| !share.has_more) && picks.len() < left;
        line.note(rank, shares);
        line.picks.extend(picks);
        if !is_drained {
            return Ok(true);
        }
    }
}
