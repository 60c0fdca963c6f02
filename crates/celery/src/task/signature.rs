//! A call as data: one task, or tasks composed to a chain, group, chord or DAG. The one recursive type of the HTTP contract.
//!
//! Absent options stay `None`: the catalog, the routes and the defaults fill them in later. `reader.rs` parses signatures.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::dag::Dag;
use super::json::Members;
use super::{Json, Priority, QueueName, RetryPolicy, TaskId, TaskName};

/// A call, or a composition of calls.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Signature {
    /// Tasks that run one after the other; each gets the previous result.
    Chain(Vec<Signature>),
    /// Tasks that run at the same time.
    Group(Vec<Signature>),
    /// The body gets the list of the header's results.
    Chord { header: Vec<Signature>, body: Box<Signature> },
    /// Nodes that each start when their predecessors have succeeded. A DAG is always a whole submission, never a part of one.
    Dag(Dag),
    #[serde(untagged)]
    Task(Box<TaskSignature>),
}

/// One call with its options.
#[derive(Debug, Clone, Serialize)]
pub struct TaskSignature {
    pub task: TaskName,
    /// A JSON array, verbatim.
    pub args: Json,
    /// A JSON object, verbatim.
    pub kwargs: Json,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Seconds; never together with `eta`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub countdown: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Expires>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_result: Option<bool>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_time_limit: Option<f64>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_limit: Option<f64>,
    /// The predecessor's result is not passed in.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub immutable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    pub headers: Members,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    pub labels: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Run after success.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub link: Vec<Signature>,
    /// Plain tasks that run after a failure and get the failed task's id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub link_error: Vec<Signature>,
}

/// When a call expires if it has not started: seconds from its submission, or a time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Expires {
    After(f64),
    At(Timestamp),
}

/// How large a canvas may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Levels of signatures, and of JSON inside `args`, `kwargs` and `headers`.
    pub depth: usize,
    /// Tasks in one canvas, links included.
    pub tasks: usize,
    /// Extended JSON types that workers know besides kombu's own.
    pub json_types: &'static [&'static str],
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 64, tasks: 100_000, json_types: &[] }
    }
}

/// Members of a plain call.
pub const FIELDS: [&str; 18] = [
    "task",
    "args",
    "kwargs",
    "queue",
    "priority",
    "countdown",
    "eta",
    "expires",
    "ignore_result",
    "soft_time_limit",
    "time_limit",
    "immutable",
    "task_id",
    "headers",
    "labels",
    "retry",
    "link",
    "link_error",
];
/// Members of a composition.
pub const FORMS: [&str; 4] = ["chain", "group", "chord", "dag"];
/// Headers that Celery uses itself.
pub const RESERVED_HEADERS: [&str; 23] = [
    "lang",
    "task",
    "id",
    "shadow",
    "eta",
    "expires",
    "group",
    "group_index",
    "retries",
    "timelimit",
    "root_id",
    "parent_id",
    "argsrepr",
    "kwargsrepr",
    "origin",
    "ignore_result",
    "replaced_task_nesting",
    "stamped_headers",
    "stamps",
    "compression",
    "redelivered",
    "taskset",
    "taskgate_retry",
];

impl TaskSignature {
    /// A call without options.
    pub fn new(task: TaskName, args: Json, kwargs: Json) -> Self {
        Self {
            task,
            args,
            kwargs,
            queue: None,
            priority: None,
            countdown: None,
            eta: None,
            expires: None,
            ignore_result: None,
            soft_time_limit: None,
            time_limit: None,
            immutable: false,
            task_id: None,
            headers: Members::new(),
            labels: Vec::new(),
            retry: None,
            link: Vec::new(),
            link_error: Vec::new(),
        }
    }
}

impl Signature {
    /// The signature as JSON, as it was given.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("every part of a signature is JSON")
    }

    /// Calls `visit` for every task in it, links included, outer tasks first.
    pub fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a TaskSignature)) {
        match self {
            Self::Task(task) => {
                visit(task);
                task.link.iter().chain(&task.link_error).for_each(|link| link.visit(visit));
            }
            Self::Chain(members) | Self::Group(members) => members.iter().for_each(|member| member.visit(visit)),
            Self::Chord { header, body } => {
                header.iter().for_each(|member| member.visit(visit));
                body.visit(visit);
            }
            Self::Dag(dag) => dag.nodes.iter().for_each(|node| node.signature.visit(visit)),
        }
    }

    /// As [`Signature::visit`], to change them.
    pub fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut TaskSignature)) {
        match self {
            Self::Task(task) => {
                visit(task);
                task.link.iter_mut().chain(&mut task.link_error).for_each(|link| link.visit_mut(visit));
            }
            Self::Chain(members) | Self::Group(members) => {
                members.iter_mut().for_each(|member| member.visit_mut(visit));
            }
            Self::Chord { header, body } => {
                header.iter_mut().for_each(|member| member.visit_mut(visit));
                body.visit_mut(visit);
            }
            Self::Dag(dag) => dag.nodes.iter_mut().for_each(|node| node.signature.visit_mut(visit)),
        }
    }
}

fn as_map<S: Serializer, V: Serialize>(members: &[(String, V)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(members.iter().map(|(name, value)| (name, value)))
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
