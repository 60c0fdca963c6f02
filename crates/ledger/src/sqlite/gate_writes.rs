//! Rate gates: the first tasks that wait there, and the changes of a pass.

use std::collections::{BTreeSet, HashMap};

use sqlx::Row;

use super::pool::{Tx, list};
use crate::Error;
use crate::looks::{GateNews, Looks, NEWS_AT_ONCE};
use crate::rate_gates::{Open, Settled, Stopped};
use crate::statements::statements;

statements! {
    FIRST = "select g.value, o.task_no from json_each($1) g join outbox o on o.gate = g.value \
         and o.task_no <= (select max(task_no) from (select task_no from outbox where gate = g.value order by task_no limit $2)) \
         order by o.task_no";
    STOP = "update outbox set gate = $2, gate_max = $3, parked = 0, \
         line = null, rank = null, share = null, wake_at = coalesce((select expires_at from task t where t.task_no = outbox.task_no), 9223372036854775807) where task_no = $1";
    OPENS = "insert into gate_rate (gate, opens_at, spacing) values ($1, $2, $3) \
         on conflict (gate) do update set opens_at = excluded.opens_at, spacing = excluded.spacing";
    /// Counts a task as under way, unless it has ended meanwhile.
    HOLD = "insert into gate_hold (gate, task_no, most) select $1, $2, $3 \
         where exists (select 1 from unfinished u where u.task_no = $2) on conflict do nothing";
    NEWS = "select no, gate from gate_news order by no limit $1";
    FORGET = "delete from gate_news where no <= $1";
    /// `$1` gates, each with the time at which the next pass must look at it.
    LOOKED = "insert into gate_wait (gate, look_at) select l.value ->> 0, l.value ->> 1 from json_each($1) l \
         where exists (select 1 from outbox o where o.gate = l.value ->> 0) on conflict (gate) do update set look_at = excluded.look_at";
    LEFT = "delete from gate_wait where gate in (select value ->> 0 from json_each($1)) \
         and not exists (select 1 from outbox o where o.gate = gate_wait.gate)";
}

/// The news about gates. It stays until [`looked`], because a pass decides in a transaction that only reads.
pub(super) async fn news(tx: &mut Tx) -> Result<GateNews, Error> {
    let rows = sqlx::query(NEWS).bind(NEWS_AT_ONCE as i64).fetch_all(&mut **tx).await?;
    let mut news = GateNews { is_cut: rows.len() >= NEWS_AT_ONCE, ..GateNews::default() };
    for row in &rows {
        news.last = row.try_get(0)?;
        news.gates.push(row.try_get(1)?);
    }
    news.gates = std::mem::take(&mut news.gates).into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    Ok(news)
}

/// Forgets the news that was read, and notes when the next pass must look at these gates.
pub(super) async fn looked(tx: &mut Tx, looks: &Looks) -> Result<(), Error> {
    if looks.last > 0 {
        sqlx::query(FORGET).bind(looks.last).execute(&mut **tx).await?;
    }
    let rows = looks.rows();
    if !rows.is_empty() {
        sqlx::query(LOOKED).bind(list(&rows)).execute(&mut **tx).await?;
        sqlx::query(LEFT).bind(list(&rows)).execute(&mut **tx).await?;
    }
    Ok(())
}

/// The first tasks of each gate, by number, with the gate.
pub(super) async fn first(tx: &mut Tx, gates: &[Open]) -> Result<Vec<(String, i64)>, Error> {
    let Some(most) = gates.iter().map(|open| open.heads).max() else { return Ok(Vec::new()) };
    let names: Vec<&str> = gates.iter().map(|open| open.gate.as_str()).collect();
    let rows = sqlx::query(FIRST).bind(list(&names)).bind(most).fetch_all(&mut **tx).await?;
    let heads = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    let mut heads = heads.collect::<Result<Vec<(String, i64)>, Error>>()?;
    // In SQLite the limit is the same for all gates, so the surplus of each gate is dropped here.
    let mut left: HashMap<&str, i64> = gates.iter().map(|open| (open.gate.as_str(), open.heads)).collect();
    heads.retain(|(gate, _)| {
        left.get_mut(gate.as_str()).is_some_and(|left| {
            *left -= 1;
            *left >= 0
        })
    });
    Ok(heads)
}

pub(super) async fn stop(tx: &mut Tx, stopped: &[&Stopped]) -> Result<(), Error> {
    for task in stopped {
        let query = sqlx::query(STOP).bind(task.task_no).bind(task.gate.name()).bind(task.gate.max());
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// True if every task that was to be counted as under way is counted now, and was not before.
pub(super) async fn settle(tx: &mut Tx, settled: Settled) -> Result<bool, Error> {
    for (gate, opens_at, spacing) in settled.rates {
        sqlx::query(OPENS).bind(gate).bind(opens_at).bind(spacing).execute(&mut **tx).await?;
    }
    let mut are_held = true;
    for (gate, task_no, most) in settled.holds {
        let held = sqlx::query(HOLD).bind(gate).bind(task_no).bind(most).execute(&mut **tx).await?;
        are_held &= held.rows_affected() == 1;
    }
    Ok(are_held)
}
