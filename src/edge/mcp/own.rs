//! The gateway's own tools, for reading and control.

use axum::http::Method;
use rmcp::ErrorData;
use rmcp::model::{CallToolResult, JsonObject, Tool, ToolAnnotations};
use serde_json::{Map, Value, json};

use super::handler::Call;
use super::inner::Answer;
use super::tasks::{tool_error, tool_result};
use super::wrong;
use crate::edge::access::{self, Need, Reach};
use ledger::Scope;
use runtime::uri::encoded;

/// One of the gateway's own tools.
pub(super) struct Own {
    pub name: &'static str,
    description: &'static str,
    pub scope: Scope,
    method: Method,
    /// `{name}` is replaced by an argument; the other arguments go into the query of a GET or the body of a POST.
    path: &'static str,
    /// Name, JSON type, whether it is required, description.
    arguments: &'static [(&'static str, &'static str, bool, &'static str)],
    is_destructive: bool,
}

const ID: (&str, &str, bool, &str) = ("task_id", "string", true, "The id of a task");
const QUEUE: (&str, &str, bool, &str) = ("queue", "string", true, "The name of a queue");

/// All of them.
pub(super) fn all() -> Vec<Own> {
    let read = |name, description, path, arguments| Own {
        name,
        description,
        scope: Scope::Read,
        method: Method::GET,
        path,
        arguments,
        is_destructive: false,
    };
    let control = |name, description, path, arguments| Own {
        scope: Scope::Control,
        method: Method::POST,
        is_destructive: true,
        ..read(name, description, path, arguments)
    };
    vec![
        read(
            "taskgate_find_tasks",
            "Find tasks, newest first.",
            "/v1/tasks",
            &[
                ("task", "string", false, "Name of the task"),
                ("status", "string", false, "Celery's status, as FAILURE"),
                ("queue", "string", false, "Name of the queue"),
                ("label", "string", false, "name:value"),
                ("limit", "integer", false, "At most so many, 1 to 500"),
                ("cursor", "string", false, "next of an earlier answer"),
            ],
        ),
        read("taskgate_get_task", "The state of a task, with its result or error.", "/v1/tasks/{task_id}", &[ID]),
        read(
            "taskgate_explain_task",
            "Explains why a task is in its present state, with the facts.",
            "/v1/tasks/{task_id}/explain",
            &[ID],
        ),
        read(
            "taskgate_task_graph",
            "The whole canvas or DAG of a task, with what follows what.",
            "/v1/tasks/{task_id}/graph",
            &[ID],
        ),
        read("taskgate_task_history", "The events of a task, in order.", "/v1/tasks/{task_id}/events", &[ID]),
        read(
            "taskgate_errors",
            "Failures by kind in the last hour, or since a time.",
            "/v1/stats/errors",
            &[
                ("from", "string", false, "RFC 3339"),
                ("to", "string", false, "RFC 3339"),
                ("task", "string", false, "Name of the task"),
            ],
        ),
        read("taskgate_queues", "All queues, with the number of waiting tasks.", "/v1/queues", &[]),
        read("taskgate_workers", "All workers that were seen within the last day.", "/v1/workers", &[]),
        read("taskgate_incidents", "The open incidents.", "/v1/incidents", &[]),
        read("taskgate_waits", "Steps of canvases that wait for an answer.", "/v1/waits", &[]),
        control(
            "taskgate_revoke_task",
            "Revoke a task; the answer says what is certain.",
            "/v1/tasks/{task_id}/revoke",
            &[
                ID,
                ("terminate", "boolean", false, "Also stop it if it runs"),
                ("reason", "string", false, "The reason, for the task's history"),
            ],
        ),
        control("taskgate_retry_task", "Send a task again under a new id.", "/v1/tasks/{task_id}/retry", &[ID]),
        control(
            "taskgate_resume_dag",
            "Run again what failed of a DAG, and what follows it.",
            "/v1/tasks/{task_id}/resume",
            &[ID],
        ),
        control(
            "taskgate_complete_wait",
            "Answer a step that waits; value becomes its result.",
            "/v1/tasks/{task_id}/complete",
            &[ID, ("value", "any", true, "The answer, any JSON value")],
        ),
        control("taskgate_pause_queue", "Publish nothing more to a queue.", "/v1/queues/{queue}/pause", &[QUEUE]),
        control("taskgate_resume_queue", "Publish to a paused queue again.", "/v1/queues/{queue}/resume", &[QUEUE]),
    ]
}

/// Whether a tool is one of the gateway's own.
pub(super) fn is_own(name: &str) -> bool {
    all().iter().any(|tool| tool.name == name)
}

