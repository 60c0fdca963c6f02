//! The types of the ledger: tasks, events, news, leases.

use serde::{Deserialize, Serialize};

use celery::task::{GroupId, Json, Phase, Position, Priority, Spread, TaskId};
use runtime::clock::Time;

/// A task in the ledger.
#[derive(Debug, Clone)]
pub struct Task {
    /// The order of acceptance.
    pub no: i64,
    pub id: TaskId,
    /// `None` until the name of an adopted task is known.
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
    /// When a held task is to be published.
    pub due_at: Option<Time>,
    pub expires_at: Option<Time>,
    /// The runtime in seconds, as the worker measured it.
    pub runtime: Option<f64>,
    /// The return value as Celery stored it; `None` unless succeeded.
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
    /// Why the task is in this state, if taskgate decided it.
    pub reason: Option<String>,
    /// Whether another client submitted the task, and taskgate learnt of it from the broker or from workers.
    pub adopted: bool,
    pub corrected: bool,
    /// Python texts of the arguments, for adopted tasks.
    pub argsrepr: Option<String>,
    pub kwargsrepr: Option<String>,
    /// When a revoke was requested.
    pub revoke_requested_at: Option<Time>,
}

impl Task {
    pub fn position(&self) -> Position {
        Position { delivery: self.delivery, retries: self.retries, phase: self.phase }
    }

    /// Whether the task waits in an inbox and is not in the ledger yet.
    pub fn is_undrained(&self) -> bool {
        self.seq == 0
    }

    /// Whether the task has replaced itself by other tasks and waits for them: it is `waiting` although a worker had it.
    pub fn is_replaced(&self) -> bool {
        let was_taken = self.received_at.is_some() || self.started_at.is_some() || self.worker.is_some();
        self.phase == Phase::Waiting && was_taken
    }

    /// Begins a further delivery: facts of the previous one are cleared.
    pub(super) fn redeliver(&mut self) {
        self.delivery += 1;
        self.retries = 0;
        self.queued_at = None;
        self.received_at = None;
        self.started_at = None;
        self.worker = None;
    }
}

/// Fields that queries rarely need, stored as a JSON object. New fields need a default, because old rows lack them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_time_limit: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_limit: Option<f64>,
    /// Names of fields that are masked wherever they are shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<String>,
    /// `rerun` or `report`, if the catalog sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery: Option<String>,
    /// How often its message may be delivered, if the catalog sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_deliveries: Option<u32>,
    /// Seconds a run may take before it is reported as an incident.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<f64>,
    /// The submission's retry policy, as the client sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhooks: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<serde_json::Value>,
    /// The tenant, for fair sharing of a queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fair: Option<celery::task::limit::Fair>,
    /// `traceparent` of the request that submitted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Id of the token that submitted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Whether it is a link or an errback: a branch that may not be taken.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub branch: bool,
    /// How many failed tasks its retry policy has replaced before it.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempt: u32,
    /// The signature that is submitted when it has failed for good, from the catalog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<serde_json::Value>,
    /// Where an exchange routes it, if not just to its queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// A message as published: the two texts from which its exact bytes can be built again.
#[derive(Debug, Clone)]
pub struct Message {
    pub headers: Option<String>,
    /// `[args, kwargs, embed]`.
    pub body: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Python's class name, such as `ValueError`; `TaskLost` when taskgate gave it up.
    #[serde(rename = "type")]
    pub kind: String,
    pub message: String,
}

/// A change of a task, with its position in the task's history and in the feed.
#[derive(Debug, Clone)]
pub struct Event {
    pub task_no: i64,
    pub task_id: TaskId,
    pub name: Option<String>,
    pub queue: Option<String>,
    pub group_id: Option<GroupId>,
    pub root_id: Option<TaskId>,
    pub seq: i64,
    /// Zero if the feed position is not known (only `feed()` sets it).
    pub feed: i64,
    pub at: Time,
    pub phase: Phase,
    pub status: String,
    pub delivery: i32,
    pub retries: i32,
    pub worker: Option<String>,
    /// The object of `update_state`, or the error of a retry.
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

    /// An event with the task's present state.
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
}

/// The source of news: the feeds are not ordered relative to each other, so some rules differ by source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// taskgate itself: relay, revoke, sweeper.
    Ledger,
    /// The record in the result backend: belongs to the current attempt, or to the next one after a retry.
    Result,
    /// A worker's event.
    Event,
}

/// News of a task. A field is `None` if the report does not contain it.
#[derive(Debug, Clone)]
pub struct News {
    pub task_id: TaskId,
    pub source: Source,
    pub at: Time,
    pub phase: Phase,
    /// The name of a custom state; `None` for the phase's Celery state.
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
    /// The `seq` that a decision is based on: the news is dropped if the task has changed since.
    pub if_seq: Option<i64>,
    /// Whether its message is marked as redelivered.
    pub redelivered: bool,
    /// Whether it comes from a recorder that has lost its lease: it counts only if it may be applied late and twice.
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

/// What is known about a task that another client put into the broker.
#[derive(Debug, Clone, Default)]
pub struct Adoption {
    /// The task's own name; in an event, its shadow name if it has one.
    pub name: Option<String>,
    /// The shadow name, from a source that has both names.
    pub shadow: Option<String>,
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
    /// For a chord's header: the number of parts.
    pub chord_size: Option<i32>,
    /// For a chord's header with a nested group that the gateway sent: the saved structure.
    pub structure: Option<Json>,
    pub submitted_at: Time,
    pub members: Vec<GroupMember>,
}

impl Group {
    /// The number of members that have ended in any way.
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

/// A lease: an exclusive right, until it expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Grows with every new holder, which fences off earlier ones.
    pub term: i64,
    pub expires_at: Time,
}

/// The proof of a lease, with which its holder makes every write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    pub lease: &'static str,
    pub term: i64,
    /// The write renews the lease until this time, so that a long write does not lose it.
    pub until: Time,
}

/// The outcome of an attempt to withdraw a task before it reached the broker.
#[derive(Debug)]
pub enum Withdrawn {
    /// It was not published yet, and has ended now.
    Done(Vec<Event>),
    /// The broker has it, or had it.
    Published(Box<Task>),
    /// It was already final.
    Finished(Box<Task>),
    Unknown,
}

/// A task for tests of pure code.
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
