//! Rate gates: the first tasks that wait there, and the changes of a pass.

use sqlx::Row;

use super::pool::Tx;
use crate::Error;
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

pub(super) async fn settle(tx: &mut Tx, settled: Settled) -> Result<(), Error> {
    if !settled.rates.is_empty() {
        sqlx::query(OPENS)
            .bind(settled.rates.iter().map(|(gate, ..)| gate.as_str()).collect::<Vec<_>>())
            .bind(settled.rates.iter().map(|(_, opens, _)| *opens).collect::<Vec<_>>())
            .bind(settled.rates.iter().map(|(.., spacing)| *spacing).collect::<Vec<_>>())
            .execute(&mut **tx)
            .await?;
    }
    if !settled.holds.is_empty() {
        sqlx::query(HOLD)
            .bind(settled.holds.iter().map(|(gate, ..)| gate.as_str()).collect::<Vec<_>>())
            .bind(settled.holds.iter().map(|(_, task_no, _)| *task_no).collect::<Vec<_>>())
            .bind(settled.holds.iter().map(|(.., most)| *most).collect::<Vec<_>>())
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}
