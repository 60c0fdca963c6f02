//! What the ledger answers, and what it is told.

use serde::{Deserialize, Serialize};

use celery::task::{GroupId, Json, Phase, Position, Priority, Spread, TaskId};
use runtime::clock::Time;

/// One row of the ledger.
#[derive(Debug, Clone)]
pub struct Task {
    /// The order of acceptance.
    pub no: i64,
    pub id: TaskId,
    /// Null until the name of an adopted task is known.
    pub name: Option<String>,
    pub queue: Option<String>,
    pub priority: Priority,
    pub phase: Phase,
    pub status: String,
    pub seq: i64,
    pub delivery: i32,
    pub retries: i32,
    pub worker: Option<String>,
    pub root_id: Option<TaskId>,
    pub parent_id: Option<TaskId>,
    pub group_id: Option<GroupId>,
    pub group_index: Option<i32>,
    pub ignore_result: bool,
    pub labels: Vec<(String, String)>,
    pub options: TaskOptions,
    pub submitted_at: Time,
    pub queued_at: Option<Time>,
    pub received_at: Option<Time>,
    pub started_at: Option<Time>,
    pub finished_at: Option<Time>,
    /// When a held task is published.
    pub due_at: Option<Time>,
    pub expires_at: Option<Time>,
    /// Seconds the worker measured.
    pub runtime: Option<f64>,
    /// The return value as Celery stored it; null unless succeeded.
    pub result: Option<Json>,
    pub failure: Option<Failure>,
    pub traceback: Option<String>,
    /// The newest `update_state` meta.
    pub progress: Option<Json>,
    /// Result tuples of tasks sent while running, as Celery stores them.
    pub children: Option<Json>,
    pub retry_of: Option<TaskId>,
    pub retried_as: Option<TaskId>,
    pub schedule: Option<String>,
    /// Why it is where it is, when that was decided by taskgate.
    pub reason: Option<String>,
    /// Seen on the broker, not submitted here.
    pub adopted: bool,
    pub corrected: bool,
    /// Python texts of the arguments, for adopted tasks.
    pub argsrepr: Option<String>,
    pub kwargsrepr: Option<String>,
    /// A revoke was asked for at this time.
    pub revoke_requested_at: Option<Time>,
}

impl Task {
    pub fn position(&self) -> Position {
        Position { delivery: self.delivery, retries: self.retries, phase: self.phase }
    }

    /// It waits in an inbox and is not in the ledger yet.
    pub fn is_undrained(&self) -> bool {
        self.seq == 0
    }

    /// It has replaced itself by other tasks, and waits for them: a worker had it, and its turn in a canvas had come before.
    pub fn is_replaced(&self) -> bool {
        let was_taken = self.received_at.is_some() || self.started_at.is_some() || self.worker.is_some();
        self.phase == Phase::Waiting && was_taken
    }

    /// Begins a further delivery: what was heard of the one before no longer holds.
    pub(super) fn redeliver(&mut self) {
        self.delivery += 1;
        self.retries = 0;
        self.queued_at = None;
        self.received_at = None;
        self.started_at = None;
        self.worker = None;
    }
}

/// What rarely matters to a query, stored as one JSON object. New fields get a default: old rows lack them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_time_limit: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_limit: Option<f64>,
    /// Names of fields that are masked wherever a person looks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<String>,
    /// `rerun` or `report`, when the catalog says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery: Option<String>,
    /// How often its message may be delivered, when the catalog says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_deliveries: Option<u32>,
    /// Seconds a run may take before it is an incident.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<f64>,
    /// The submission's retry policy, webhooks and limits, as given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhooks: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<serde_json::Value>,
    /// Whose task it is, where several share a queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fair: Option<celery::task::limit::Fair>,
    /// `traceparent` of the request that submitted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Id of the token that submitted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// An errback or link: a branch that may not be taken.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub branch: bool,
    /// How many failed tasks this one was retried after, by its policy.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempt: u32,
    /// The signature that is submitted when it has failed for good, as the catalog writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<serde_json::Value>,
    /// Where an exchange takes it, when that is not its queue's list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// A message as published: the two texts from which the exact bytes are made again.
