//! Limits on what is published: pure, the same for both adapters.
//!
//! A task passes all its gates at once or waits at the first that stops it, in the order of acceptance: once a gate has stopped
//! a task, it stops everything that comes after it in the same pass. A rate is spaced evenly; of a fast one it is made up for what a
//! pass was late by, up to [`SLACK`]. Only what certainly reached the broker counts: [`Gates::settle`].

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::limits::{KEY, PACE, Rule, Rules};
use super::{Carrier, Task};
use celery::task::TaskId;
use celery::task::limit::KeyLimit;
use runtime::clock::Time;

/// What is looked at of each gate in one pass.
pub(super) const HEADS: i64 = 50;
/// A pass may be this late without a rate of more than one a second losing anything: some tasks then follow each other more closely.
const SLACK: i64 = 200_000;
/// The same for very fast rates, of which several tasks pass at once.
const LEAST_SLACK: i64 = 20_000;
const SECOND: i64 = 1_000_000;

/// What may stop a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gate {
    /// The least time between two publications, in microseconds.
    Rate { name: String, interval: i64 },
    /// How many of the key may be under way.
    Key { name: String, max: i32 },
}

impl Gate {
    pub fn name(&self) -> &str {
        match self {
            Self::Rate { name, .. } | Self::Key { name, .. } => name,
        }
    }

    /// What the outbox notes beside the name.
    pub fn max(&self) -> Option<i32> {
        match self {
            Self::Rate { .. } => None,
            Self::Key { max, .. } => Some(*max),
        }
    }
}

/// The rate of a task of the catalog; those of keys have [`PACE`] before them.
const RATE: &str = "rate ";

/// All gates of a task, with what is said by hand of its keys.
pub(super) fn gates_of(task: &Task, carrier: &dyn Carrier, rules: &Rules) -> Vec<Gate> {
    let mut gates = Vec::new();
    if let Some(name) = &task.name
        && let Some(pace) = carrier.pace(name)
    {
        let interval = i64::try_from(pace.as_micros()).unwrap_or(i64::MAX).max(1);
        gates.push(Gate::Rate { name: format!("{RATE}{name}"), interval });
    }
    let limits = task.options.limits.as_ref().and_then(|limits| Vec::<KeyLimit>::deserialize(limits).ok());
    for limit in limits.unwrap_or_default() {
        push_key(&mut gates, &limit, rules.get(&limit.key));
    }
    gates
}

fn push_key(gates: &mut Vec<Gate>, limit: &KeyLimit, rule: Option<&Rule>) {
    let limit = rule.map_or_else(|| limit.clone(), |rule| rule.over(limit));
    let name = |kind: &str| super::rows::clean(&format!("{kind}{}", limit.key)).into_owned();
    if let Some(max) = limit.max {
        gates.push(Gate::Key { name: name(KEY), max: i32::try_from(max).unwrap_or(i32::MAX) });
    }
    if let Some(rate) = &limit.rate {
        gates.push(Gate::Rate { name: name(PACE), interval: rate.interval_micros() });
    }
}

/// The gate at which a task waits from the beginning, so that the next one sees it there: that of its first limit that does not just
/// hold.
pub(super) fn first_gate(limits: &[KeyLimit]) -> Option<Gate> {
    let mut gates = Vec::new();
    push_key(&mut gates, limits.iter().find(|limit| !limit.on_limit.is_hold())?, None);
    gates.into_iter().next()
}

/// A gate at which tasks wait, as the ledger sees it.
pub(super) struct Waiting {
    pub gate: String,
    /// Of the task that waits longest; null at a rate.
    pub max: Option<i32>,
    pub opens_at: Option<i64>,
    pub holders: i64,
}

impl Waiting {
    /// Whether the first task may go, as far as this gate is concerned.
    pub fn is_open(&self, now: Time, carrier: &dyn Carrier, rules: &Rules) -> bool {
        let rule = self.key().and_then(|key| rules.get(key));
        if rule.is_some_and(|rule| rule.paused) {
            return false;
        }
        match self.max {
            Some(max) => {
                let said = rule.and_then(|rule| rule.max).and_then(|max| i32::try_from(max).ok());
                // Zero was noted while the key was paused: what the task itself says is looked up when its turn has come.
                max == 0 || self.holders < i64::from(said.unwrap_or(max))
            }
            None => self.opening(carrier, rules).is_none_or(|at| at <= now),
        }
    }

