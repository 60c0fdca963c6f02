//! A single call as a plan of one node.

use jiff::Timestamp;

use crate::celery::Message;
use crate::celery::seconds::Limits;
use crate::store::{Edge, NewGroup};
use crate::task::signature::{Expires, Signature, TaskSignature};
use crate::task::{GroupId, Invalid, Priority, QueueName, RetryPolicy, TaskId, TaskName};

pub struct Context<'a> {
    pub now: Timestamp,
    pub origin: &'a str,
    pub traceparent: Option<&'a str>,
    pub labels: &'a [(String, String)],
}

pub struct Plan {
    pub nodes: Vec<Node>,
    pub edges: Vec<Edge>,
    pub groups: Vec<NewGroup>,
    pub result: Outcome,
}

pub enum Outcome {
    Task(TaskId),
    Group(GroupId),
}

pub struct Node {
    pub id: TaskId,
    pub name: TaskName,
    pub queue: QueueName,
    pub priority: Priority,
    pub is_published: bool,
    pub is_branch: bool,
    pub headers: Option<String>,
    pub body: String,
    pub due_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub root_id: TaskId,
    pub parent_id: Option<TaskId>,
    pub group_id: Option<GroupId>,
    pub group_index: Option<i32>,
    pub ignore_result: bool,
    pub soft_time_limit: Option<f64>,
    pub time_limit: Option<f64>,
    pub retry: Option<RetryPolicy>,
    pub labels: Vec<(String, String)>,
}

pub fn plan(
    signature: &Signature,
    ids: &mut dyn FnMut() -> TaskId,
    fill: &dyn Fn(&TaskSignature) -> TaskSignature,
    context: &Context<'_>,
) -> Result<Plan, Vec<Invalid>> {
    let Signature::Task(task) = signature else {
        return Err(vec![Invalid { pointer: String::new(), detail: "a canvas cannot be planned yet".into() }]);
    };
    let task = fill(task);
    let id = task.task_id.clone().unwrap_or_else(ids);
    let span = |secs: f64| jiff::SignedDuration::try_from_secs_f64(secs).unwrap_or(jiff::SignedDuration::MAX);
    let later = |secs: f64| context.now.checked_add(span(secs)).unwrap_or(Timestamp::MAX);
    let due_at = task.eta.or(task.countdown.map(later));
    let expires_at = task.expires.map(|expires| match expires {
        Expires::After(secs) => later(secs),
        Expires::At(at) => at,
    });
    let mut message = Message::new(task.task.clone(), id.clone(), task.args.clone(), task.kwargs.clone());
    message.expires = expires_at;
    message.limits = Limits { hard: task.time_limit, soft: task.soft_time_limit };
    message.ignore_result = Some(task.ignore_result.unwrap_or(false));
    message.origin = context.origin.to_owned();
    message.custom = task.headers.clone();
    if let Some(traceparent) = context.traceparent {
        let value = crate::task::json::verbatim(format!("\"{traceparent}\""));
        message.custom.extend(value.ok().map(|value| ("traceparent".to_owned(), value)));
    }
    let mut labels = task.labels.clone();
    labels.extend(context.labels.iter().cloned());
    let node = Node {
        name: task.task.clone(),
        queue: task.queue.clone().expect("filled in"),
        priority: task.priority.unwrap_or_default(),
        is_published: true,
        is_branch: false,
        headers: Some(message.headers()),
        body: message.body(),
        due_at,
        expires_at,
        root_id: id.clone(),
        parent_id: None,
        group_id: None,
        group_index: None,
        ignore_result: task.ignore_result.unwrap_or(false),
        soft_time_limit: task.soft_time_limit,
        time_limit: task.time_limit,
        retry: task.retry,
        labels,
        id: id.clone(),
    };
    Ok(Plan { nodes: vec![node], edges: Vec::new(), groups: Vec::new(), result: Outcome::Task(id) })
}