#[derive(Debug, Clone)]
pub struct Message {
    pub headers: Option<String>,
    /// `[args, kwargs, embed]`.
    pub body: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Python's class name, as `ValueError`; `TaskLost` when taskgate gave it up.
    #[serde(rename = "type")]
    pub kind: String,
    pub message: String,
}

/// A change of a task, with its place in the task's history and in the feed.
#[derive(Debug, Clone)]
pub struct Event {
    pub task_no: i64,
    pub task_id: TaskId,
    pub name: Option<String>,
    pub queue: Option<String>,
    pub group_id: Option<GroupId>,
    pub root_id: Option<TaskId>,
    pub seq: i64,
    /// Zero where the feed's position is not known to the reader (it is in `feed()`).
    pub feed: i64,
    pub at: Time,
    pub phase: Phase,
    pub status: String,
    pub delivery: i32,
    pub retries: i32,
    pub worker: Option<String>,
    /// `update_state`'s object, or the error of a retry.
    pub meta: Option<Json>,
    pub reason: Option<String>,
    pub corrected: bool,
}

impl Event {
    /// The first event of a submitted task.
    pub fn accepted(task_no: i64, task: &super::NewTask, at: Time) -> Self {
        Self {
            task_no,
            task_id: task.id.clone(),
            name: Some(task.name.as_str().to_owned()),
            queue: Some(task.queue.as_str().to_owned()),
            group_id: task.group_id.clone(),
            root_id: Some(task.root_id.clone()),
            seq: 1,
            feed: 0,
            at,
            phase: task.phase,
            status: task.phase.status().to_owned(),
            delivery: 1,
            retries: 0,
            worker: None,
            meta: None,
            reason: None,
            corrected: false,
        }
    }

    /// What there is to say of a task as it stands.
    pub fn of(task: &Task, at: Time) -> Self {
        Self {
            task_no: task.no,
            task_id: task.id.clone(),
            name: task.name.clone(),
            queue: task.queue.clone(),
            group_id: task.group_id.clone(),
            root_id: task.root_id.clone(),
            seq: task.seq,
            feed: 0,
            at,
            phase: task.phase,
            status: task.status.clone(),
            delivery: task.delivery,
            retries: task.retries,
            worker: task.worker.clone(),
            meta: None,
            reason: task.reason.clone(),
            corrected: task.corrected,
        }
    }

    /// The event of a publication.
    pub(super) fn queued(task: &Task, at: Time) -> Self {
        let phase = Phase::Queued;
        Self { seq: task.seq + 1, phase, status: phase.status().to_owned(), reason: None, ..Self::of(task, at) }
    }
}

/// Where news comes from: the feeds overtake each other, so some rules differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// taskgate itself: relay, revoke, sweeper.
    Ledger,
    /// The record in the result backend: belongs to the current attempt, or to the next one after a retry.
    Result,
    /// A worker's event.
    Event,
}

/// Something that was heard about a task. `None` means "not said".
#[derive(Debug, Clone)]
pub struct News {
    pub task_id: TaskId,
    pub source: Source,
    pub at: Time,
    pub phase: Phase,
    /// A custom state's name; else the phase's own word.
    pub status: Option<String>,
    pub delivery: Option<i32>,
    pub retries: Option<i32>,
    pub worker: Option<String>,
    pub meta: Option<Json>,
    pub result: Option<Json>,
    pub failure: Option<Failure>,
    pub traceback: Option<String>,
    pub children: Option<Json>,
    pub runtime: Option<f64>,
    pub reason: Option<String>,
    pub adoption: Option<Adoption>,
    /// Decided by what the task was at this `seq`: dropped when it has moved since.
    pub if_seq: Option<i64>,
    /// Its message has the mark of one that went back to its queue.
    pub redelivered: bool,
    /// Heard by a recorder that has a successor: only what may be told late and twice counts.
    pub late: bool,
}

