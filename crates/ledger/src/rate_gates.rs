//! Rate gates: limits on publishing (a rate, or a maximum under way). Pure, shared by both adapters.
//!
//! A task passes all its gates at once, or waits at the first that stops it, in the order of acceptance: a gate that has stopped a task
//! also stops all later tasks in the same pass. Starts are spaced evenly; for a fast rate, the lateness of a pass is made up for, up to
//! [`SLACK`]. Only tasks that certainly reached the broker count: [`RateGates::settle`].

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::limits::{KEY, PACE, Rule, Rules};
use super::looks::Looks;
use super::{Carrier, Task};
use celery::task::TaskId;
use celery::task::limit::KeyLimit;
use runtime::clock::Time;

/// How many waiting tasks of a gate are read in one pass, at most.
const HEADS: i64 = 50;
/// How many of a key's are read at least.
const KEY_HEADS: i64 = 16;
/// A pass may run up to this much late and still release the full rate, if that is more than one per second: some tasks then follow each
/// other more closely.
const SLACK: i64 = 200_000;
/// The minimum for very fast rates, where several tasks pass at once.
const LEAST_SLACK: i64 = 20_000;
const SECOND: i64 = 1_000_000;

/// A limit that may stop a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RateGate {
    /// The shortest interval between two publications, in microseconds.
    Rate { name: String, interval: i64 },
    /// How many tasks of the key may be under way.
    Key { name: String, max: i32 },
}

impl RateGate {
    pub fn name(&self) -> &str {
        match self {
            Self::Rate { name, .. } | Self::Key { name, .. } => name,
        }
    }

    /// The maximum, which the outbox stores beside the name.
    pub fn max(&self) -> Option<i32> {
        match self {
            Self::Rate { .. } => None,
            Self::Key { max, .. } => Some(*max),
        }
    }
}

/// Prefix of gates for the catalog's task rates; rates of keys have the prefix [`PACE`].
const RATE: &str = "rate ";

/// All gates of a task, with rules set by hand applied.
pub(super) fn gates_of(task: &Task, carrier: &dyn Carrier, rules: &Rules) -> Vec<RateGate> {
    let mut gates = Vec::new();
    if let Some(name) = &task.name
        && let Some(pace) = carrier.pace(name)
    {
        let interval = i64::try_from(pace.as_micros()).unwrap_or(i64::MAX).max(1);
        gates.push(RateGate::Rate { name: format!("{RATE}{name}"), interval });
    }
    let limits = task.options.limits.as_ref().and_then(|limits| Vec::<KeyLimit>::deserialize(limits).ok());
    for limit in limits.unwrap_or_default() {
        push_key(&mut gates, &limit, rules.get(&limit.key));
    }
    gates
}

fn push_key(gates: &mut Vec<RateGate>, limit: &KeyLimit, rule: Option<&Rule>) {
    let limit = rule.map_or_else(|| limit.clone(), |rule| rule.over(limit));
    let name = |kind: &str| super::rows::clean(&format!("{kind}{}", limit.key)).into_owned();
    if let Some(max) = limit.max {
        gates.push(RateGate::Key { name: name(KEY), max: i32::try_from(max).unwrap_or(i32::MAX) });
    }
    if let Some(rate) = &limit.rate {
        gates.push(RateGate::Rate { name: name(PACE), interval: rate.interval_micros() });
    }
}

/// The gate at which a task waits from its acceptance, so that the next task sees it there: the gate of its first limit whose `on_limit`
/// is not `hold`.
pub(super) fn first_gate(limits: &[KeyLimit]) -> Option<RateGate> {
    let mut gates = Vec::new();
    push_key(&mut gates, limits.iter().find(|limit| !limit.on_limit.is_hold())?, None);
    gates.into_iter().next()
}

/// A gate at which tasks wait, with its state in the ledger.
pub(super) struct Waiting {
    pub gate: String,
    /// The maximum according to the task that waits longest; null for a rate.
    pub max: Option<i32>,
    pub opens_at: Option<i64>,
    /// The rate's shortest interval between two starts, as the last task that passed said; `None` if there is no record of it.
    pub spacing: Option<i64>,
    pub holders: i64,
}

/// A gate that lets tasks pass now, and how many of its waiting tasks a pass reads.
pub(super) struct Open {
    pub gate: String,
    pub heads: i64,
}

impl Waiting {
    pub fn into_open(self, rules: &Rules) -> Open {
        Open { heads: self.heads(rules), gate: self.gate }
    }

    /// How many waiting tasks to read: as many as may pass, and a few more in case some have ended or another gate stops them. Reading all
    /// would delay the pass.
    fn heads(&self, rules: &Rules) -> i64 {
        let said = self.key().and_then(|key| rules.get(key)).and_then(|rule| rule.max);
        let most = match (self.max, self.spacing) {
            // Tasks of one key may have different limits; this is the limit of the first.
            (Some(max), _) if max > 0 => {
                let room = said.map_or_else(|| i64::from(max), i64::from) - self.holders;
                room.saturating_add(1).max(KEY_HEADS)
            }
            (None, Some(spacing)) if spacing > 0 => slack(spacing) / spacing + 2,
            _ => HEADS,
        };
        most.min(HEADS)
    }

