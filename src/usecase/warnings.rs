//! What the gateway knows better than its caller: a task that nobody registers, a queue that nobody reads. The task is accepted
//! with a warning, or refused when its catalog entry is `strict`.

use std::collections::BTreeSet;

use super::Gateway;
use super::submit::SubmitError;
use celery::task::{Signature, Spread, TaskName};
use ledger::NewTask;

/// Most warnings of one answer: a canvas may have thousands of tasks.
const MOST: usize = 20;

/// Something that an accepted task's caller should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// A word for programs.
    pub code: &'static str,
    /// A sentence for people.
    pub detail: String,
}

impl Gateway {
    /// What is known against the run of these tasks, each kind of task once.
    pub(super) fn warnings(&self, tasks: &[NewTask]) -> Vec<Warning> {
        let picture = self.fleet.current();
        let mut seen = BTreeSet::new();
        let mut warnings = Vec::new();
        for task in tasks.iter().filter(|task| !matches!(task.options.spread, Some(Spread::Fanout { .. }))) {
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

    /// Refuses a strict task that would get a warning. A schedule's tick has no caller who could be told.
    pub(super) fn check_strict(&self, tasks: &[NewTask]) -> Result<(), SubmitError> {
        let picture = self.fleet.current();
        let is_strict = |name: &TaskName| self.catalog.entry(name.as_str()).is_some_and(|entry| entry.strict);
        let strict = tasks.iter().filter(|task| task.schedule.is_none() && is_strict(&task.name));
        let mut doubts = strict.filter_map(|task| {
            let doubt = picture.doubt(task.name.as_str(), task.queue.as_str())?;
            Some(doubt.detail(task.name.as_str(), task.queue.as_str()))
        });
        doubts.next().map_or(Ok(()), |detail| Err(SubmitError::NobodyRunsIt(detail)))
    }

    /// Before a strict task is judged, the ledger is read again: a worker may have come a moment ago.
    pub(super) async fn look_before_refusing(&self, strict: bool) -> Result<(), SubmitError> {
        if strict {
            self.fleet.refresh(&self.ledger).await?;
        }
        Ok(())
    }

    pub(super) fn names_strict(&self, signature: &Signature) -> bool {
        let mut found = false;
        if self.catalog.entries().iter().any(|entry| entry.strict) {
            signature.visit(&mut |task| {
                found |= self.catalog.entry(task.task.as_str()).is_some_and(|entry| entry.strict);
            });
        }
        found
    }
}
