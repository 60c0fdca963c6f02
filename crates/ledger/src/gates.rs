//! Limits on what is published: pure, the same for both adapters.
//!
//! A task passes all its gates at once or waits at the first that stops it, in the order of acceptance: once a gate has stopped
//! a task, it stops everything that comes after it in the same pass. A rate is spaced evenly; what a pass was late by is made up
//! for, up to [`SLACK`]. Only what certainly reached the broker counts: [`Gates::settle`].

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::{Carrier, Task};
use celery::task::TaskId;
use celery::task::submission::KeyLimit;
use runtime::clock::Time;

/// What is looked at of each gate in one pass.
pub(super) const HEADS: i64 = 50;
/// So late may a pass be without the rate losing anything: some tasks then follow each other more closely.
const SLACK: i64 = 200_000;

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

const RATE: &str = "rate ";
const KEY: &str = "key ";

/// All gates of a task.
pub(super) fn gates_of(task: &Task, carrier: &dyn Carrier) -> Vec<Gate> {
    let mut gates = Vec::new();
    if let Some(name) = &task.name
        && let Some(pace) = carrier.pace(name)
    {
        let interval = i64::try_from(pace.as_micros()).unwrap_or(i64::MAX).max(1);
        gates.push(Gate::Rate { name: format!("{RATE}{name}"), interval });
    }
    let limits = task.options.limits.as_ref().and_then(|limits| Vec::<KeyLimit>::deserialize(limits).ok());
    for limit in limits.unwrap_or_default() {
        gates.push(Gate::Key {
            name: super::rows::clean(&format!("{KEY}{}", limit.key)).into_owned(),
            max: i32::try_from(limit.max).unwrap_or(i32::MAX),
        });
    }
    gates
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
    pub fn is_open(&self, now: Time, carrier: &dyn Carrier) -> bool {
        match self.max {
            Some(max) => self.holders < i64::from(max),
            None => self.opening(carrier).is_none_or(|at| at <= now),
        }
    }

    /// When a rate lets the next task pass; `None` when it is none, or none any more.
    pub fn opening(&self, carrier: &dyn Carrier) -> Option<Time> {
        let name = self.gate.strip_prefix(RATE).filter(|_| self.max.is_none())?;
        carrier.pace(name)?;
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
                    *at = (*at).max(now.0 - SLACK.min(*interval)).saturating_add(*interval);
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
        let mut rates = HashSet::new();
        for (task_no, gates) in carried {
            self.count(task_no, gates, now);
            for gate in gates {
                match gate {
                    Gate::Rate { name, .. } => {
                        rates.insert(name.clone());
                    }
                    Gate::Key { name, .. } => settled.holds.push((name.clone(), task_no)),
                }
            }
        }
        settled.rates = rates.into_iter().filter_map(|name| self.rates.remove(&name).map(|at| (name, at))).collect();
        settled
    }
}

/// What a pass changed at the gates.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub rates: Vec<(String, i64)>,
    pub holds: Vec<(String, i64)>,
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
    match (gate.strip_prefix(RATE), gate.strip_prefix(KEY)) {
        (Some(name), _) => format!("the rate limit of {name}"),
        (None, Some(key)) => format!("the limit of {key}"),
        (None, None) => gate.to_owned(),
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
    pub(super) fn new(gate: &str, max: Option<i32>, opens_at: Option<i64>, ahead: i64, under_way: i64) -> Self {
        let opens_at = opens_at.map(Time);
        Self { gate: explain(gate), max, opens_at, ahead, under_way, holders: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn rate(interval: i64) -> Vec<Gate> {
        vec![Gate::Rate { name: "rate t".into(), interval }]
    }

    fn key(name: &str, max: i32) -> Gate {
        Gate::Key { name: name.into(), max }
    }

    /// Passes come at any time, and late: the rate holds in each minute, and nothing is lost by it.
    #[test]
    fn a_rate_is_kept_and_used_whatever_the_times_of_the_passes() {
        let gates = rate(6 * SECOND / 10);
        let (mut state, mut passed) = (Gates::default(), Vec::new());
        let mut now = Time(1_000 * SECOND);
        let begin = now;
        for step in 0..4_000 {
            now = Time(now.0 + 10_000 + (step * 7_919) % 97_000);
            state.closed.clear();
            while state.admit(step, &gates, now).is_ok() {
                passed.push(now.0);
            }
        }
        let minutes = (now.0 - begin.0) as f64 / 60e6;
        let rate = passed.len() as f64 / minutes;
        assert!((98.0..=101.0).contains(&rate), "{rate}");
        assert!(passed.windows(102).all(|some| some[101] - some[0] >= 60 * SECOND), "more than 101 in a minute");
        assert!(passed.windows(2).all(|two| two[1] - two[0] >= 4 * SECOND / 10), "not smooth");
    }

    #[test]
    fn after_idle_time_there_is_no_burst() {
        let (mut state, gates) = (Gates::default(), rate(SECOND));
        assert!(state.admit(1, &gates, Time(500 * SECOND)).is_ok());
        assert!(state.admit(2, &gates, Time(500 * SECOND)).is_err());
        state.closed.clear();
        assert!(state.admit(2, &gates, Time(900 * SECOND)).is_ok());
        assert!(state.admit(3, &gates, Time(900 * SECOND)).is_err());
    }

    #[test]
    fn a_key_lets_so_many_pass_and_nobody_overtakes() {
        let mut state = Gates::default();
        let now = Time(0);
        assert!(state.admit(1, &[key("a", 2)], now).is_ok());
        assert!(state.admit(2, &[key("a", 2), key("b", 1)], now).is_ok());
        assert_eq!(state.admit(3, &[key("a", 5), key("b", 1)], now), Err(key("b", 1)));
        assert_eq!(state.admit(4, &[key("b", 9)], now), Err(key("b", 9)), "the third comes before it");
        assert!(state.admit(5, &[key("a", 3)], now).is_ok(), "the third does not wait here");
        assert!(state.admit(2, &[key("a", 1), key("b", 1)], now).is_ok(), "who is under way goes again");
    }

    #[test]
    fn only_what_was_carried_counts() {
        let gates = [key("a", 2), Gate::Rate { name: "rate t".into(), interval: SECOND }];
        let settled = Gates::default().settle([(7, &gates[..])].into_iter(), Time(10 * SECOND));
        assert_eq!(settled.holds, [("a".to_owned(), 7)]);
        assert_eq!(settled.rates, [("rate t".to_owned(), 10 * SECOND - SLACK + SECOND)]);
        let none = Gates::default().settle(std::iter::empty(), Time(0));
        assert!(none.holds.is_empty() && none.rates.is_empty());
    }
}