    /// Whether this gate lets the first task pass.
    pub fn is_open(&self, now: Time, carrier: &dyn Carrier, rules: &Rules) -> bool {
        let rule = self.key().and_then(|key| rules.get(key));
        if rule.is_some_and(|rule| rule.paused) {
            return false;
        }
        match self.max {
            Some(max) => {
                let said = rule.and_then(|rule| rule.max).and_then(|max| i32::try_from(max).ok());
                // Zero was stored while the key was paused; then the task's own limit is checked when the task is read.
                max == 0 || self.holders < i64::from(said.unwrap_or(max))
            }
            None => self.opening(carrier, rules).is_none_or(|at| at <= now),
        }
    }

    fn key(&self) -> Option<&str> {
        self.gate.strip_prefix(KEY).or_else(|| self.gate.strip_prefix(PACE))
    }

    /// When a rate lets the next task pass; `None` if it is not a rate, or no longer one.
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

/// The state of all gates in a pass.
#[derive(Clone, Default)]
pub(super) struct RateGates {
    /// When each rate opens.
    pub rates: HashMap<String, i64>,
    /// Tasks under way, by key.
    pub holders: HashMap<String, HashSet<i64>>,
    /// Gates at which tasks wait.
    pub waited_for: HashSet<String>,
    closed: HashSet<String>,
}

impl RateGates {
    /// Lets the task pass and counts it, or returns the gate that stops it.
    pub fn admit(&mut self, task_no: i64, gates: &[RateGate], now: Time) -> Result<(), RateGate> {
        let stop = gates.iter().find(|gate| !self.lets_pass(task_no, gate, now));
        if let Some(gate) = stop {
            self.close(gate.name());
            return Err(gate.clone());
        }
        self.count(task_no, gates, now);
        Ok(())
    }

    /// Closes a gate for the rest of this pass.
    pub fn close(&mut self, gate: &str) {
        self.closed.insert(gate.to_owned());
    }

    fn lets_pass(&self, task_no: i64, gate: &RateGate, now: Time) -> bool {
        if self.holders.get(gate.name()).is_some_and(|holders| holders.contains(&task_no)) {
            return true;
        }
        if self.closed.contains(gate.name()) {
            return false;
        }
        match gate {
            RateGate::Rate { name, .. } => self.rates.get(name).is_none_or(|at| *at <= now.0),
            RateGate::Key { name, max } => self.has_room(name, *max),
        }
    }

    /// Whether fewer tasks of a key are under way than this.
    pub fn has_room(&self, name: &str, max: i32) -> bool {
        self.holders.get(name).map_or(0, HashSet::len) < usize::try_from(max).unwrap_or(0)
    }

    fn count(&mut self, task_no: i64, gates: &[RateGate], now: Time) {
        for gate in gates {
            match gate {
                RateGate::Rate { name, interval } => {
                    let at = self.rates.entry(name.clone()).or_default();
                    *at = counted_from(*at, *interval, now.0).saturating_add(*interval);
                }
                RateGate::Key { name, .. } => {
                    self.holders.entry(name.clone()).or_default().insert(task_no);
                }
            }
        }
    }

    /// What must be written, computed from the state before the pass (`self`) and the published tasks, in order.
    pub fn settle<'a>(mut self, carried: impl Iterator<Item = (i64, &'a [RateGate])>, now: Time) -> Settled {
        let mut settled = Settled::default();
        let mut rates = HashMap::new();
        for (task_no, gates) in carried {
            self.count(task_no, gates, now);
            for gate in gates {
                match gate {
                    RateGate::Rate { name, interval } => {
                        rates.insert(name.clone(), *interval);
                    }
                    RateGate::Key { name, max } => settled.holds.push((name.clone(), task_no, *max)),
                }
            }
        }
        let opens = |(name, interval): (String, i64)| self.rates.remove(&name).map(|at| (name, at, interval));
        settled.rates = rates.into_iter().filter_map(opens).collect();
        settled
    }
}

/// When the next interval of a rate begins: when the rate opened, if that was recently, else now. Two starts of a slow rate are never
/// closer than its interval.
fn counted_from(opened: i64, interval: i64, now: i64) -> i64 {
    let slack = slack(interval);
    match now - opened {
        late if late <= slack => opened,
        _ if interval < LEAST_SLACK => now - slack,
        _ => now,
    }
}

/// How late a pass may run and still release the full rate.
fn slack(interval: i64) -> i64 {
    if interval >= SECOND { 0 } else { SLACK.min(interval).max(LEAST_SLACK) }
}

