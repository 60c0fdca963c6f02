//! Rate gates: the first tasks that wait there, and the changes of a pass.

use sqlx::Row;

use super::pool::Tx;
use crate::Error;
use crate::looks::{GateNews, Looks, NEWS_AT_ONCE};
use crate::rate_gates::{Open, Settled, Stopped};
use crate::statements::statements;

statements! {
    FIRST = "select g.gate, o.task_no from unnest($1::text[], $2::bigint[]) as g(gate, heads) cross join lateral \
         (select task_no from taskgate.outbox where gate = g.gate order by task_no limit g.heads) o order by o.task_no";
    STOP = "update taskgate.outbox o set gate = n.gate, gate_max = n.gate_max, parked = null, \
         line = null, rank = null, share = null, wake_at = coalesce(t.expires_at, 9223372036854775807) \
         from unnest($1::bigint[], $2::text[], $3::int[]) as n(task_no, gate, gate_max) \
         join taskgate.task t on t.task_no = n.task_no where o.task_no = n.task_no";
    OPENS = "insert into taskgate.gate_rate (gate, opens_at, spacing) \
         select * from unnest($1::text[], $2::bigint[], $3::bigint[]) \
         on conflict (gate) do update set opens_at = excluded.opens_at, spacing = excluded.spacing";
    /// Counts a task as under way, unless it has ended meanwhile.
    HOLD = "insert into taskgate.gate_hold (gate, task_no, most) \
         select n.gate, n.task_no, n.most from unnest($1::text[], $2::bigint[], $3::int[]) as n(gate, task_no, most) \
         where exists (select 1 from taskgate.flight u where u.task_no = n.task_no) on conflict do nothing";
    /// Reads news and deletes it. What is committed later stays.
    NEWS = "delete from taskgate.gate_news where no in (select no from taskgate.gate_news order by no limit $1) returning gate";
    /// `$1` gates, `$2` when the next pass must look at each, if tasks still wait there.
    LOOKED = "with n as materialized (select l.gate, l.at, exists (select 1 from taskgate.outbox o where o.gate = l.gate) as is_waited_for \
         from unnest($1::text[], $2::bigint[]) as l(gate, at)), \
         gone as (delete from taskgate.gate_wait w using n where w.gate = n.gate and not n.is_waited_for) \
         insert into taskgate.gate_wait (gate, look_at) select n.gate, n.at from n where n.is_waited_for \
         on conflict (gate) do update set look_at = excluded.look_at where taskgate.gate_wait.look_at <> excluded.look_at";
}

/// Takes the news about gates.
pub(super) async fn news(tx: &mut Tx) -> Result<GateNews, Error> {
    let rows = sqlx::query(NEWS).bind(NEWS_AT_ONCE as i64).fetch_all(&mut **tx).await?;
    let mut gates = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    let is_cut = gates.len() >= NEWS_AT_ONCE;
    gates.sort_unstable();
    gates.dedup();
    Ok(GateNews { last: i64::from(!gates.is_empty()), gates, is_cut })
}

/// Notes when the next pass must look at these gates.
pub(super) async fn looked(tx: &mut Tx, looks: &Looks) -> Result<(), Error> {
    let (gates, times): (Vec<&str>, Vec<i64>) = looks.rows().into_iter().unzip();
    if !gates.is_empty() {
        sqlx::query(LOOKED).bind(gates).bind(times).execute(&mut **tx).await?;
    }
    Ok(())
}

/// The first tasks of each gate, by number, with the gate.
pub(super) async fn first(tx: &mut Tx, gates: &[Open]) -> Result<Vec<(String, i64)>, Error> {
    if gates.is_empty() {
        return Ok(Vec::new());
    }
    let (names, heads): (Vec<&str>, Vec<i64>) = gates.iter().map(|open| (open.gate.as_str(), open.heads)).unzip();
    let rows = sqlx::query(FIRST).bind(names).bind(heads).fetch_all(&mut **tx).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

pub(super) async fn stop(tx: &mut Tx, stopped: &[&Stopped]) -> Result<(), Error> {
    if stopped.is_empty() {
        return Ok(());
    }
    sqlx::query(STOP)
        .bind(stopped.iter().map(|task| task.task_no).collect::<Vec<_>>())
        .bind(stopped.iter().map(|task| task.gate.name()).collect::<Vec<_>>())
        .bind(stopped.iter().map(|task| task.gate.max()).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// True if every task that was to be counted as under way is counted now, and was not before.
pub(super) async fn settle(tx: &mut Tx, settled: Settled) -> Result<bool, Error> {
    if !settled.rates.is_empty() {
        sqlx::query(OPENS)
            .bind(settled.rates.iter().map(|(gate, ..)| gate.as_str()).collect::<Vec<_>>())
            .bind(settled.rates.iter().map(|(_, opens, _)| *opens).collect::<Vec<_>>())
            .bind(settled.rates.iter().map(|(.., spacing)| *spacing).collect::<Vec<_>>())
            .execute(&mut **tx)
            .await?;
    }
    let mut held = 0;
    if !settled.holds.is_empty() {
        held = sqlx::query(HOLD)
            .bind(settled.holds.iter().map(|(gate, ..)| gate.as_str()).collect::<Vec<_>>())
            .bind(settled.holds.iter().map(|(_, task_no, _)| *task_no).collect::<Vec<_>>())
            .bind(settled.holds.iter().map(|(.., most)| *most).collect::<Vec<_>>())
            .execute(&mut **tx)
            .await?
            .rows_affected();
    }
    Ok(held == settled.holds.len() as u64)
}
