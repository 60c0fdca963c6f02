//! Warnings about tasks that will not run now: no worker registers the task, or no worker consumes its queue. The task is accepted
//! with a warning, or refused when its catalog entry is `strict`.

use std::collections::BTreeSet;

use super::Gateway;
use super::submit::SubmitError;
use super::way::is_fanout;
use celery::task::{Signature, TaskName, pause};
use ledger::NewTask;

/// Maximum number of warnings in an answer: a canvas may have thousands of tasks.
const MOST: usize = 20;

/// A warning about an accepted task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Code for programs.
    pub code: &'static str,
    /// Sentence for people.
    pub detail: String,
}

impl Gateway {
    /// The warnings about these tasks, once for each task name and queue.
    pub(super) fn warnings(&self, tasks: &[NewTask]) -> Vec<Warning> {
        let picture = self.fleet.current();
        let mut seen = BTreeSet::new();
        let mut warnings = Vec::new();
        for task in tasks.iter().filter(|task| is_for_workers(task)) {
            let (name, queue) = (task.name.as_str(), task.queue.as_str());
            if warnings.len() >= MOST {
                break;
            }
            if let Some(doubt) = picture.doubt(name, queue)
                && seen.insert((name, queue))
            {
                warnings.push(Warning { code: doubt.code(), detail: doubt.detail(name, queue) });
            }
        }
        warnings
    }

    /// Refuses a strict task that would get a warning. A schedule's tick is not refused, because it has no caller.
    pub(super) fn check_strict(&self, tasks: &[NewTask]) -> Result<(), SubmitError> {
        if !self.catalog.has_strict() {
            return Ok(());
        }
        let picture = self.fleet.current();
        let is_strict = |name: &TaskName| self.catalog.entry(name.as_str()).is_some_and(|entry| entry.strict);
        let strict =
            tasks.iter().filter(|task| task.schedule.is_none() && is_for_workers(task) && is_strict(&task.name));
        let mut doubts = strict.filter_map(|task| {
            let doubt = picture.doubt(task.name.as_str(), task.queue.as_str())?;
            Some(doubt.detail(task.name.as_str(), task.queue.as_str()))
        });
        doubts.next().map_or(Ok(()), |detail| Err(SubmitError::NobodyRunsIt(detail)))
    }

    /// Reads the ledger again before a strict task is refused, because a worker may have come online a moment ago.
    pub(super) async fn look_before_refusing(&self, strict: bool) -> Result<(), SubmitError> {
        if strict {
            self.fleet.refresh(&self.ledger).await?;
        }
        Ok(())
    }

    pub(super) fn names_strict(&self, signature: &Signature) -> bool {
        let mut found = false;
        if self.catalog.has_strict() {
            signature.visit(&mut |task| {
                found |= self.catalog.entry(task.task.as_str()).is_some_and(|entry| entry.strict);
            });
        }
        found
    }
}

/// Whether the workers of its queue run it: a step that waits stays with the gateway, and a message of a fanout exchange is in no queue.
fn is_for_workers(task: &NewTask) -> bool {
    !pause::is_held_here(Some(task.queue.as_str())) && !is_fanout(task.options.spread.as_ref())
}
