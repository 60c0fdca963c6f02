//! From when on a pass must look at a gate again. Pure, shared by both adapters.
//!
//! Every gate at which tasks wait has such a time in the ledger. A pass reads only the gates whose time has come and those of which there is
//! news (a task came or went, one under way has ended, a rule was set by hand), so its cost does not depend on how many keys have tasks.

use std::collections::{HashMap, HashSet};

use super::Carrier;
use super::limits::Rules;
use super::rate_gates::{RateGate, RateGates, Stopped, Waiting};
use runtime::clock::Time;

/// A gate that waits for news is looked at this often all the same, in microseconds.
const WITHOUT_NEWS: i64 = 600_000_000;

/// How much news a pass reads.
pub(super) const NEWS_AT_ONCE: usize = 10_000;

/// The news that a pass has read.
#[derive(Debug, Default)]
pub(super) struct GateNews {
    pub gates: Vec<String>,
    /// The number of the last one.
    pub last: i64,
    /// Whether there may be more.
    pub is_cut: bool,
}

/// The gates that a pass has looked at.
#[derive(Debug, Default)]
pub(super) struct Looks {
    at: HashMap<String, i64>,
    /// Those that let nobody pass.
    shut: HashSet<String>,
    /// The number of the last news that was read.
    pub last: i64,
    /// Whether there are more than were read.
    pub is_cut: bool,
}

impl Looks {
    /// `is_full`: the time of more gates may have come than were read.
    pub fn new(news: &GateNews, is_full: bool) -> Self {
        Self { last: news.last, is_cut: news.is_cut || is_full, ..Self::default() }
    }

    /// Sorts the gates: returns those that are open and notes when the others open.
    pub fn sort(&mut self, found: Vec<Waiting>, now: Time, carrier: &dyn Carrier, rules: &Rules) -> Vec<Waiting> {
        let (open, shut): (Vec<Waiting>, Vec<Waiting>) =
            found.into_iter().partition(|gate| gate.is_open(now, carrier, rules));
        self.at.extend(open.iter().map(|gate| (gate.gate.clone(), now.0)));
        for gate in shut {
            let opens = gate.opening(carrier, rules).map_or(without_news(now), |at| at.0);
            self.at.insert(gate.gate.clone(), opens);
            self.shut.insert(gate.gate);
        }
        open
    }

    pub fn is_empty(&self) -> bool {
        self.at.is_empty() && self.last == 0
    }

    pub fn shut(&self) -> impl Iterator<Item = &str> {
        self.shut.iter().map(String::as_str)
    }

    /// Whether the next pass should look at this gate at once.
    pub fn is_due(&self, gate: &str, now: Time) -> bool {
        self.at.get(gate).is_some_and(|at| *at <= now.0)
    }

    /// Notes when gates open, after a pass that claimed rows from these gates. `state` is what the pass left.
    pub fn settle<'a>(
        &mut self,
        claimed: impl Iterator<Item = &'a str>,
        stopped: &[Stopped],
        state: &RateGates,
        now: Time,
    ) {
        for gate in claimed {
            self.at.entry(gate.to_owned()).or_insert(now.0);
        }
        for (gate, at) in &mut self.at {
            if !self.shut.contains(gate) {
                *at = state.rates.get(gate).copied().unwrap_or(*at).max(now.0);
            }
        }
        // The first that stays decides when its gate opens.
        let mut seen = HashSet::new();
        for stopped in stopped.iter().filter(|stopped| seen.insert(stopped.gate.name())) {
            self.note_stop(&stopped.gate, state, now);
        }
    }

    fn note_stop(&mut self, gate: &RateGate, state: &RateGates, now: Time) {
        let name = gate.name();
        // The others that wait there have set the time already.
        if self.shut.contains(name) || (!self.at.contains_key(name) && state.waited_for.contains(name)) {
            return;
        }
        let opens = match gate {
            RateGate::Rate { .. } => state.rates.get(name).map_or(now.0, |at| now.0.max(*at)),
            RateGate::Key { max, .. } if state.has_room(name, *max) => now.0,
            RateGate::Key { .. } => without_news(now),
        };
        let at = self.at.entry(name.to_owned()).or_insert(opens);
        *at = opens.max(*at);
    }

    /// The next pass looks at all of them: what this one counted is not what happened.
    pub fn again(&mut self, now: Time) {
        self.at.values_mut().for_each(|at| *at = now.0);
    }

    /// The gates with their times, by name.
    pub fn rows(&self) -> Vec<(&str, i64)> {
        let mut rows: Vec<(&str, i64)> = self.at.iter().map(|(gate, at)| (gate.as_str(), *at)).collect();
        rows.sort_unstable();
        rows
    }
}

fn without_news(now: Time) -> i64 {
    now.0.saturating_add(WITHOUT_NEWS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use celery::task::TaskId;

    const NOW: Time = Time(1_000);

    fn stopped(gate: RateGate) -> Stopped {
        Stopped { task_no: 1, id: TaskId::parse("t").expect("an id"), gate, is_there: false }
    }

    fn key(name: &str, max: i32) -> RateGate {
        RateGate::Key { name: name.into(), max }
    }

    fn rate(name: &str) -> RateGate {
        RateGate::Rate { name: name.into(), interval: 20 }
    }

    fn state(rates: &[(&str, i64)], holders: &[(&str, i64)]) -> RateGates {
        let mut state = RateGates::default();
        state.rates.extend(rates.iter().map(|(gate, at)| ((*gate).to_owned(), *at)));
        for (gate, task_no) in holders {
            state.holders.entry((*gate).to_owned()).or_default().insert(*task_no);
        }
        state
    }

    fn after(looks: &mut Looks, claimed: &[&str], stopped: &[Stopped], state: &RateGates) -> Vec<(String, i64)> {
        looks.settle(claimed.iter().copied(), stopped, state, NOW);
        looks.rows().into_iter().map(|(gate, at)| (gate.to_owned(), at)).collect()
    }

    #[test]
    fn a_rate_is_looked_at_when_it_opens_and_a_full_key_after_news() {
        let state = state(&[("pace a", 1_020)], &[("key b", 7)]);
        let found = after(&mut Looks::default(), &[], &[stopped(rate("pace a")), stopped(key("key b", 1))], &state);
        assert_eq!(found, [("key b".to_owned(), without_news(NOW)), ("pace a".to_owned(), 1_020)]);
    }

    #[test]
    fn a_key_that_still_has_room_is_looked_at_at_once() {
        let state = state(&[], &[("key b", 7)]);
        let found = after(&mut Looks::default(), &["key c"], &[stopped(key("key b", 2))], &state);
        assert_eq!(found, [("key b".to_owned(), NOW.0), ("key c".to_owned(), NOW.0)]);
    }

    #[test]
    fn who_comes_to_a_gate_where_others_wait_changes_no_time() {
        let mut state = state(&[("pace a", 990)], &[]);
        state.waited_for.insert("pace a".to_owned());
        assert_eq!(after(&mut Looks::default(), &[], &[stopped(rate("pace a"))], &state), []);
        let mut looks = Looks::default();
        looks.at.insert("pace a".to_owned(), 5_000);
        looks.shut.insert("pace a".to_owned());
        assert_eq!(after(&mut looks, &["pace a"], &[stopped(rate("pace a"))], &state), [("pace a".to_owned(), 5_000)]);
        looks.again(NOW);
        assert!(looks.is_due("pace a", NOW));
    }
}
