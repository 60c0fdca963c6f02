//! Whether news changes a task, and into what: the one rule, pure, for both adapters.

use crate::clock::Time;
use crate::task::{Phase, Position};

use super::types::{News, Task};

/// What news does to a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// A step forward: gets the next `seq` and an event.
    Change(Change),
    /// Too late for a step, but it knows facts the row lacks: written without a `seq`.
    Facts(Facts),
    /// Late, repeated or impossible.
    Drop,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub position: Position,
    pub status: String,
    /// A given-up task whose real end came.
    pub corrected: bool,
    pub facts: Facts,
}

/// Columns that are filled when they are null.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    pub received_at: Option<Time>,
    pub started_at: Option<Time>,
    pub worker: Option<String>,
    pub runtime: Option<f64>,
}

impl Facts {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Decides. The caller holds the row's lock.
pub fn apply(task: &Task, news: &News) -> Verdict {
    let facts = facts(task, news);
    let position = place(task, news);
    let is_forward = task.position().allows(position) || is_retry_behind_its_successor(task, news);
    if !is_forward || (task.corrected && task.phase.is_final()) {
        return late(facts);
    }
    Verdict::Change(Change {
        position,
        status: news.status.clone().unwrap_or_else(|| news.phase.status().to_owned()),
        corrected: task.corrected || (task.phase.is_final() && task.position().is_corrected_by(news.phase)),
        facts,
    })
}

fn late(facts: Facts) -> Verdict {
    if facts.is_empty() { Verdict::Drop } else { Verdict::Facts(facts) }
}

/// Which delivery and attempt the news speaks of.
fn place(task: &Task, news: &News) -> Position {
    let delivery = news.delivery.unwrap_or(task.delivery);
    let retries = match (news.retries, news.phase) {
        (Some(retries), _) => retries,
        (None, Phase::Retrying) if is_retry_behind_its_successor(task, news) => task.retries - 1,
        // What runs or ends after a retry is the next attempt.
        (None, Phase::Running | Phase::Succeeded | Phase::Failed) if task.phase == Phase::Retrying => task.retries + 1,
        (None, _) => task.retries,
    };
    Position { delivery, retries, phase: news.phase }
}

/// Celery announces the next attempt as received (and then holds it until its time) before it says that the present one is
/// to be retried. Until the next one starts, `retrying` is where the task is.
fn is_retry_behind_its_successor(task: &Task, news: &News) -> bool {
    news.phase == Phase::Retrying && news.retries.is_none() && task.phase == Phase::Received && task.retries > 0
}

fn facts(task: &Task, news: &News) -> Facts {
    Facts {
        received_at: (news.phase == Phase::Received && task.received_at.is_none()).then_some(news.at),
        started_at: (news.phase == Phase::Running && task.started_at.is_none()).then_some(started(task, news)),
        worker: news.worker.clone().filter(|_| task.worker.is_none()),
        runtime: news.runtime.filter(|_| task.runtime.is_none()),
    }
}

/// Pool and main process have clocks of their own: a start is never later than the end.
fn started(task: &Task, news: &News) -> Time {
    task.finished_at.map_or(news.at, |end| news.at.min(end))
}
