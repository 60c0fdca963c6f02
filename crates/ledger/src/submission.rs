//! A submission: what a call writes into the ledger, all of it or nothing.

use celery::task::canvas::EdgeKind;
use celery::task::limit::{KeyLimit, OnLimit};
use celery::task::{GroupId, Json, Phase, Priority, QueueName, Spread, TaskId, TaskName};
use runtime::clock::Time;

use super::dags::NewDag;
use super::fan_out::NewFanOut;
use super::rate_gates::{RateGate, first_gate};
use super::types::TaskOptions;

/// A submission: a task, or all nodes of a canvas.
#[derive(Debug, Clone)]
pub struct Submission {
    pub at: Time,
    pub tasks: Vec<NewTask>,
    /// Indexes into `tasks`.
    pub edges: Vec<Edge>,
    pub groups: Vec<NewGroup>,
    pub idempotency: Option<IdempotencyKey>,
    /// Further tasks of the group, to be written later.
    pub fan_out: Option<NewFanOut>,
    pub unique: Option<UniqueKey>,
    /// The parts that the gateway sends later.
    pub dag: Option<NewDag>,
}

#[derive(Debug, Clone)]
pub struct NewTask {
    pub id: TaskId,
    pub name: TaskName,
    pub queue: QueueName,
    pub priority: Priority,
    /// `Accepted`, `Held` (until `due_at`) or `Waiting`.
    pub phase: Phase,
    /// Headers of the message as JSON text, exactly as published. `None` for `waiting` nodes: a worker builds their message.
    pub headers: Option<String>,
    /// `[args, kwargs, embed]` as JSON text. For `waiting` nodes their own args and kwargs, not yet the predecessor's result.
    pub body: String,
    /// When to publish it. Needs phase `Held`; `None` with `Held` means "until released".
    pub due_at: Option<Time>,
    pub expires_at: Option<Time>,
    pub root_id: TaskId,
    pub parent_id: Option<TaskId>,
    pub group_id: Option<GroupId>,
    pub group_index: Option<i32>,
    pub ignore_result: bool,
    pub retry_of: Option<TaskId>,
    pub schedule: Option<String>,
    pub labels: Vec<(String, String)>,
    pub options: TaskOptions,
    pub way: Way,
}

/// How a task gets to the broker when nothing else holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Way {
    /// By the direct path, or by a pass over the outbox at its time.
    #[default]
    Direct,
    /// A pass over the outbox decides when.
    Pass,
    /// It goes to the end of the line that waits for room in its queue. The lowest rank goes first.
    Line { rank: i16 },
    /// It waits at the gate of these limits from the beginning. The submission is refused if the task cannot start at once and one of the limits
    /// has `on_limit: reject`.
    Gate(Vec<KeyLimit>),
}

impl NewTask {
    /// Whether the task goes to the broker at once, is a single task, and has no further options.
    pub(super) fn is_plain(&self) -> bool {
        let is_alone = self.root_id == self.id && self.parent_id.is_none() && self.group_id.is_none();
        let is_new = self.retry_of.is_none() && self.schedule.is_none() && self.group_index.is_none();
        let is_direct = self.phase == Phase::Accepted && self.way == Way::Direct;
        let is_at_once = is_direct && self.due_at.is_none() && self.expires_at.is_none();
        is_alone && is_new && is_at_once && self.labels.is_empty()
    }

    /// The first gate, for a task that waits at one from the beginning.
    pub(super) fn gate(&self) -> Option<RateGate> {
        match &self.way {
            Way::Gate(limits) => first_gate(limits),
            Way::Direct | Way::Pass | Way::Line { .. } => None,
        }
    }

    /// Its rank, for a task that waits for room in its queue.
    pub(super) fn rank(&self) -> Option<i16> {
        match self.way {
            Way::Line { rank } => Some(rank),
            Way::Direct | Way::Pass | Way::Gate(_) => None,
        }
    }