    fn key(&self) -> Option<&str> {
        self.gate.strip_prefix(KEY).or_else(|| self.gate.strip_prefix(PACE))
    }

    /// When a rate lets the next task pass; `None` when it is none, or none any more.
    pub fn opening(&self, carrier: &dyn Carrier, rules: &Rules) -> Option<Time> {
        match (self.gate.strip_prefix(RATE), self.gate.strip_prefix(PACE)) {
            _ if self.max.is_some() => return None,
            (Some(name), _) => drop(carrier.pace(name)?),
            (None, Some(key)) if rules.get(key).is_some_and(|rule| rule.paused) => return None,
            (None, Some(_)) => {}
            (None, None) => return None,
        }
        Some(Time(self.opens_at.unwrap_or(0)))
    }
}

/// The state of all gates that a pass meets.
#[derive(Clone, Default)]
pub(super) struct Gates {
    /// When a rate opens.
    pub rates: HashMap<String, i64>,
    /// Tasks under way, by key.
    pub holders: HashMap<String, HashSet<i64>>,
    closed: HashSet<String>,
}

impl Gates {
    /// Lets the task pass and counts it, or says what stops it.
    pub fn admit(&mut self, task_no: i64, gates: &[Gate], now: Time) -> Result<(), Gate> {
        let stop = gates.iter().find(|gate| !self.lets_pass(task_no, gate, now));
        if let Some(gate) = stop {
            self.close(gate.name());
            return Err(gate.clone());
        }
        self.count(task_no, gates, now);
        Ok(())
    }

    /// Nothing more passes here in this pass.
    pub fn close(&mut self, gate: &str) {
        self.closed.insert(gate.to_owned());
    }

    fn lets_pass(&self, task_no: i64, gate: &Gate, now: Time) -> bool {
        if self.holders.get(gate.name()).is_some_and(|holders| holders.contains(&task_no)) {
            return true;
        }
        if self.closed.contains(gate.name()) {
            return false;
        }
        match gate {
            Gate::Rate { name, .. } => self.rates.get(name).is_none_or(|at| *at <= now.0),
            Gate::Key { name, max } => {
                self.holders.get(name).map_or(0, HashSet::len) < usize::try_from(*max).unwrap_or(0)
            }
        }
    }

    fn count(&mut self, task_no: i64, gates: &[Gate], now: Time) {
        for gate in gates {
            match gate {
                Gate::Rate { name, interval } => {
                    let at = self.rates.entry(name.clone()).or_default();
                    *at = counted_from(*at, *interval, now.0).saturating_add(*interval);
                }
                Gate::Key { name, .. } => {
                    self.holders.entry(name.clone()).or_default().insert(task_no);
                }
            }
        }
    }

    /// What is to be written: `self` as it was before the pass, and what was carried, in order.
    pub fn settle<'a>(mut self, carried: impl Iterator<Item = (i64, &'a [Gate])>, now: Time) -> Settled {
        let mut settled = Settled::default();
        let mut rates = HashMap::new();
        for (task_no, gates) in carried {
            self.count(task_no, gates, now);
            for gate in gates {
                match gate {
                    Gate::Rate { name, interval } => {
                        rates.insert(name.clone(), *interval);
                    }
                    Gate::Key { name, max } => settled.holds.push((name.clone(), task_no, *max)),
                }
            }
        }
        let opens = |(name, interval): (String, i64)| self.rates.remove(&name).map(|at| (name, at, interval));
        settled.rates = rates.into_iter().filter_map(opens).collect();
        settled
    }
}

/// From when the next interval of a rate counts: from when it opened, if that was just now, else from the present. A slow rate never has
/// two starts closer to each other than it says.
fn counted_from(opened: i64, interval: i64, now: i64) -> i64 {
    let slack = if interval >= SECOND { 0 } else { SLACK.min(interval).max(LEAST_SLACK) };
    match now - opened {
        late if late <= slack => opened,
        _ if interval < LEAST_SLACK => now - slack,
        _ => now,
    }
}

