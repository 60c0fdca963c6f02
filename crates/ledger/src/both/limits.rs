//! Keys of limits, their rules, and where a task waits.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::Row;

use super::dialect::{Adapter, AdapterRow, Tx, among, decide_alone, keys, list, task_id};
use super::rate_gates::{AT_GATE, UNDER_WAY};
use crate::limits::{InLine, KEY, KeyState, PACE, Rule, Rules, merged, range};
use crate::rate_gates::AtGate;
use crate::statements::statements;
use crate::{Error, Limits};
use celery::task::TaskId;
use celery::task::limit::Rate;
use runtime::clock::Time;

statements! {
    RULES = "select key, most, rate, paused, changed_at from limit_rule limit 10000";
    SET_RULE = "insert into limit_rule (key, most, rate, paused, changed_at) values ($1, $2, $3, $4, $5) \
         on conflict (key) do update set most = excluded.most, rate = excluded.rate, paused = excluded.paused, changed_at = excluded.changed_at";
    NO_RULE = "delete from limit_rule where key = $1";
    NO_RATE = "delete from gate_rate where gate = $1";
    /// Gates at which tasks wait, found by skipping along the index.
    WAITED_FOR = "with recursive found as (\
         select * from (select gate from outbox where gate > $1 and gate < $2 order by gate limit 1) as first union all \
         select (select o.gate from outbox o where o.gate > f.gate and o.gate < $2 order by o.gate limit 1) \
         from found f where f.gate is not null) select gate from found where gate is not null limit $3";
    /// Gates with unfinished tasks.
    HELD = "with recursive found as (\
         select * from (select gate from gate_hold where gate > $1 and gate < $2 order by gate limit 1) as first union all \
         select (select h.gate from gate_hold h where h.gate > f.gate and h.gate < $2 order by h.gate limit 1) \
         from found f where f.gate is not null) select gate from found where gate is not null limit $3";
    PACED = "select gate from gate_rate where gate > $1 and gate < $2 order by gate limit $3";
    /// Adds the prefix of key gates, so that all sources return names in the same form.
    RULED = "select 'key ' || key from limit_rule where key > $1 and key < $2 order by key limit $3";
    STATES = concat!(
        "select k.key, \
         (select count(*) from gate_hold h where h.gate = 'key ' || k.key) as under_way, \
         (select count(*) from (select 1 from outbox o where o.gate = 'key ' || k.key limit 10000) as w) + \
         (select count(*) from (select 1 from outbox o where o.gate = 'pace ' || k.key limit 10000) as w) as waiting, \
         coalesce((select max(h.most) from gate_hold h where h.gate = 'key ' || k.key), \
         (select o.gate_max from outbox o where o.gate = 'key ' || k.key order by o.task_no limit 1)) as max, \
         g.opens_at, g.spacing, r.most, r.rate, r.paused, r.changed_at from ",
        keys!("$1"),
        " \
         left join limit_rule r on r.key = k.key left join gate_rate g on g.gate = 'pace ' || k.key order by k.key"
    );
    BEFORE = concat!(
        "select ",
        task_id!(),
        " from outbox o join task t on t.task_no = o.task_no where o.gate ",
        among!("$1"),
        " and o.task_no < $2 order by o.task_no limit $3"
    );
    IN_LINE = "select o.line, o.share, \
         (select count(*) from (select 1 from outbox b where b.line = o.line and b.rank < o.rank limit 10000) as other) + \
         (select count(*) from (select 1 from outbox b where b.line = o.line and b.rank = o.rank and b.share = o.share \
         and b.task_no < o.task_no limit 10000) as own) as ahead, \
         (select count(*) from window_slot s where s.queue = o.line) as in_broker \
         from outbox o where o.task_no = $1 and o.line is not null";
}

/// All rules set by hand.
pub(super) async fn rules(tx: &mut Tx) -> Result<Rules, Error> {
    let rows = sqlx::query(RULES).fetch_all(&mut **tx).await?;
    let rule = |row: &AdapterRow| Ok((row.try_get("key")?, rule_of(row)?.map(|(rule, _)| rule).unwrap_or_default()));
    rows.iter().map(rule).collect()
}

fn rule_of(row: &AdapterRow) -> Result<Option<(Rule, Time)>, Error> {
    let Some(changed_at) = row.try_get::<Option<i64>, _>("changed_at")? else { return Ok(None) };
    let most: Option<i32> = row.try_get("most")?;
    let rate: Option<String> = row.try_get("rate")?;
    let rule = Rule {
        max: most.and_then(|most| u32::try_from(most).ok()),
        rate: rate.and_then(|text| Rate::parse(&text).ok()),
        paused: row.try_get("paused")?,
    };
    Ok(Some((rule, Time(changed_at))))
}