    /// Limits that refuse it if it could not start at once.
    pub(super) fn refusing(&self) -> impl Iterator<Item = &KeyLimit> {
        let limits = match &self.way {
            Way::Gate(limits) => limits.as_slice(),
            Way::Direct | Way::Pass | Way::Line { .. } => &[],
        };
        limits.iter().filter(|limit| limit.on_limit == OnLimit::Reject)
    }

    /// When a pass over the outbox must check it: its start time, or its expiry.
    pub(super) fn wake_at(&self, accepted_at: Time) -> i64 {
        let due = match (self.phase, self.due_at) {
            _ if matches!(self.way, Way::Line { .. } | Way::Gate(_)) => i64::MAX,
            (Phase::Accepted, None) if self.way == Way::Pass => accepted_at.0.saturating_add(1),
            (Phase::Held, None) => i64::MAX,
            // A schedule's tick is planned before it is accepted. A row that is due after its acceptance is not published directly.
            (Phase::Held, Some(due)) if due < accepted_at => accepted_at.0.saturating_add(1),
            (_, due) => due.unwrap_or(accepted_at).0,
        };
        due.min(self.expires_at.map_or(i64::MAX, |at| at.0))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    pub from: usize,
    pub to: usize,
    pub kind: EdgeKind,
}

#[derive(Debug, Clone)]
pub struct NewGroup {
    pub id: GroupId,
    pub root_id: TaskId,
    /// Members that count for completion.
    pub total: i32,
    /// For a chord's header: the value that `celery-taskset-meta-<id>.s` must have before a member is published.
    pub chord_size: Option<i32>,
    /// For a chord's header with a nested group: the saved structure (`celery-taskset-meta-<id>`).
    pub structure: Option<Json>,
}

/// The `Idempotency-Key` of a request: the first request wins, the others get its answer.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// The caller's scope (such as a token's id, or empty), and the key.
    pub scope: String,
    pub key: String,
    /// Hash of method, path and body.
    pub fingerprint: Vec<u8>,
    /// The answer to repeat: status, headers and body, in the form of the HTTP layer.
    pub answer: Json,
    pub expires_at: Time,
}

/// `unique: {key, while}`: at most one task holds the key.
#[derive(Debug, Clone)]
pub struct UniqueKey {
    pub key: String,
    /// Until this time; `None` until the task is final.
    pub until: Option<Time>,
    /// The task that a later submission joins.
    pub task_id: TaskId,
    /// The key is taken over from this task, if the task still holds it.
    pub replaces: Option<TaskId>,
}

#[derive(Debug, Clone)]
pub struct Inserted {
    /// The numbers of the tasks, in the order of the submission.
    pub task_nos: Vec<i64>,
}

/// Why a submission was refused; nothing was written.
#[derive(Debug, Clone)]
pub enum Conflict {
    /// This task id is taken.
    TaskId(TaskId),
    GroupId(GroupId),
    /// Same key, same fingerprint: repeat this answer.
    Replay(Json),
    /// Same key, other fingerprint.
    KeyReused,
    /// A task with this unique key is active, or its key has not expired.
    Joined(TaskId),
    /// No task of this key may start now, and the submission must not wait. Another task may start after `wait` microseconds.
    Limited {
        key: String,
        wait: i64,
    },
}

/// A row of the outbox with everything that the broker needs.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub no: i64,
    pub id: TaskId,
    pub name: TaskName,
    pub queue: QueueName,
    pub spread: Option<Spread>,
    pub priority: Priority,
    /// The number of the delivery, 1 for the first.
    pub delivery: i32,
    pub headers: String,
    pub body: String,
    pub accepted_at: Time,
    /// Whether the replica that accepted it may have pushed it already, without a pass over the outbox.
    pub direct: bool,
    pub expires_at: Option<Time>,
    /// Groups of the same canvas (same `root_id`) whose chord size or structure must be in the backend before the push. Empty for a
    /// single task.
    pub groups: std::sync::Arc<[NewGroup]>,
}
