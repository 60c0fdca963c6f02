//! Rate gates: waiting tasks, tasks under way, and the changes of a pass.

use std::collections::HashSet;

use sqlx::Row;

use super::pool::Tx;
use crate::Error;
use crate::rate_gates::{HEADS, RateGate, RateGates, Settled, Stopped, Waiting};
use crate::statements::statements;

statements! {
    /// Each gate once, by skipping along the index, with its first task's values. Further gates wait for a later pass.
    WAITING = "with recursive waiting as (\
         (select gate from taskgate.outbox where gate is not null order by gate limit 1) union all \
         select (select o.gate from taskgate.outbox o where o.gate > w.gate order by o.gate limit 1) \
         from waiting w where w.gate is not null) \
         select w.gate, (select o.gate_max from taskgate.outbox o where o.gate = w.gate order by o.task_no limit 1) as gate_max, \
         (select r.opens_at from taskgate.gate_rate r where r.gate = w.gate) as opens_at, \
         (select count(*) from taskgate.gate_hold h where h.gate = w.gate) as holders \
         from waiting w where w.gate is not null limit 10000";
    FIRST = "select g.gate, o.task_no from unnest($1::text[]) as g(gate) cross join lateral \
         (select task_no from taskgate.outbox where gate = g.gate order by task_no limit $2) o order by o.task_no";
    RATES = "select gate, opens_at from taskgate.gate_rate where gate = any($1)";
    HOLDERS = "select gate, task_no from taskgate.gate_hold where gate = any($1)";
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
    AT_GATE = "select o.gate, o.gate_max, (select count(*) from (select 1 from taskgate.outbox b \
         where b.gate = o.gate and b.task_no < o.task_no limit 10000) as before) as ahead, \
         (select opens_at from taskgate.gate_rate r where r.gate = o.gate) as opens_at, \
         (select count(*) from taskgate.gate_hold h where h.gate = o.gate) as under_way \
         from taskgate.outbox o where o.task_no = $1 and o.gate is not null";
    UNDER_WAY = "select coalesce(t.given_id, cast(t.id as text)) from taskgate.gate_hold h join taskgate.task t on t.task_no = h.task_no \
         where h.gate = $1 order by h.task_no limit 5";
}

pub(super) async fn waiting(tx: &mut Tx) -> Result<Vec<Waiting>, Error> {
    let rows = sqlx::query(WAITING).fetch_all(&mut **tx).await?;
    let waiting = |row: &sqlx::postgres::PgRow| {
        Ok(Waiting {
            gate: row.try_get("gate")?,
            max: row.try_get("gate_max")?,
            opens_at: row.try_get("opens_at")?,
            holders: row.try_get("holders")?,
        })
    };
    rows.iter().map(waiting).collect()
}

/// The first tasks of each gate, by number, with the gate.
pub(super) async fn first(tx: &mut Tx, gates: &[String]) -> Result<Vec<(String, i64)>, Error> {
    if gates.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(FIRST).bind(gates).bind(HEADS).fetch_all(&mut **tx).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// The state of these gates.
pub(super) async fn load<'a>(tx: &mut Tx, wanted: impl Iterator<Item = &'a RateGate>) -> Result<RateGates, Error> {
    let names: HashSet<&str> = wanted.map(RateGate::name).collect();
    let mut gates = RateGates::default();
    if names.is_empty() {
        return Ok(gates);
    }
    let names: Vec<&str> = names.into_iter().collect();
    for row in sqlx::query(RATES).bind(&names).fetch_all(&mut **tx).await? {
        gates.rates.insert(row.try_get(0)?, row.try_get(1)?);
    }
    for row in sqlx::query(HOLDERS).bind(&names).fetch_all(&mut **tx).await? {
        gates.holders.entry(row.try_get(0)?).or_default().insert(row.try_get(1)?);
    }
    Ok(gates)
}

pub(super) async fn stop(tx: &mut Tx, stopped: &[&Stopped]) -> Result<(), Error> {
    if stopped.is_empty() {
        return Ok(());
    }
    sqlx::query(STOP)
        .bind(stopped.iter().map(|one| one.task_no).collect::<Vec<_>>())
        .bind(stopped.iter().map(|one| one.gate.name()).collect::<Vec<_>>())
        .bind(stopped.iter().map(|one| one.gate.max()).collect::<Vec<_>>())
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
