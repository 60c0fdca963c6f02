//! Lines: tasks wait in them while their queue's window is full. Pure, shared by both adapters.
//!
//! A window is the number of messages of a queue that may be in the broker and not yet at a worker. Of the waiting tasks, the lowest rank
//! always goes first; within a rank the keys of `fair` take turns; within a key the order is that of acceptance.
//!
//! Turns are deficit round robin with a quantum of one task: each published task advances its key's turn by [`STRIDE`] divided by the
//! key's weight, and the key with the smallest turn is next. A key that was idle starts at the smallest turn of the others, so it neither
//! saves up nor owes a share. Only tasks that certainly reached the broker count.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// How much one task advances the turn of a key of weight 1.
pub(super) const STRIDE: i64 = 1_000_000;
/// How many more keys are read than there is room, because some may have no tasks any more.
pub(super) const SPARE: i64 = 16;

/// How many more messages a queue may have in the broker, and whether its workers are about to run out of messages.
pub(super) fn room(window: Option<u32>, slots: i64) -> (usize, bool) {
    let Some(window) = window.map(i64::from) else { return (usize::MAX, false) };
    (usize::try_from(window - slots).unwrap_or_default(), slots <= window / 4)
}

/// Distributes the found tasks to their keys; no key has more than `depth`.
pub(super) fn fill(shares: &mut [Share], found: Vec<(String, i64)>, depth: i64) {
    let mut by_key: HashMap<String, Vec<i64>> = HashMap::new();
    for (key, task_no) in found {
        by_key.entry(key).or_default().push(task_no);
    }
    for share in shares {
        share.heads = by_key.remove(&share.key).unwrap_or_default();
        share.heads.sort_unstable();
        share.has_more = share.heads.len() as i64 >= depth;
    }
}

/// A key of a line and rank, with its next tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// Empty for tasks without a key: together they count as one key.
    pub key: String,
    pub turn: i64,
    pub weight: i32,
    /// Its next tasks, oldest first.
    pub heads: Vec<i64>,
    /// Whether more tasks wait after them.
    pub has_more: bool,
}

impl Share {
    fn stride(&self) -> i64 {
        STRIDE / i64::from(self.weight.max(1))
    }
}

/// A task that may go, and the key whose turn it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pick {
    pub task_no: i64,
    pub rank: i16,
    pub share: String,
}

/// The next tasks of a rank, at most `room`, in order. Stops at a key whose next task was not loaded.
pub(super) fn take_turns(shares: &[Share], rank: i16, room: usize) -> Vec<Pick> {
    let turn = |index: usize, turn: i64| Reverse((turn, shares[index].key.as_str(), index));
    let mut order: BinaryHeap<_> = (0..shares.len()).map(|index| turn(index, shares[index].turn)).collect();
    let mut gone = vec![0; shares.len()];
    let mut picks = Vec::with_capacity(room.min(1_000));
    while picks.len() < room
        && let Some(Reverse((at, key, index))) = order.pop()
    {
        let share = &shares[index];
        let Some(task_no) = share.heads.get(gone[index]) else {
            if share.has_more {
                break;
            }
            continue;
        };
        gone[index] += 1;
        picks.push(Pick { task_no: *task_no, rank, share: key.to_owned() });
        order.push(turn(index, at + share.stride()));
    }
    picks
}

/// How many tasks of each key to read for this much room: what the heaviest key can get, and a little more.
pub(super) fn depth(shares: &[Share], room: usize) -> i64 {
    let all: i64 = shares.iter().map(|share| i64::from(share.weight.max(1))).sum();
    let heaviest = shares.iter().map(|share| i64::from(share.weight.max(1))).max().unwrap_or(1);
    let room = i64::try_from(room).unwrap_or(i64::MAX);
    (room.saturating_mul(heaviest) / all.max(1) + 2).min(room.max(1))
}

/// A key's turn after a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turn {
    pub queue: String,
    pub rank: i16,
    pub share: String,
    pub turn: i64,
    pub weight: i32,
}

