//! The `[[tasks]]` entries as written. The catalog compiles them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::value::{Count, Span, Switch, Text, Words};

/// One entry: a task that gets a typed endpoint, validation and its own operation in OpenAPI.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTask {
    pub name: Text,
    #[serde(default)]
    pub summary: Option<Text>,
    #[serde(default)]
    pub description: Option<Text>,
    /// `POST /run-crawler/{category}`. Without one the entry only sets the task's defaults.
    #[serde(default)]
    pub endpoint: Option<Text>,
    #[serde(default)]
    pub args: Vec<Value>,
    #[serde(default)]
    pub kwargs: BTreeMap<String, Value>,
    #[serde(default)]
    pub queue: Option<Text>,
    #[serde(default)]
    pub priority: Option<Count>,
    #[serde(default)]
    pub soft_time_limit: Option<Span>,
    #[serde(default)]
    pub time_limit: Option<Span>,
    #[serde(default)]
    pub rate_limit: Option<Text>,
    #[serde(default)]
    pub message: Option<Text>,
    /// What the client says → what the worker gets, by parameter.
    #[serde(default)]
    pub values: BTreeMap<String, BTreeMap<String, Value>>,
    /// JSON Schema of the request body.
    #[serde(default)]
    pub body: Option<Value>,
    #[serde(default)]
    pub max_items: BTreeMap<String, Count>,
    #[serde(default)]
    pub ignore_result: Option<Switch>,
    #[serde(default)]
    pub recovery: Option<Text>,
    #[serde(default)]
    pub redact: Option<Words>,
    #[serde(default)]
    pub budget: Option<Span>,
    #[serde(default)]
    pub expires: Option<Span>,
    #[serde(default)]
    pub retry: Option<Value>,
    #[serde(default)]
    pub webhooks: Option<Value>,
    #[serde(default)]
    pub split: Option<Value>,
    #[serde(default)]
    pub limits: Option<Value>,
    #[serde(default)]
    pub idempotent: Option<Switch>,
    /// Calls by name may break what the entry says of arguments, queue and time limits.
    #[serde(default)]
    pub open: Option<Switch>,
    /// An executable that the Rust worker runs for this task, with its arguments.
    #[serde(default)]
    pub command: Option<Words>,
    /// The Rust worker runs this task in a child process.
    #[serde(default)]
    pub child: Option<Switch>,
}
