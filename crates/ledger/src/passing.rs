//! Decides which due tasks may be published now: those that all their gates and their queue's window let through. Pure, shared by both
//! adapters.
//!
//! A task must pass all its gates before its window is checked, so no task takes room that a limit would not let it use. A task that
//! finds the window full goes to the end of the line and counts at no gate meanwhile; its gates are checked again at its turn.

use std::collections::HashSet;

use super::limits::Rules;
use super::lines::{Entering, Lines};
use super::looks::Looks;
use super::rate_gates::{Heads, Passes, RateGate, RateGates, Stopped, gates_of};
use super::{Carrier, Task};
use runtime::clock::Time;

/// A due task, with the gate at which it waited.
pub(super) struct Due {
    pub task: Task,
    pub gates: Vec<RateGate>,
    pub at: Option<(String, Option<i32>)>,
}

impl Due {
    pub fn new(at: Option<(String, Option<i32>)>, task: Task, carrier: &dyn Carrier, rules: &Rules) -> Self {
        Self { gates: gates_of(&task, carrier, rules), task, at }
    }

    fn waits_at(&self, gate: &RateGate) -> bool {
        self.at.as_ref().is_some_and(|(name, max)| name == gate.name() && *max == gate.max())
    }
}

/// The tasks that a pass lets through, and what happens to the others.
pub(super) struct Passed {
    pub due: Vec<Task>,
    pub stopped: Vec<Stopped>,
    pub entering: Vec<Entering>,
    /// The tasks among them that take room in their queue's window.
    pub windowed: Vec<(i64, String)>,
    pub passes: Passes,
}

/// Queues with a window that get tasks which did not wait in a line.
pub(super) fn windows(due: &[Due], lines: &Lines, carrier: &dyn Carrier) -> Vec<(String, u32)> {
    let mut seen = HashSet::new();
    let window = |candidate: &Due| {
        let queue = candidate.task.queue.as_deref()?;
        let window = window_of(&candidate.task, carrier)?;
        let is_new = !lines.by_queue.contains_key(queue) && seen.insert(queue.to_owned());
        is_new.then(|| (queue.to_owned(), window))
    };
    due.iter().filter_map(window).collect()
}

fn window_of(task: &Task, carrier: &dyn Carrier) -> Option<u32> {
    carrier.window(task.queue.as_deref()?, task.options.fair.is_some())
}

/// Decides in the order of `due`. Tasks that the broker has already had (`taken`) are not stopped, but count.
pub(super) fn let_through(
    due: Vec<Due>,
    taken: Vec<(i64, Vec<RateGate>)>,
    before: RateGates,
    (heads, looks): (&Heads, &Looks),
    lines: &mut Lines,
    carrier: &dyn Carrier,
    now: Time,
) -> Passed {
    let mut state = before.clone();
    heads.close_shut(&mut state, looks);
    let mut passed = Passed {
        due: Vec::with_capacity(due.len()),
        stopped: Vec::new(),
        entering: Vec::new(),
        windowed: Vec::new(),
        passes: Passes::new(before),
    };
    for candidate in due {
        let no = candidate.task.no;
        let is_ours = candidate.task.phase.is_ours();
        heads.close_before(no, &mut state);
        if let Err(gate) = if is_ours { state.admit(no, &candidate.gates, now) } else { Ok(()) } {
            let is_there = candidate.waits_at(&gate);
            passed.stopped.push(Stopped { task_no: no, id: candidate.task.id, gate, is_there });
            continue;
        }
        let windowed = window_of(&candidate.task, carrier).and(candidate.task.queue.clone());
        if let Some(queue) = &windowed
            && is_ours
            && !lines.admit(queue, no)
        {
            passed.entering.push(entering(&candidate.task, queue, carrier));
            continue;
        }
        passed.windowed.extend(windowed.map(|queue| (no, queue)));
        passed.passes.note(no, candidate.gates);
        passed.due.push(candidate.task);
    }
    for (task_no, gates) in taken {
        passed.passes.note(task_no, gates);
    }
    passed
}

fn entering(task: &Task, queue: &str, carrier: &dyn Carrier) -> Entering {
    let (share, weight) = task.options.fair.as_ref().map_or((String::new(), 1), |fair| {
        (super::rows::clean(&fair.key).into_owned(), i32::try_from(fair.weight).unwrap_or(1))
    });
    Entering { task_no: task.no, queue: queue.to_owned(), rank: carrier.rank(task.priority), share, weight }
}