/// A task that goes to the end of its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entering {
    pub task_no: i64,
    pub queue: String,
    pub rank: i16,
    pub share: String,
    pub weight: i32,
}

/// The fair-share keys among the entering tasks, each once.
pub(super) fn keys(entering: &[Entering]) -> Vec<&Entering> {
    let mut seen = HashSet::new();
    let mut newest: Vec<&Entering> = entering.iter().rev().collect();
    newest.retain(|task| !task.share.is_empty() && seen.insert((&task.queue, task.rank, &task.share)));
    newest
}

/// A queue with a window, in a pass.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// How many more messages the broker may have; picked tasks are already subtracted.
    pub room: usize,
    pub picks: Vec<Pick>,
    /// Keys with their turns and weights before the pass.
    pub shares: HashMap<(i16, String), (i64, i32)>,
    /// Keys without tasks.
    pub empty: Vec<(i16, String)>,
}

impl Line {
    /// Records the keys of a rank.
    pub fn note(&mut self, rank: i16, shares: Vec<Share>) {
        for share in shares {
            if share.heads.is_empty() {
                self.empty.push((rank, share.key.clone()));
            }
            self.shares.insert((rank, share.key), (share.turn, share.weight));
        }
    }
}

/// All queues with windows, in a pass.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub by_queue: HashMap<String, Line>,
    /// Whether any task waits in a line.
    pub is_waiting: bool,
    /// Whether a window was nearly empty while tasks waited, so that workers wait for the next pass.
    pub is_dry: bool,
    /// Whether a line has room and more tasks than were read.
    pub is_cut: bool,
    picked: HashSet<i64>,
}

impl Lines {
    /// Adds a line. While it has tasks that were not picked, no new task may overtake them.
    pub fn add(&mut self, queue: String, mut line: Line, has_rest: bool) {
        self.picked.extend(line.picks.iter().map(|pick| pick.task_no));
        if has_rest {
            self.is_cut |= line.room > 0;
            line.room = 0;
        }
        self.by_queue.insert(queue, line);
    }

    /// The picked tasks, in order.
    pub fn picked(&self) -> Vec<i64> {
        self.by_queue.values().flat_map(|line| line.picks.iter().map(|pick| pick.task_no)).collect()
    }

    /// Whether the task may go now: it was picked, or there is room and no other task waits for it.
    pub fn admit(&mut self, queue: &str, task_no: i64) -> bool {
        if self.picked.contains(&task_no) {
            return true;
        }
        let Some(line) = self.by_queue.get_mut(queue) else { return true };
        let is_free = line.room > 0;
        line.room = line.room.saturating_sub(1);
        is_free
    }

    /// Keys without tasks.
    pub fn empty(&self) -> Vec<(&str, i16, &str)> {
        let mut empty: Vec<(&str, i16, &str)> = Vec::new();
        for (queue, line) in &self.by_queue {
            empty.extend(line.empty.iter().map(|(rank, share)| (queue.as_str(), *rank, share.as_str())));
        }
        empty
    }

    /// The turns of the keys after these tasks were published.
    pub fn turns(&self, carried: &[i64]) -> Vec<Turn> {
        let carried: HashSet<i64> = carried.iter().copied().collect();
        let mut turns: Vec<Turn> = Vec::new();
        for (queue, line) in &self.by_queue {
            let mut gone: HashMap<(i16, &str), i64> = HashMap::new();
            for pick in line.picks.iter().filter(|pick| carried.contains(&pick.task_no)) {
                *gone.entry((pick.rank, &pick.share)).or_default() += 1;
            }
            for ((rank, share), (turn, weight)) in &line.shares {
                let Some(count) = gone.get(&(*rank, share.as_str())) else { continue };
                let stride = STRIDE / i64::from((*weight).max(1));
                let turn = turn.saturating_add(stride.saturating_mul(*count));
                turns.push(Turn { queue: queue.clone(), rank: *rank, share: share.clone(), turn, weight: *weight });
            }
        }
        turns.sort_unstable_by(|a, b| (&a.queue, a.rank, &a.share).cmp(&(&b.queue, b.rank, &b.share)));
        turns
    }
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
