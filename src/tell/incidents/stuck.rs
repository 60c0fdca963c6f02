//! Finds canvas steps that no worker will send, because all predecessors have ended long ago.

use std::collections::BTreeMap;

use super::{Incident, Kind, Lookout, PAGE, Trouble};
use celery::task::Phase;
use ledger::{EdgeKind, Neighbour};
use runtime::clock::Time;

/// The predecessors of a step.
struct Before {
    /// Whether all have ended as the step requires, or were ignored.
    is_over: bool,
    ignored: Option<String>,
    last: Option<Time>,
}

impl Default for Before {
    fn default() -> Self {
        Self { is_over: true, ignored: None, last: None }
    }
}

impl Before {
    fn note(&mut self, step: &Neighbour) {
        let phase = step.task.phase;
        self.is_over &= step.kind == EdgeKind::Next && matches!(phase, Phase::Succeeded | Phase::Ignored);
        self.last = self.last.max(step.task.finished_at);
        if phase == Phase::Ignored {
            let name = step.task.name.as_deref().unwrap_or("a task");
            self.ignored = Some(format!("{name} ({})", step.task.id));
        }
    }
}

impl Lookout {
    /// Steps that are due but were not sent. A step that was sent is not `waiting` any more.
    pub(super) async fn stuck(&self, now: Time) -> Result<Vec<Incident>, Trouble> {
        let waiting = self.ledger.unfinished(&[Phase::Waiting], 0, PAGE).await?;
        let numbers: Vec<i64> = waiting.iter().map(|task| task.no).collect();
        let mut before: BTreeMap<i64, Before> = BTreeMap::new();
        for step in self.ledger.predecessors(&numbers).await? {
            before.entry(step.of).or_default().note(&step);
        }
        let incident = |task: &ledger::Task| {
            let before = before.get(&task.no).filter(|before| before.is_over && !task.is_replaced())?;
            let since = before.last.filter(|at| now.since(*at) > self.config.stuck_after)?;
            let name = task.name.as_deref().unwrap_or("a task");
            let detail = match &before.ignored {
                Some(ignored) => format!(
                    "{name} is the body of a chord of which {ignored} was ignored: no worker will send it, as in Celery. \
                     POST /v1/tasks/{}/resolve decides what becomes of it",
                    task.id
                ),
                None => format!("all that {name} waits for has succeeded, and no worker has sent it"),
            };
            Some(Incident { kind: Kind::CanvasStuck, subject: task.id.to_string(), since, detail })
        };
        Ok(waiting.iter().filter_map(incident).collect())
    }
}
