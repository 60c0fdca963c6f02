//! Refuses a retry policy that would have no effect: the gateway cannot replace a task inside a canvas by a new one, because its
//! successors wait for its id, and Python workers do not know our policies.

use super::Gateway;
use super::submit::SubmitError;
use crate::reconcile::workers::is_online;
use celery::task::{Invalid, Submission};
use ledger::Worker;
use runtime::clock;

impl Gateway {
    /// Refuses policies inside a canvas that Python workers would ignore.
    pub(crate) async fn check_retries(&self, submission: &Submission) -> Result<(), SubmitError> {
        let places = submission.retries_in_canvas();
        if places.is_empty() {
            return Ok(());
        }
        let now = clock::now();
        let workers = self.ledger.workers().await?;
        let python = |worker: &&Worker| is_online(worker, now) && !is_ours(worker);
        let online: Vec<&Worker> = workers.iter().filter(python).collect();
        let mut found = Vec::new();
        for (pointer, task) in places {
            let queue = task.queue.clone().unwrap_or_else(|| self.defaults(task).queue);
            let serves = |worker: &&&Worker| worker.facts.queues.iter().any(|name| name == queue.as_str());
            if let Some(worker) = online.iter().find(serves) {
                let detail = format!(
                    "{} serves {queue}, and a Python worker knows no retry policy inside a canvas: let the task retry itself",
                    worker.hostname
                );
                found.push(Invalid { pointer, detail });
            }
        }
        if found.is_empty() { Ok(()) } else { Err(SubmitError::Invalid(found)) }
    }
}

/// Whether it is the Rust worker, which applies a retry policy itself.
pub(crate) fn is_ours(worker: &Worker) -> bool {
    worker.facts.software.as_deref().is_some_and(|software| software.starts_with("taskgate"))
}