/// What a pass changed at the gates.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Name, when it opens again, least time between two starts.
    pub rates: Vec<(String, i64, i64)>,
    /// Name, task, how many may be under way.
    pub holds: Vec<(String, i64, i32)>,
}

/// Where more wait than were looked at: the gate, and the last that was looked at. Nobody who comes after passes in this pass.
pub(super) struct Heads(Vec<(String, i64)>);

impl Heads {
    /// `heads` by number.
    pub fn new(heads: &[(String, i64)]) -> Self {
        let mut counts: HashMap<&str, (i64, i64)> = HashMap::new();
        for (gate, task_no) in heads {
            let (count, last) = counts.entry(gate).or_default();
            (*count, *last) = (*count + 1, *task_no);
        }
        let full = counts.into_iter().filter(|(_, (count, _))| *count >= HEADS);
        Self(full.map(|(gate, (_, last))| (gate.to_owned(), last)).collect())
    }

    pub fn close_before(&self, task_no: i64, gates: &mut Gates) {
        self.0.iter().filter(|(_, last)| *last < task_no).for_each(|(gate, _)| gates.close(gate));
    }
}

/// What was let through, with the state of the gates before.
pub(super) struct Passes {
    before: Gates,
    passed: Vec<(i64, Vec<Gate>)>,
    /// When the first rate opens again that stopped somebody.
    pub opening: Option<Time>,
}

impl Passes {
    pub fn new(before: Gates) -> Self {
        Self { before, passed: Vec::new(), opening: None }
    }

    pub fn note(&mut self, task_no: i64, gates: Vec<Gate>) {
        if !gates.is_empty() {
            self.passed.push((task_no, gates));
        }
    }

    pub fn note_stop(&mut self, gate: &Gate, state: &Gates) {
        let opens = state.rates.get(gate.name()).copied().map(Time);
        self.opening = [self.opening, opens].into_iter().flatten().min();
    }

    pub fn settled(self, carried: &[i64], now: Time) -> Settled {
        let carried: HashSet<i64> = carried.iter().copied().collect();
        let passed = self.passed.iter().filter(|(task_no, _)| carried.contains(task_no));
        self.before.settle(passed.map(|(task_no, gates)| (*task_no, gates.as_slice())), now)
    }
}

/// A row of the outbox that stays, and where it waits.
pub(super) struct Stopped {
    pub task_no: i64,
    pub id: TaskId,
    pub gate: Gate,
    /// It waited there before.
    pub is_there: bool,
}

impl Stopped {
    /// For the task's history.
    pub fn reason(&self) -> String {
        explain(self.gate.name())
    }
}

fn explain(gate: &str) -> String {
    match (gate.strip_prefix(RATE), gate.strip_prefix(KEY), gate.strip_prefix(PACE)) {
        (Some(name), _, _) => format!("the rate limit of {name}"),
        (None, Some(key), _) => format!("the limit of {key}"),
        (None, None, Some(key)) => format!("the rate of {key}"),
        (None, None, None) => gate.to_owned(),
    }
}

/// Why a task waits in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtGate {
    /// `the rate limit of tasks.add`
    pub gate: String,
    /// How many of the key may be under way; null at a rate.
    pub max: Option<i32>,
    /// When the rate lets the next one pass.
    pub opens_at: Option<Time>,
    /// Tasks that go before it, counted up to 10,000.
    pub ahead: i64,
    /// Tasks of the key that are under way.
    pub under_way: i64,
    /// The oldest of them.
    pub holders: Vec<TaskId>,
}

impl AtGate {
    /// The key, when it is one that the task names.
    pub fn key(&self) -> Option<&str> {
        self.gate.strip_prefix("the limit of ").or_else(|| self.gate.strip_prefix("the rate of "))
    }

    pub(super) fn new(gate: &str, max: Option<i32>, opens_at: Option<i64>, ahead: i64, under_way: i64) -> Self {
        let opens_at = opens_at.map(Time);
        Self { gate: explain(gate), max, opens_at, ahead, under_way, holders: Vec::new() }
    }
}

#[cfg(test)]
#[path = "gates_tests.rs"]
mod tests;
