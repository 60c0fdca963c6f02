//! How a task gets to the broker: at which time, past which limits, and in which line.

use std::time::Duration;

use super::Gateway;
use super::limits::Keys;
use celery::task::canvas::Node;
use celery::task::limit::KeyLimit;
use celery::task::{Priority, Spread, TaskSignature};
use ledger::Way;
use runtime::clock::Time;

impl Gateway {
    /// The way of a task to the broker when nothing else holds it.
    pub(super) fn way(&self, node: &Node, limits: &[KeyLimit], shared: bool, spread: Option<&Spread>) -> Way {
        if limits.iter().any(|limit| !limit.on_limit.is_hold()) {
            return Way::Gate(limits.to_vec());
        }
        // When a pass finds that its limits allow it, the task moves to the line of its queue.
        if !limits.is_empty() {
            return Way::Direct;
        }
        if is_fanout(spread) {
            return self.at_once();
        }
        self.way_to(node.queue().as_str(), shared, node.priority().unwrap_or_default())
    }

    /// As [`Gateway::way`], for a task without limits.
    pub(crate) fn way_to(&self, queue: &str, shared: bool, priority: Priority) -> Way {
        match self.windows.of(queue, shared) {
            None => self.at_once(),
            Some(_) if shared => Way::Pass,
            Some(_) => Way::Line { rank: self.windows.rank(priority) },
        }
    }

    /// The direct way may be overtaken by a pass over the outbox: only markers keep the message from going out twice.
    fn at_once(&self) -> Way {
        if self.windows.has_markers() { Way::Direct } else { Way::Pass }
    }

    /// Limits, fair share and labels from the entry, for a call by name.
    pub(super) fn by_name(&self, task: &TaskSignature, fed: bool, fixed: Keys) -> (Keys, Vec<(String, String)>) {
        if !self.catalog.entry(task.task.as_str()).is_some_and(|entry| entry.computes()) {
            return (fixed, Vec::new());
        }
        let declared = self.declared(task, fed);
        (fixed.and(Keys { limits: declared.limits, fair: declared.fair }), declared.labels)
    }
}

/// Whether an exchange sends it to all current subscribers: it is in no queue, so it waits in no line either.
pub(super) fn is_fanout(spread: Option<&Spread>) -> bool {
    matches!(spread, Some(Spread::Fanout { .. }))
}

/// The requested start time, if it is later than now.
pub(super) fn due_at(task: &TaskSignature, now: Time) -> Option<Time> {
    let countdown = |secs: f64| now.plus(Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX));
    let wanted = task.eta.map(|at| Time(at.as_microsecond())).or_else(|| task.countdown.map(countdown));
    wanted.filter(|at| *at > now)
}
