//! Rate gates: the tasks that wait at them and those under way. The adapter's `gate_writes` changes them.

use std::collections::HashSet;

use sqlx::Row;

use super::dialect::{AdapterRow, Tx, among, list, task_id};
use crate::Error;
use crate::rate_gates::{RateGate, RateGates, Waiting};
use crate::statements::statements;

statements! {
    /// Each gate once, by skipping along the index, with the values of its first task. Gates beyond the limit wait for a later pass.
    WAITING = "with recursive waiting as (\
         select * from (select gate from outbox where gate is not null order by gate limit 1) as first union all \
         select (select o.gate from outbox o where o.gate > w.gate order by o.gate limit 1) \
         from waiting w where w.gate is not null) \
         select w.gate, (select o.gate_max from outbox o where o.gate = w.gate order by o.task_no limit 1) as gate_max, \
         (select r.opens_at from gate_rate r where r.gate = w.gate) as opens_at, \
         (select r.spacing from gate_rate r where r.gate = w.gate) as spacing, \
         (select count(*) from gate_hold h where h.gate = w.gate) as holders \
         from waiting w where w.gate is not null limit 10000";
    /// When rates open, and the tasks under way.
    STATES = concat!(
        "select gate, opens_at, cast(null as bigint) as task_no from gate_rate where gate ",
        among!("$1"),
        " union all select gate, cast(null as bigint), task_no from gate_hold where gate ",
        among!("$1")
    );
    AT_GATE = "select o.gate, o.gate_max, (select count(*) from (select 1 from outbox b \
         where b.gate = o.gate and b.task_no < o.task_no limit 10000) as before) as ahead, \
         (select opens_at from gate_rate r where r.gate = o.gate) as opens_at, \
         (select count(*) from gate_hold h where h.gate = o.gate) as under_way \
         from outbox o where o.task_no = $1 and o.gate is not null";
    UNDER_WAY = concat!(
        "select ",
        task_id!(),
        " from gate_hold h join task t on t.task_no = h.task_no where h.gate = $1 order by h.task_no limit 5"
    );
}

pub(super) async fn waiting(tx: &mut Tx) -> Result<Vec<Waiting>, Error> {
    let rows = sqlx::query(WAITING).fetch_all(&mut **tx).await?;
    let waiting = |row: &AdapterRow| {
        Ok(Waiting {
            gate: row.try_get("gate")?,
            max: row.try_get("gate_max")?,
            opens_at: row.try_get("opens_at")?,
            spacing: row.try_get("spacing")?,
            holders: row.try_get("holders")?,
        })
    };
    rows.iter().map(waiting).collect()
}

/// The state of these gates.
pub(super) async fn load<'a>(tx: &mut Tx, wanted: impl Iterator<Item = &'a RateGate>) -> Result<RateGates, Error> {
    let names: HashSet<&str> = wanted.map(RateGate::name).collect();
    let mut gates = RateGates::default();
    if names.is_empty() {
        return Ok(gates);
    }
    let names: Vec<&str> = names.into_iter().collect();
    for row in sqlx::query(STATES).bind(list(&names)).fetch_all(&mut **tx).await? {
        if let Some(opens_at) = row.try_get(1)? {
            gates.rates.insert(row.try_get(0)?, opens_at);
        }
        if let Some(task_no) = row.try_get(2)? {
            gates.holders.entry(row.try_get(0)?).or_default().insert(task_no);
        }
    }
    Ok(gates)
}