impl Own {
    pub(super) fn shown(&self) -> Tool {
        let property = |(name, kind, _, description): &(&str, &str, bool, &str)| {
            let mut schema = json!({"description": description});
            if *kind != "any" {
                schema["type"] = json!(kind);
            }
            ((*name).to_owned(), schema)
        };
        let required: Vec<&str> =
            self.arguments.iter().filter(|argument| argument.2).map(|argument| argument.0).collect();
        let schema = JsonObject::from_iter([
            ("type".to_owned(), json!("object")),
            ("additionalProperties".to_owned(), json!(false)),
            ("required".to_owned(), json!(required)),
            ("properties".to_owned(), Value::Object(self.arguments.iter().map(property).collect())),
        ]);
        let hints = ToolAnnotations::new().read_only(!self.is_destructive).destructive(self.is_destructive);
        Tool::new(self.name, self.description, schema).with_annotations(hints)
    }

    /// Whether it shows or changes more than tasks.
    pub(super) fn is_of_fleet(&self) -> bool {
        let need = access::of_shape(self.method.as_str(), self.path);
        !matches!(need, Some(Need::Nothing | Need::Token { reach: Reach::Own, .. }))
    }

    /// The path with arguments filled in, and the remaining arguments.
    fn target(&self, arguments: &Map<String, Value>) -> Result<(String, Map<String, Value>), ErrorData> {
        for (name, _, is_required, _) in self.arguments {
            if *is_required && !arguments.contains_key(*name) {
                return Err(wrong(format!("{}: {name} is required", self.name)));
            }
        }
        if let Some(name) =
            arguments.keys().find(|name| !self.arguments.iter().any(|argument| argument.0 == name.as_str()))
        {
            return Err(wrong(format!("{}: there is no argument {name}", self.name)));
        }
        let (mut path, mut rest) = (self.path.to_owned(), arguments.clone());
        for (name, ..) in self.arguments {
            let place = format!("{{{name}}}");
            if path.contains(&place) {
                let value = rest.remove(*name).as_ref().and_then(Value::as_str).map(encoded);
                let value = value.ok_or_else(|| wrong(format!("{}: {name} must be a string", self.name)))?;
                path = path.replace(&place, &value);
            }
        }
        Ok((path, rest))
    }
}

impl Call<'_> {
    pub(super) async fn call_own(
        &self,
        tool: &Own,
        arguments: &Map<String, Value>,
    ) -> Result<CallToolResult, ErrorData> {
        let (mut path, rest) = tool.target(arguments)?;
        if tool.method == Method::GET {
            let pair = |(name, value): (&String, &Value)| {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                format!("{name}={}", encoded(&text))
            };
            let query: Vec<String> = rest.iter().map(pair).collect();
            if !query.is_empty() {
                path = format!("{path}?{}", query.join("&"));
            }
            return Ok(shown(&self.inner.get(&path).await?));
        }
        let body = rest.get("value").cloned().unwrap_or(Value::Object(rest));
        Ok(shown(&self.inner.post(&path, &body).await?))
    }
}

/// Converts an answer to a tool result.
fn shown(answer: &Answer) -> CallToolResult {
    if !answer.status.is_success() {
        return tool_error(answer.complaint(), answer.body.clone());
    }
    let structured = if answer.body.is_object() { answer.body.clone() } else { json!({"value": answer.body}) };
    tool_result(answer.body.to_string(), structured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_a_path_is_an_argument_and_names_are_plain() {
        for tool in all() {
            let places = tool.path.matches('{').count();
            let filled =
                tool.arguments.iter().filter(|argument| tool.path.contains(&format!("{{{}}}", argument.0))).count();
            assert_eq!(places, filled, "{}", tool.path);
            assert!(tool.name.chars().all(|char| char.is_ascii_lowercase() || char == '_'), "{}", tool.name);
            assert_eq!(tool.is_destructive, tool.scope == Scope::Control);
        }
    }

    #[test]
    fn every_tool_of_our_own_is_an_operation_and_those_of_the_fleet_are_known() {
        for tool in all() {
            assert!(access::of_shape(tool.method.as_str(), tool.path).is_some(), "{}", tool.path);
        }
        let of_fleet: Vec<&str> = all().iter().filter(|tool| tool.is_of_fleet()).map(|tool| tool.name).collect();
        let expected = [
            "taskgate_queues",
            "taskgate_workers",
            "taskgate_incidents",
            "taskgate_pause_queue",
            "taskgate_resume_queue",
        ];
        assert_eq!(of_fleet, expected);
    }

    #[test]
    fn arguments_fill_the_path_and_the_rest_is_left_over() {
        let tools = all();
        let revoke = tools.iter().find(|tool| tool.name == "taskgate_revoke_task").unwrap();
        let arguments = json!({"task_id": "a b", "terminate": true});
        let (path, rest) = revoke.target(arguments.as_object().unwrap()).unwrap();
        assert_eq!((path.as_str(), Value::Object(rest)), ("/v1/tasks/a%20b/revoke", json!({"terminate": true})));
        assert!(revoke.target(&Map::new()).is_err());
        assert!(revoke.target(json!({"task_id": "a", "what": 1}).as_object().unwrap()).is_err());
    }
}
