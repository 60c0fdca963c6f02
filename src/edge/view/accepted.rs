//! The answer to a submission.

use runtime::uri::encoded;
use serde::{Serialize, Serializer};
use serde_json::json;
use utoipa::ToSchema;

use super::control::RevokedView;
use crate::catalog::AnswerFields;
use crate::edge::base;
use crate::usecase::Warning;
use crate::usecase::submit::Submitted;
use celery::task::Json;

/// Related resources.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Links)]
pub struct LinksView {
    #[serde(rename = "self")]
    #[schema(example = "/v1/tasks/0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c42")]
    pub this: String,
    #[schema(example = "/result/0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c42")]
    pub result: String,
    #[schema(example = "/v1/tasks/0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c42/events")]
    pub events: String,
}

impl LinksView {
    pub fn task(id: &str) -> Self {
        let id = encoded(id);
        Self {
            this: base::joined(["/v1/tasks/", &id]),
            result: base::joined(["/result/", &id]),
            events: base::joined(["/v1/tasks/", &id, "/events"]),
        }
    }

    /// The links of a group, whose `self` is its result.
    pub fn group(id: &str) -> Self {
        let id = encoded(id);
        Self {
            this: base::joined(["/result/", &id]),
            result: base::joined(["/result/", &id]),
            events: base::joined(["/v1/tasks/", &id, "/events"]),
        }
    }
}

/// One task of a canvas.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Child)]
pub struct ChildView {
    pub task_id: String,
    #[schema(value_type = String)]
    pub task: Option<String>,
}

/// A reason why an accepted task may not run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Warning)]
pub struct WarningView {
    /// `unserved`: no worker reads the queue. `unregistered`: no worker that reads it registers the task.
    #[schema(value_type = String, example = "unserved")]
    pub code: &'static str,
    #[schema(example = "no worker reads the queue gpu: tasks.embed waits until one does")]
    pub detail: String,
}

impl From<&Warning> for WarningView {
    fn from(warning: &Warning) -> Self {
        Self { code: warning.code, detail: warning.detail.clone() }
    }
}

/// Committed to disk.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Accepted)]
pub struct AcceptedView {
    /// The task whose result is the result of the whole; absent for a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c42")]
    pub task_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    /// Set by the catalog entry's `response` if that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, example = "PENDING")]
    pub status: Option<String>,
    #[schema(example = "accepted")]
    pub phase: String,
    /// Null for a group.
    #[schema(example = "tasks.add")]
    pub task: Option<String>,
    /// Null for a group.
    #[schema(example = "celery")]
    pub queue: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, example = "tasks.add is accepted")]
    pub message: Option<String>,
    /// How many tasks a group has; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 3)]
    pub count: Option<usize>,
    /// The tasks of a canvas; left out for a single task and above 1,000.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ChildView>,
    pub links: LinksView,
    /// `unique` joined an existing task.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deduplicated: bool,
    /// Reasons why the task may not run; absent when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<WarningView>,
    /// The task that held its unique key, and the verdict of its revoke.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced: Option<RevokedView>,
    /// The path parameters of a catalog endpoint, as the client sent them.
    #[serde(flatten, serialize_with = "as_members")]
    #[schema(ignore)]
    pub echo: Vec<(String, String)>,
    /// The fields of the entry's `response`.
    #[serde(flatten, serialize_with = "as_members")]
    #[schema(ignore)]
    pub own: Vec<(String, Json)>,
}

impl AcceptedView {
    pub fn new(submitted: &Submitted, shown: Shown) -> Self {
        let Shown { message, echo, answer } = shown;
        let links = match (&submitted.task_id, &submitted.group_id) {
            (Some(id), _) => LinksView::task(id.as_str()),
            (None, Some(id)) => LinksView::group(id.as_str()),
            (None, None) => LinksView::task(""),
        };
        let task = submitted.task.as_ref().map(ToString::to_string);
        let children = submitted
            .children
            .iter()
            .map(|(id, task)| ChildView { task_id: id.to_string(), task: Some(task.to_string()) });
        let mut view = Self {
            message: Some(message.unwrap_or_else(|| sentence(submitted))),
            task_id: submitted.task_id.as_ref().map(ToString::to_string),
            group_id: submitted.group_id.as_ref().map(ToString::to_string),
            status: Some(submitted.status.clone()),
            phase: submitted.phase.to_string(),
            task,
            queue: submitted.queue.as_ref().map(ToString::to_string),
            count: submitted.group_id.as_ref().filter(|_| submitted.task_id.is_none()).map(|_| submitted.count),
            children: children.collect(),
            links,
            deduplicated: submitted.joined,
            warnings: submitted.warnings.iter().map(WarningView::from).collect(),
            replaced: submitted.replaced.clone().map(RevokedView::from),
            echo,
            own: Vec::new(),
        };
        if let Some(answer) = answer {
            view.say(answer.fill(&|name| view.json_of(name)));
        }
        view
    }

    /// Adds the entry's own fields; `status` and `message` replace ours.
    fn say(&mut self, own: Vec<(String, Json)>) {
        let says = |name: &str| own.iter().any(|(header, _)| header == name);
        if says("status") {
            self.status = None;
        }
        if says("message") {
            self.message = None;
        }
        self.own = own;
    }

    /// A field as JSON text, for the templates of `response`.
    fn json_of(&self, name: &str) -> String {
        let value = match name {
            "task_id" => json!(self.task_id),
            "group_id" => json!(self.group_id),
            "status" => json!(self.status),
            "phase" => json!(self.phase),
            "task" => json!(self.task),
            "queue" => json!(self.queue),
            "message" => json!(self.message),
            "count" => json!(self.count),
            _ => serde_json::Value::Null,
        };
        value.to_string()
    }
}

fn sentence(submitted: &Submitted) -> String {
    match &submitted.task {
        Some(task) if submitted.joined => format!("{task} is there already"),
        Some(task) if submitted.count > 1 => format!("{} tasks are accepted, the last is {task}", submitted.count),
        Some(task) => format!("{task} is accepted"),
        None => format!("a group of {} tasks is accepted", submitted.count),
    }
}

/// What a catalog entry adds to the answer.
#[derive(Default, Clone)]
pub struct Shown {
    pub message: Option<String>,
    pub echo: Vec<(String, String)>,
    pub answer: Option<AnswerFields>,
}

fn as_members<S: Serializer, V: Serialize>(members: &[(String, V)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(members.iter().map(|(name, value)| (name, value)))
}