/// The changes of a pass to the gates.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Name, when it opens again, shortest interval between two starts.
    pub rates: Vec<(String, i64, i64)>,
    /// Name, task, how many may be under way.
    pub holds: Vec<(String, i64, i32)>,
}

/// The first tasks of the gates that are open.
pub(super) struct Heads {
    numbers: Vec<i64>,
    open: HashSet<String>,
    /// Gates with more waiting tasks than were read, each with the last task that was read. No later task passes there in this pass.
    cut: Vec<(String, i64)>,
}

impl Heads {
    /// `found` by number, of the open gates.
    pub fn new(found: &[(String, i64)], open: Vec<Open>) -> Self {
        let mut by_gate: HashMap<&str, Vec<i64>> = HashMap::new();
        for (gate, task_no) in found {
            by_gate.entry(gate).or_default().push(*task_no);
        }
        let cut = open.iter().filter_map(|open| {
            let heads = by_gate.get(open.gate.as_str()).filter(|heads| heads.len() as i64 >= open.heads)?;
            Some((open.gate.clone(), *heads.last()?))
        });
        let cut = cut.collect();
        let numbers = found.iter().map(|(_, task_no)| *task_no).collect();
        Self { numbers, open: open.into_iter().map(|open| open.gate).collect(), cut }
    }

    pub fn numbers(&self) -> &[i64] {
        &self.numbers
    }

    /// Closes the gates whose first task may not pass: no other task passes there either.
    pub fn close_shut(&self, gates: &mut RateGates, looks: &Looks) {
        let shut: Vec<String> = gates.waited_for.iter().filter(|gate| !self.open.contains(*gate)).cloned().collect();
        for gate in shut.iter().map(String::as_str).chain(looks.shut()) {
            gates.close(gate);
        }
    }

    pub fn close_before(&self, task_no: i64, gates: &mut RateGates) {
        self.cut.iter().filter(|(_, last)| *last < task_no).for_each(|(gate, _)| gates.close(gate));
    }

    /// Whether another pass would find more at a gate that is still open.
    pub fn are_cut(&self, looks: &Looks, now: Time) -> bool {
        self.cut.iter().any(|(gate, _)| looks.is_due(gate, now))
    }
}

/// The tasks that were let through, with the earlier state of the gates.
pub(super) struct Passes {
    before: RateGates,
    passed: Vec<(i64, Vec<RateGate>)>,
}

impl Passes {
    pub fn new(before: RateGates) -> Self {
        Self { before, passed: Vec::new() }
    }

    pub fn note(&mut self, task_no: i64, gates: Vec<RateGate>) {
        if !gates.is_empty() {
            self.passed.push((task_no, gates));
        }
    }

    /// The gates as the pass leaves them. Tasks that went into a line instead do not count.
    pub fn state(&self, carried: &[i64], now: Time) -> RateGates {
        let mut state = self.before.clone();
        self.carried(carried).for_each(|(task_no, gates)| state.count(task_no, gates, now));
        state
    }

    pub fn settled(self, carried: &[i64], now: Time) -> Settled {
        let before = self.before.clone();
        before.settle(self.carried(carried), now)
    }

    fn carried(&self, carried: &[i64]) -> impl Iterator<Item = (i64, &[RateGate])> {
        let carried: HashSet<i64> = carried.iter().copied().collect();
        let passed = self.passed.iter().filter(move |(task_no, _)| carried.contains(task_no));
        passed.map(|(task_no, gates)| (*task_no, gates.as_slice()))
    }
}

/// A row that stays in the outbox, and the gate where it waits.
pub(super) struct Stopped {
    pub task_no: i64,
    pub id: TaskId,
    pub gate: RateGate,
    /// Whether it waited there before.
    pub is_there: bool,
}

impl Stopped {
    /// The reason in the task's history.
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
    /// How many tasks of the key may be under way; null for a rate.
    pub max: Option<i32>,
    /// When the rate lets the next task pass.
    pub opens_at: Option<Time>,
    /// The number of tasks before it, counted up to 10,000.
    pub ahead: i64,
    /// Tasks of the key that are under way.
    pub under_way: i64,
    /// The oldest tasks under way.
    pub holders: Vec<TaskId>,
}

impl AtGate {
    /// The key, if the task names it.
    pub fn key(&self) -> Option<&str> {
        self.gate.strip_prefix("the limit of ").or_else(|| self.gate.strip_prefix("the rate of "))
    }

    pub(super) fn new(gate: &str, max: Option<i32>, opens_at: Option<i64>, ahead: i64, under_way: i64) -> Self {
        let opens_at = opens_at.map(Time);
        Self { gate: explain(gate), max, opens_at, ahead, under_way, holders: Vec::new() }
    }
}

#[cfg(test)]
#[path = "rate_gates_tests.rs"]
mod tests;
