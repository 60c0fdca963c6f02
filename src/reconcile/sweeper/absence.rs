//! Remembers which tasks were found absent, and since when. One survey may miss a message that was just moved; two surveys apart do
//! not. A silent task gets some time before it is ended.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::decision::{Decision, Why};
use crate::config;
use celery::task::TaskId;
use ledger::Task;

/// Maximum number of candidates; more wait for the next survey, because settling them takes longer than a grace period anyway.
const CAPACITY: usize = 50_000;

/// Another process may have answered under the name of a dead one; after this time that would be known.
const KNOWN: Duration = Duration::from_secs(10);
/// Longer than the longest required absence.
const LONG: Duration = Duration::from_hours(1);

/// A task that needs an action, unless the next surveys show otherwise.
#[derive(Debug, Clone)]
pub struct Absent {
    pub task: Task,
    pub decision: Decision,
    /// It was certain at an earlier survey too.
    pub is_held: bool,
    /// Its message in `unacked`, as found.
    pub reservation: Option<broker::Reservation>,
    /// The names of workers that may have it, for the reason.
    pub about: String,
}

struct Noticed {
    since: Instant,
    decision: Decision,
    /// It was certain once, and was held back to count it with the tasks of the next survey.
    is_held: bool,
}

/// When tasks were first found absent, by task and `seq`: a task that changed meanwhile was not absent.
#[derive(Default)]
pub struct Absences(HashMap<(TaskId, i64), Noticed>);

/// How long a task must be absent before an action.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Pause between the two surveys that must both find a task absent.
    pub grace: Duration,
    /// How long a task may be silent before it is ended as ignored.
    pub settle: Duration,
}

impl Patience {
    pub fn of(grace: Duration, recovery: &config::Recovery) -> Self {
        Self { grace, settle: recovery.settle_after }
    }

    fn with(self, decision: Decision) -> Duration {
        match decision {
            Decision::Ignore(_) | Decision::Unclear(_) => self.settle.max(self.grace),
            _ => self.grace,
        }
    }
}

impl Absences {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the next survey should come soon, because an action depends on it.
    pub fn is_urgent(&self) -> bool {
        self.0.values().any(|noticed| !matches!(noticed.decision, Decision::Ignore(_) | Decision::Unclear(_)))
    }

    /// Keeps tasks that were not settled: at the next survey they count as absent for long enough.
    pub fn keep(&mut self, absent: Vec<Absent>) {
        let since = Instant::now().checked_sub(LONG).unwrap_or_else(Instant::now);
        let noticed = absent.into_iter().map(|absence| {
            let noticed = Noticed { since, decision: absence.decision, is_held: true };
            ((absence.task.id, absence.task.seq), noticed)
        });
        self.0.extend(noticed);
    }

    /// How many tasks of the last survey would run again if the next one finds them absent, too.
    pub fn may_run_again(&self) -> usize {
        self.0.values().filter(|noticed| !noticed.is_held && noticed.decision.is_rerun()).count()
    }

    /// Takes the result of a whole survey. Returns tasks that were absent for long enough; tasks that were found are dropped.
    pub fn note(&mut self, absent: Vec<Absent>, patience: Patience) -> Vec<Absent> {
        let now = Instant::now();
        let mut next = HashMap::new();
        let mut certain = Vec::new();
        for mut absence in absent {
            let key = (absence.task.id.clone(), absence.task.seq);
            let before = self.0.get(&key);
            let settled = before.filter(|before| now.duration_since(before.since) >= KNOWN);
            absence.decision = settled.map_or(absence.decision, |before| abiding(before.decision, absence.decision));
            let same = before.filter(|before| before.decision == absence.decision);
            let since = same.map_or(now, |before| before.since);
            if same.is_some() && now.duration_since(since) >= patience.with(absence.decision) {
                // Unclear tasks are reported as long as they stay unclear.
                if matches!(absence.decision, Decision::Unclear(_)) {
                    next.insert(key, Noticed { since, decision: absence.decision, is_held: false });
                }
                absence.is_held = same.is_some_and(|before| before.is_held);
                certain.push(absence);
            } else if next.len() < CAPACITY {
                let is_held = same.is_some_and(|before| before.is_held);
                next.insert(key, Noticed { since, decision: absence.decision, is_held });
            }
        }
        self.0 = next;
        certain
    }
}

/// Keeps an earlier decision that was based on the report of a live worker that it had finished the task; the worker's death since then
/// changes nothing.
fn abiding(before: Decision, now: Decision) -> Decision {
    let had_done = before == Decision::Ignore(Why::NothingMore);
    let is_death = matches!(
        now,
        Decision::Requeue(Why::WorkerDiedRerun | Why::WorkerDiedLate | Why::RedisLostReserved)
            | Decision::Lose(Why::WorkerDied)
            | Decision::Unclear(_)
    );
    if had_done && is_death { before } else { now }
}

#[cfg(test)]
mod tests {
    use super::super::decision::Doubt;
    use super::*;
    use celery::task::Phase;
    use ledger::sample_task;
    use runtime::clock::Time;

    const PATIENCE: Patience = Patience { grace: Duration::from_secs(5), settle: Duration::from_secs(30) };

    fn seen(decision: Decision) -> Vec<Absent> {
        let task = sample_task("t", Phase::Running, Time(0));
        vec![Absent { task, decision, is_held: false, reservation: None, about: String::new() }]
    }

    #[tokio::test(start_paused = true)]
    async fn what_runs_again_is_seen_twice_and_what_says_no_more_is_given_a_while() {
        for (decision, patience) in [
            (Decision::Requeue(Why::TakenByTheDead), PATIENCE.grace),
            (Decision::Ignore(Why::NothingMore), PATIENCE.settle),
        ] {
            let mut absences = Absences::default();
            assert!(absences.note(seen(decision), PATIENCE).is_empty());
            tokio::time::advance(patience - Duration::from_millis(1)).await;
            assert!(absences.note(seen(decision), PATIENCE).is_empty());
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(absences.note(seen(decision), PATIENCE).len(), 1);
            assert!(absences.is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_decision_begins_anew() {
        let mut absences = Absences::default();
        absences.note(seen(Decision::Unclear(Doubt::Worker)), PATIENCE);
        tokio::time::advance(PATIENCE.settle).await;
        assert!(absences.note(seen(Decision::Requeue(Why::WorkerDiedRerun)), PATIENCE).is_empty());
        assert!(absences.is_urgent());
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_dies_after_it_had_done_with_a_task_does_not_bring_it_back() {
        let mut absences = Absences::default();
        absences.note(seen(Decision::Ignore(Why::NothingMore)), PATIENCE);
        tokio::time::advance(Duration::from_secs(20)).await;
        absences.note(seen(Decision::Requeue(Why::WorkerDiedRerun)), PATIENCE);
        tokio::time::advance(Duration::from_secs(10)).await;
        let settled = absences.note(seen(Decision::Requeue(Why::WorkerDiedRerun)), PATIENCE);
        assert_eq!(settled[0].decision, Decision::Ignore(Why::NothingMore));
    }
}
