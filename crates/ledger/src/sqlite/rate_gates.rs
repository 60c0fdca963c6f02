//! Rate gates: waiting tasks, tasks under way, and the changes of a pass.

use std::collections::HashSet;

use sqlx::Row;

use super::pool::{Tx, list};
use crate::Error;
use crate::rate_gates::{HEADS, RateGate, RateGates, Settled, Stopped, Waiting};
use crate::statements::statements;

statements! {
    /// Each gate once, by skipping along the index, with its first task's values. Further gates wait for a later pass.
    WAITING = "with recursive waiting as (\
         select * from (select gate from outbox where gate is not null order by gate limit 1) union all \
         select (select o.gate from outbox o where o.gate > w.gate order by o.gate limit 1) \
         from waiting w where w.gate is not null) \
         select w.gate, (select o.gate_max from outbox o where o.gate = w.gate order by o.task_no limit 1) as gate_max, \
         (select r.opens_at from gate_rate r where r.gate = w.gate) as opens_at, \
         (select count(*) from gate_hold h where h.gate = w.gate) as holders \
         from waiting w where w.gate is not null limit 10000";
    FIRST = "select g.value, o.task_no from json_each($1) g join outbox o on o.gate = g.value \
         and o.task_no <= (select max(task_no) from (select task_no from outbox where gate = g.value order by task_no limit $2)) \
         order by o.task_no";
    RATES = "select gate, opens_at from gate_rate where gate in (select value from json_each($1))";
    HOLDERS = "select gate, task_no from gate_hold where gate in (select value from json_each($1))";
    STOP = "update outbox set gate = $2, gate_max = $3, parked = 0, \
         line = null, rank = null, share = null, wake_at = coalesce((select expires_at from task t where t.task_no = outbox.task_no), 9223372036854775807) where task_no = $1";
    OPENS = "insert into gate_rate (gate, opens_at, spacing) values ($1, $2, $3) \
         on conflict (gate) do update set opens_at = excluded.opens_at, spacing = excluded.spacing";
    /// Counts a task as under way, unless it has ended meanwhile.
    HOLD = "insert into gate_hold (gate, task_no, most) select $1, $2, $3 \
         where exists (select 1 from unfinished u where u.task_no = $2) on conflict do nothing";
    AT_GATE = "select o.gate, o.gate_max, (select count(*) from (select 1 from outbox b \
         where b.gate = o.gate and b.task_no < o.task_no limit 10000) as before) as ahead, \
         (select opens_at from gate_rate r where r.gate = o.gate) as opens_at, \
         (select count(*) from gate_hold h where h.gate = o.gate) as under_way \
         from outbox o where o.task_no = $1 and o.gate is not null";
    UNDER_WAY = "select t.task_id from gate_hold h join task t on t.task_no = h.task_no \
         where h.gate = $1 order by h.task_no limit 5";
}

pub(super) async fn waiting(tx: &mut Tx) -> Result<Vec<Waiting>, Error> {
    let rows = sqlx::query(WAITING).fetch_all(&mut **tx).await?;
    let waiting = |row: &sqlx::sqlite::SqliteRow| {
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
    let rows = sqlx::query(FIRST).bind(list(gates)).bind(HEADS).fetch_all(&mut **tx).await?;
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
    for row in sqlx::query(RATES).bind(list(&names)).fetch_all(&mut **tx).await? {
        gates.rates.insert(row.try_get(0)?, row.try_get(1)?);
    }
    for row in sqlx::query(HOLDERS).bind(list(&names)).fetch_all(&mut **tx).await? {
        gates.holders.entry(row.try_get(0)?).or_default().insert(row.try_get(1)?);
    }
    Ok(gates)
}

pub(super) async fn stop(tx: &mut Tx, stopped: &[&Stopped]) -> Result<(), Error> {
    for one in stopped {
        let query = sqlx::query(STOP).bind(one.task_no).bind(one.gate.name()).bind(one.gate.max());
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

pub(super) async fn settle(tx: &mut Tx, settled: Settled) -> Result<(), Error> {
    for (gate, opens_at, spacing) in settled.rates {
        sqlx::query(OPENS).bind(gate).bind(opens_at).bind(spacing).execute(&mut **tx).await?;
    }
    for (gate, task_no, most) in settled.holds {
        sqlx::query(HOLD).bind(gate).bind(task_no).bind(most).execute(&mut **tx).await?;
    }
    Ok(())
}
