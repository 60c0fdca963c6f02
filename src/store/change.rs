//! Whether news changes a task, and into what: the one rule, pure, for both adapters.

use crate::clock::Time;
use crate::task::{Phase, Position};

use super::types::{News, Source, Task};

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
    let Some(position) = place(task, news) else { return late(facts) };
    if !task.position().allows(position) || (task.corrected && task.phase.is_final()) {
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

/// Which delivery and attempt the news speaks of. `None` when it can only be an old one.
fn place(task: &Task, news: &News) -> Option<Position> {
    let delivery = news.delivery.unwrap_or(task.delivery);
    let retries = match (news.retries, news.source, news.phase) {
        (Some(retries), _, _) => retries,
        // The next attempt was received before the retry was heard of: the retry is the past.
        (None, _, Phase::Retrying) if task.phase == Phase::Received && task.retries > 0 => return None,
        // Records come in order: after RETRY the next state belongs to the next attempt.
        (None, Source::Result, Phase::Running) if task.phase == Phase::Retrying => task.retries + 1,
        (None, _, _) => task.retries,
    };
    Some(Position { delivery, retries, phase: news.phase })
}

fn facts(task: &Task, news: &News) -> Facts {
    Facts {
        received_at: (news.phase == Phase::Received && task.received_at.is_none()).then_some(news.at),
        started_at: (news.phase == Phase::Running && task.started_at.is_none()).then_some(news.at),
        worker: news.worker.clone().filter(|_| task.worker.is_none()),
        runtime: news.runtime.filter(|_| task.runtime.is_none()),
    }
}