fn state(row: &AdapterRow) -> Result<KeyState, Error> {
    Ok(KeyState {
        key: row.try_get("key")?,
        rule: rule_of(row)?,
        max: row.try_get::<Option<i32>, _>("max")?.and_then(|max| u32::try_from(max).ok()),
        interval: row.try_get("spacing")?,
        under_way: row.try_get("under_way")?,
        waiting: row.try_get("waiting")?,
        opens_at: row.try_get::<Option<i64>, _>("opens_at")?.map(Time),
    })
}

/// The state of these keys, for submissions that may be refused. Excludes other such transactions with the same keys until `tx` ends.
pub(super) async fn decide(tx: &mut Tx, keys: &[String]) -> Result<HashMap<String, KeyState>, Error> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    decide_alone(tx, keys).await?;
    let rows = sqlx::query(STATES).bind(list(keys)).fetch_all(&mut **tx).await?;
    rows.iter().map(|row| state(row).map(|state| (state.key.clone(), state))).collect()
}

#[async_trait]
impl Limits for Adapter {
    async fn at_gate(&self, task_no: i64) -> Result<Option<AtGate>, Error> {
        let Some(row) = sqlx::query(AT_GATE).bind(task_no).fetch_optional(self.reads()).await? else {
            return Ok(None);
        };
        let gate: String = row.try_get("gate")?;
        let (max, opens_at) = (row.try_get("gate_max")?, row.try_get("opens_at")?);
        let mut at = AtGate::new(&gate, max, opens_at, row.try_get("ahead")?, row.try_get("under_way")?);
        for row in sqlx::query(UNDER_WAY).bind(&gate).fetch_all(self.reads()).await? {
            at.holders.extend(TaskId::parse(row.try_get::<String, _>(0)?).ok());
        }
        Ok(Some(at))
    }

    async fn in_line(&self, task_no: i64) -> Result<Option<InLine>, Error> {
        let Some(row) = sqlx::query(IN_LINE).bind(task_no).fetch_optional(self.reads()).await? else {
            return Ok(None);
        };
        let (queue, share) = (row.try_get("line")?, row.try_get("share")?);
        Ok(Some(InLine { queue, share, ahead: row.try_get("ahead")?, in_broker: row.try_get("in_broker")? }))
    }

    async fn keys(&self, prefix: &str, after: &str, limit: i64) -> Result<Vec<KeyState>, Error> {
        let mut found = Vec::new();
        let places = [(WAITED_FOR, KEY), (WAITED_FOR, PACE), (HELD, KEY), (PACED, PACE), (RULED, "")].map(
            |(statement, kind)| {
                let (low, high) = range(kind, prefix, after);
                (statement, low, high)
            },
        );
        for (statement, low, high) in places {
            for row in sqlx::query(statement).bind(low).bind(high).bind(limit).fetch_all(self.reads()).await? {
                found.push(row.try_get(0)?);
            }
        }
        let rows = sqlx::query(STATES).bind(list(&merged(found, limit))).fetch_all(self.reads()).await?;
        rows.iter().map(state).collect()
    }

    async fn key(&self, key: &str) -> Result<KeyState, Error> {
        state(&sqlx::query(STATES).bind(list(&[key])).fetch_one(self.reads()).await?)
    }

    async fn set_rule(&self, key: &str, rule: &Rule, at: Time) -> Result<(), Error> {
        let most = rule.max.and_then(|max| i32::try_from(max).ok());
        let rate = rule.rate.as_ref().map(Rate::as_str);
        let query = sqlx::query(SET_RULE).bind(key).bind(most).bind(rate).bind(rule.paused).bind(at.0);
        query.execute(self.writes()).await?;
        Ok(())
    }

    async fn reset_key(&self, key: &str) -> Result<bool, Error> {
        let rule = sqlx::query(NO_RULE).bind(key).execute(self.writes()).await?.rows_affected();
        let rate = sqlx::query(NO_RATE).bind(format!("{PACE}{key}")).execute(self.writes()).await?.rows_affected();
        Ok(rule + rate > 0)
    }

    async fn waiting_before(&self, keys: &[String], task_no: i64, limit: i64) -> Result<Vec<TaskId>, Error> {
        let gates: Vec<String> = keys.iter().flat_map(|key| [format!("{KEY}{key}"), format!("{PACE}{key}")]).collect();
        let rows = sqlx::query(BEFORE).bind(list(&gates)).bind(task_no).bind(limit).fetch_all(self.reads()).await?;
        let ids = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
        Ok(ids.into_iter().filter_map(|id| TaskId::parse(id).ok()).collect())
    }
}