impl News {
    pub fn new(task_id: TaskId, source: Source, phase: Phase, at: Time) -> Self {
        Self {
            task_id,
            source,
            at,
            phase,
            status: None,
            delivery: None,
            retries: None,
            worker: None,
            meta: None,
            result: None,
            failure: None,
            traceback: None,
            children: None,
            runtime: None,
            reason: None,
            adoption: None,
            if_seq: None,
            redelivered: false,
            late: false,
        }
    }
}

/// What is known of a task that others put on our broker.
#[derive(Debug, Clone, Default)]
pub struct Adoption {
    pub name: Option<String>,
    pub queue: Option<String>,
    pub priority: Option<Priority>,
    pub root_id: Option<TaskId>,
    pub parent_id: Option<TaskId>,
    pub group_id: Option<GroupId>,
    pub argsrepr: Option<String>,
    pub kwargsrepr: Option<String>,
}

/// A group with its members in order.
#[derive(Debug, Clone)]
pub struct Group {
    pub id: GroupId,
    pub root_id: TaskId,
    pub total: i32,
    /// Of a chord's header: what its counter must reach.
    pub chord_size: Option<i32>,
    /// Of a chord's header with a group in it, where we announced it: the saved structure.
    pub structure: Option<Json>,
    pub submitted_at: Time,
    pub members: Vec<GroupMember>,
}

impl Group {
    /// Members that have ended, whatever their end.
    pub fn completed(&self) -> i32 {
        let ended = self.members.iter().filter(|member| member.phase.is_final()).count();
        i32::try_from(ended).unwrap_or(i32::MAX)
    }
}

#[derive(Debug, Clone)]
pub struct GroupMember {
    pub task_id: TaskId,
    pub name: Option<String>,
    pub index: Option<i32>,
    pub phase: Phase,
    pub status: String,
    pub seq: i64,
    pub result: Option<Json>,
    pub failure: Option<Failure>,
}

/// The right to do something alone, until it expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Grows with every new holder: a fence against the one before.
    pub term: i64,
    pub expires_at: Time,
}

/// What a holder of a lease shows with every write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    pub lease: &'static str,
    pub term: i64,
    /// The write renews the lease up to here: whoever writes is alive, however long the write takes.
    pub until: Time,
}

/// What became of an attempt to take a task out before it reached the broker.
#[derive(Debug)]
pub enum Withdrawn {
    /// It was ours and is ended now.
    Done(Vec<Event>),
    /// The broker has it, or had it.
    Published(Box<Task>),
    /// It was already final.
    Finished(Box<Task>),
    Unknown,
}

/// A task as a test of pure code wants it.
#[cfg(any(test, feature = "sample"))]
pub fn sample_task(id: &str, phase: Phase, at: Time) -> Task {
    Task {
        no: 1,
        id: TaskId::parse(id).expect("an id"),
        name: Some("tasks.sample".to_owned()),
        queue: Some("celery".to_owned()),
        priority: Priority::default(),
        phase,
        status: phase.status().to_owned(),
        seq: 1,
        delivery: 1,
        retries: 0,
        worker: None,
        root_id: None,
        parent_id: None,
        group_id: None,
        group_index: None,
        ignore_result: false,
        labels: Vec::new(),
        options: TaskOptions::default(),
        submitted_at: at,
        queued_at: None,
        received_at: None,
        started_at: None,
        finished_at: None,
        due_at: None,
        expires_at: None,
        runtime: None,
        result: None,
        failure: None,
        traceback: None,
        progress: None,
        children: None,
        retry_of: None,
        retried_as: None,
        schedule: None,
        reason: None,
        adopted: false,
        corrected: false,
        argsrepr: None,
        kwargsrepr: None,
        revoke_requested_at: None,
    }
}
