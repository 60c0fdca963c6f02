//! The result of a submission, derived from its rows, so that the answer matches what was written.

use super::revoke::Revoked;
use super::warnings::Warning;
use celery::task::canvas::Outcome;
use celery::task::{GroupId, Phase, QueueName, TaskId, TaskName};
use ledger::NewTask;

/// Most children listed in an answer.
const MAX_CHILDREN: usize = 1_000;

/// The result of a submission.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// The task whose result is the canvas's result; `None` for a group.
    pub task_id: Option<TaskId>,
    pub group_id: Option<GroupId>,
    pub phase: Phase,
    pub status: String,
    pub task: Option<TaskName>,
    pub queue: Option<QueueName>,
    /// Number of tasks.
    pub count: usize,
    /// All tasks of a canvas (empty for a single task, and above 1,000).
    pub children: Vec<(TaskId, TaskName)>,
    /// Whether `unique` joined it to an existing task.
    pub joined: bool,
    /// Reasons why it may not run.
    pub warnings: Vec<Warning>,
    /// The verdict on the task that it replaced.
    pub replaced: Option<Revoked>,
}

/// The result for rows that are about to be written.
pub(super) fn summary(outcome: Outcome, tasks: &[NewTask]) -> Submitted {
    let (shown, group_id) = match outcome {
        Outcome::Task(index) => (tasks.get(index), None),
        Outcome::Group(id) => (None, Some(id)),
    };
    let listed = tasks.len() <= MAX_CHILDREN && (tasks.len() > 1 || group_id.is_some());
    let child = |task: &NewTask| (task.id.clone(), task.name.clone());
    Submitted {
        task_id: shown.map(|task| task.id.clone()),
        group_id,
        phase: shown.or_else(|| tasks.first()).map_or(Phase::Succeeded, |task| task.phase),
        status: Phase::Accepted.status().to_owned(),
        task: shown.map(|task| task.name.clone()),
        queue: shown.map(|task| task.queue.clone()),
        count: tasks.len(),
        children: if listed { tasks.iter().map(child).collect() } else { Vec::new() },
        joined: false,
        warnings: Vec::new(),
        replaced: None,
    }
}
