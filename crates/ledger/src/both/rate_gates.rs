//! Rate gates: the tasks that wait at them and those under way. The adapter's `gate_writes` changes them.

use std::collections::HashSet;

use sqlx::Row;

use super::dialect::{AdapterRow, Tx, among, keys, list, task_id};
use crate::Error;
use crate::rate_gates::{RateGate, RateGates, Waiting};
use crate::statements::statements;
use runtime::clock::Time;

statements! {
    /// The gates that a pass looks at, each with the values of its first task: those whose time has come (`$1` now, `$3` limit), and
    /// those of which there is news (`$2`).
    LOOK = concat!(
        "select d.gate, (select o.gate_max from outbox o where o.gate = d.gate order by o.task_no limit 1) as gate_max, \
         (select r.opens_at from gate_rate r where r.gate = d.gate) as opens_at, \
         (select r.spacing from gate_rate r where r.gate = d.gate) as spacing, \
         (select count(*) from gate_hold h where h.gate = d.gate) as holders \
         from (select first.gate from (select w.gate from gate_wait w where w.look_at <= $1 \
         order by w.look_at, w.gate limit $3) as first union select k.key from ",
        keys!("$2"),
        ") as d"
    );
    /// When rates open, the tasks under way, and (without either) at which gates tasks wait.
    STATES = concat!(
        "select gate, opens_at, cast(null as bigint) as task_no from gate_rate where gate ",
        among!("$1"),
        " union all select gate, cast(null as bigint), task_no from gate_hold where gate ",
        among!("$1"),
        " union all select gate, cast(null as bigint), cast(null as bigint) from gate_wait where gate ",
        among!("$1")
    );
    /// When the next pass must look at a gate, and whether tasks wait until others have ended.
    STANDING = "select (select min(look_at) from gate_wait) as next_look, \
         exists (select 1 from gate_wait where gate > 'key ' and gate < 'key!') as for_ends";
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

/// How many gates a pass reads whose time has come.
pub(super) const LOOKS: usize = 1_000;

/// The gates that a pass must look at.
pub(super) async fn look(tx: &mut Tx, now: Time, news: &[String]) -> Result<Vec<Waiting>, Error> {
    let query = sqlx::query(LOOK).bind(now.0).bind(list(news)).bind(LOOKS as i64);
    let rows = query.fetch_all(&mut **tx).await?;
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

/// When the next pass must look at a gate, and whether tasks wait until others have ended.
pub(super) async fn standing(tx: &mut Tx) -> Result<(Option<Time>, bool), Error> {
    let row = sqlx::query(STANDING).fetch_one(&mut **tx).await?;
    Ok((row.try_get::<Option<i64>, _>(0)?.map(Time), row.try_get(1)?))
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
        let gate = row.try_get(0)?;
        match (row.try_get(1)?, row.try_get(2)?) {
            (Some(opens_at), _) => drop(gates.rates.insert(gate, opens_at)),
            (None, Some(task_no)) => drop(gates.holders.entry(gate).or_default().insert(task_no)),
            (None, None) => drop(gates.waited_for.insert(gate)),
        }
    }
    Ok(gates)
}
