//! The `[[tasks]]` entries as written. The catalog compiles them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::process::RawProcess;
use super::value::{Bytes, Count, Span, Switch, Text, Words};

/// One entry: a task that gets a typed endpoint, validation and its own operation in OpenAPI.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTask {
    /// The name under which workers register the task.
    pub name: Text,
    /// One line about it, for the contract and the dashboard.
    #[serde(default)]
    pub summary: Option<Text>,
    /// More about it, for the contract.
    #[serde(default)]
    pub description: Option<Text>,
    /// Endpoint of the task, such as `POST /run-crawler/{category}`. Without it the entry only sets the task's defaults.
    #[serde(default)]
    pub endpoint: Option<Text>,
    /// Positional arguments, as templates: a lone `"{x}"` keeps the type of the parameter or body field x, inside a longer text it is
    /// inserted. Default none.
    #[serde(default)]
    pub args: Vec<Value>,
    /// Keyword arguments, as templates. Default none.
    #[serde(default)]
    pub kwargs: BTreeMap<String, Value>,
    /// Queue of its messages. Default the queue from `[routes]`, else `broker.default_queue`.
    #[serde(default)]
    pub queue: Option<Text>,
    /// Priority of requests that give none, 0 to 9; on Redis, 0 is served first.
    #[serde(default)]
    pub priority: Option<Count>,
    /// Time after which the worker raises `SoftTimeLimitExceeded` in the task. Default none.
    #[serde(default)]
    pub soft_time_limit: Option<Span>,
    /// Time after which the worker kills the task. Default none.
    #[serde(default)]
    pub time_limit: Option<Span>,
    /// How many of the task may start in which time over the whole fleet, such as `100/m`. Default none.
    #[serde(default)]
    pub rate_limit: Option<Text>,
    /// A sentence for the answer of the endpoint, as a template.
    #[serde(default)]
    pub message: Option<Text>,
    /// By parameter: the value that the client sends → the value that the worker gets.
    #[serde(default)]
    pub values: BTreeMap<String, BTreeMap<String, Value>>,
    /// JSON Schema of the request body.
    #[serde(default)]
    pub body: Option<Value>,
    /// Maximum length of a list in the body, by field.
    #[serde(default)]
    pub max_items: BTreeMap<String, Count>,
    /// The worker stores no result. Default false.
    #[serde(default)]
    pub ignore_result: Option<Switch>,
    /// `rerun` or `report` (it ends as `lost`): what happens when its worker dies with it. Default `rerun` if the task is
    /// idempotent or acknowledges late, else `report`.
    #[serde(default)]
    pub recovery: Option<Text>,
    /// How often its message may be delivered before the task fails with `PoisonTask`. Default `recovery.max_deliveries`.
    #[serde(default)]
    pub max_deliveries: Option<Count>,
    /// Names of arguments that are shown as `***` everywhere.
    #[serde(default)]
    pub redact: Option<Words>,
    /// A task that runs longer is reported as an incident. Default 5 minutes.
    #[serde(default)]
    pub budget: Option<Span>,
    /// A task that has not started after this long does not start at all. Default none.
    #[serde(default)]
    pub expires: Option<Span>,
    /// How often and when it runs again after a failure: `{max, delay, backoff, cap, jitter}`. Default never.
    #[serde(default)]
    pub retry: Option<Value>,
    /// Webhooks to call when a task ends, as in `POST /v1/tasks`.
    #[serde(default)]
    pub webhooks: Option<Value>,
    /// Turns one call into many tasks: `range` or `list`.
    #[serde(default)]
    pub split: Option<Value>,
    /// Concurrency and rate limits for the tasks that share a key: `[{key, max, rate}]`. The key is a template.
    #[serde(default)]
    pub limits: Option<Value>,
    /// `hold`, `reject` or `drop-oldest`: what to do with a task that its limits do not let start now. Default `hold`.
    #[serde(default)]
    pub on_limit: Option<Text>,
    /// Fair sharing of a queue among tenants: `{key, weight}`. The key, a template, names the tenant; the weight is 1 by default.
    #[serde(default)]
    pub fair: Option<Value>,
    /// Labels of its tasks, as templates.
    #[serde(default)]
    pub labels: Option<Value>,
    /// At most one such task: `{key, while, on_conflict}`, the key as a template.
    #[serde(default)]
    pub unique: Option<Value>,
    /// SSE endpoint such as `GET /stream/{upload_id}`: the events of the newest task whose labels match the path's parameters.
    #[serde(default)]
    pub stream: Option<Text>,
    /// Extra fields of the endpoint's answer, as templates.
    #[serde(default)]
    pub response: Option<Value>,
    /// One call is a whole composition: `{chain = [...]}`, `{group = [...]}`, `{chord = {header, body}}` or `{dag = {nodes}}`
    /// of signatures with templates. The entry's name is then no task's.
    #[serde(default)]
    pub canvas: Option<Value>,
    /// Signatures that run after a success and receive the result, as templates.
    #[serde(default)]
    pub link: Vec<Value>,
    /// Signatures that run after a failure and receive the failed task's id, as templates.
    #[serde(default)]
    pub link_error: Vec<Value>,
    /// A signature that is submitted when a task of the entry has failed for good; it receives id, error and attempts.
    #[serde(default)]
    pub on_failure: Option<Value>,
    /// The endpoint takes a form with a file: `{field, max, store, types}`.
    #[serde(default)]
    pub upload: Option<Value>,
    /// Arguments and results above this size go into `[stores.default]` and a reference into the message, where taskgate's own worker runs
    /// the task. Default never.
    #[serde(default)]
    pub offload: Option<Bytes>,
    /// Whether the task may safely run twice: it decides what happens when its worker dies. Default false.
    #[serde(default)]
    pub idempotent: Option<Switch>,
    /// Lets calls by name override the entry's arguments, queue and time limits.
    #[serde(default)]
    pub open: Option<Switch>,
    /// Refuses a task that no worker could run now (none consumes its queue, or none registers it), instead of accepting it with a
    /// warning.
    #[serde(default)]
    pub strict: Option<Switch>,
    /// An executable that the Rust worker runs for this task, with its arguments.
    #[serde(default)]
    pub command: Option<Words>,
    /// Environment and resource limits of the executable.
    #[serde(default)]
    pub process: Option<RawProcess>,
    /// The Rust worker runs this task in a child process.
    #[serde(default)]
    pub child: Option<Switch>,
}
