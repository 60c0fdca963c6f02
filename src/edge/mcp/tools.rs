//! MCP tools: one for each catalog entry with an endpoint, and the gateway's own for reading and control.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::inner::{Answer, escaped};
use super::{Call, Fault, progress};
use crate::catalog::Entry;
use crate::edge::access::{self, Need, Reach};
use ledger::Scope;

/// How long a call waits for its result, unless the client prefers otherwise.
const PATIENCE: Duration = Duration::from_secs(10);
/// Maximum length of a tool's name.
const MAX_NAME: usize = 128;

/// One of the gateway's own tools.
struct Own {
    name: &'static str,
    description: &'static str,
    scope: Scope,
    method: Method,
    /// `{name}` is replaced by an argument; the other arguments go into the query of a GET or the body of a POST.
    path: &'static str,
    /// Name, JSON type, whether it is required, description.
    arguments: &'static [(&'static str, &'static str, bool, &'static str)],
    is_destructive: bool,
}

const ID: (&str, &str, bool, &str) = ("task_id", "string", true, "The id of a task");
const QUEUE: (&str, &str, bool, &str) = ("queue", "string", true, "The name of a queue");

fn own() -> Vec<Own> {
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

impl Own {
    fn shown(&self) -> Value {
        let property = |(name, kind, _, description): &(&str, &str, bool, &str)| {
            let mut schema = json!({"description": description});
            if *kind != "any" {
                schema["type"] = json!(kind);
            }
            ((*name).to_owned(), schema)
        };
        let required: Vec<&str> =
            self.arguments.iter().filter(|argument| argument.2).map(|argument| argument.0).collect();
        json!({
            "name": self.name,
            "description": self.description,
            "inputSchema": {"type": "object", "additionalProperties": false, "required": required,
                "properties": self.arguments.iter().map(property).collect::<Map<String, Value>>()},
            "annotations": {"readOnlyHint": !self.is_destructive, "destructiveHint": self.is_destructive},
            "execution": {"taskSupport": "forbidden"},
        })
    }

    fn is_of_fleet(&self) -> bool {
        let need = access::of_shape(self.method.as_str(), self.path);
        !matches!(need, Some(Need::Nothing | Need::Token { reach: Reach::Own, .. }))
    }

    /// The path with arguments filled in, and the remaining arguments.
    fn target(&self, arguments: &Map<String, Value>) -> Result<(String, Map<String, Value>), Fault> {
        for (name, _, is_required, _) in self.arguments {
            if *is_required && !arguments.contains_key(*name) {
                return Err(Fault::params(format!("{}: {name} is required", self.name)));
            }
        }
        if let Some(name) =
            arguments.keys().find(|name| !self.arguments.iter().any(|argument| argument.0 == name.as_str()))
        {
            return Err(Fault::params(format!("{}: there is no argument {name}", self.name)));
        }
        let (mut path, mut rest) = (self.path.to_owned(), arguments.clone());
        for (name, ..) in self.arguments {
            let place = format!("{{{name}}}");
            if path.contains(&place) {
                let value = rest.remove(*name).as_ref().and_then(Value::as_str).map(escaped);
                let value = value.ok_or_else(|| Fault::params(format!("{}: {name} must be a string", self.name)))?;
                path = path.replace(&place, &value);
            }
        }
        Ok((path, rest))
    }
}

/// The tool name of an entry.
fn plain_name(entry: &Entry) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "_-.".contains(char);
    entry.name.as_str().chars().take(MAX_NAME).map(|char| if is_plain(char) { char } else { '_' }).collect()
}

/// The entries that are tools, each with a unique name: the second of two entries of one task gets `_2`. The same for every
/// caller, so that a name always means the same tool.
fn named(entries: &[Arc<Entry>]) -> Vec<(String, &Entry)> {
    let mut taken: HashSet<String> = own().into_iter().map(|tool| tool.name.to_owned()).collect();
    let mut named = Vec::new();
    // A tool cannot bring a file.
    for entry in entries.iter().filter(|entry| entry.endpoint.is_some() && entry.upload.is_none()) {
        let name = free_name(&plain_name(entry), &taken);
        taken.insert(name.clone());
        named.push((name, entry.as_ref()));
    }
    named
}

fn free_name(plain: &str, taken: &HashSet<String>) -> String {
    let numbered = (2..).map(|number| {
        let end = format!("_{number}");
        let stem = &plain[..plain.len().min(MAX_NAME - end.len())];
        format!("{stem}{end}")
    });
    let mut names = std::iter::once(plain.to_owned()).chain(numbered);
    names.find(|name| !taken.contains(name)).expect("numbers do not end")
}

fn arguments_of<'a>(params: &'a Value, empty: &'a Map<String, Value>) -> Result<&'a Map<String, Value>, Fault> {
    match &params["arguments"] {
        Value::Null => Ok(empty),
        Value::Object(arguments) => Ok(arguments),
        _ => Err(Fault::params("arguments must be an object")),
    }
}

fn of_entry(name: &str, entry: &Entry) -> Option<Value> {
    let endpoint = entry.endpoint.as_ref()?;
    let mut schema = entry.body.as_ref().map_or_else(|| json!({"type": "object"}), |body| body.schema.clone());
    let object = schema.as_object_mut()?;
    let properties = object.entry("properties").or_insert_with(|| json!({})).as_object_mut()?;
    for param in &endpoint.params {
        let words: Vec<&String> = entry.values.get(param).map(|words| words.keys().collect()).unwrap_or_default();
        let schema =
            if words.is_empty() { json!({"type": "string"}) } else { json!({"type": "string", "enum": words}) };
        properties.insert(param.clone(), schema);
    }
    let required = object.entry("required").or_insert_with(|| json!([])).as_array_mut()?;
    required.extend(endpoint.params.iter().map(|param| json!(param)));
    let description = entry.description.as_ref().or(entry.summary.as_ref());
    let mut tool = json!({
        "name": name,
        "description": description.map_or_else(|| format!("Submits the task {}.", entry.name), Clone::clone),
        "inputSchema": schema,
        "annotations": {"readOnlyHint": false, "idempotentHint": entry.defaults.idempotent},
        "execution": {"taskSupport": "optional"},
    });
    // A client may take no null for a text.
    if let Some(summary) = &entry.summary {
        tool["title"] = json!(summary);
    }
    Some(tool)
}

impl Call<'_> {
    /// The tools that the caller may use.
    pub(super) fn tools(&self) -> Vec<Value> {
        let visibility = self.identity.visibility();
        let may_submit = self.identity.may(Scope::Submit);
        let of_catalog = named(self.edge.catalog.entries())
            .into_iter()
            .filter(|(_, entry)| may_submit && entry.calls_only(&|name| visibility.sees(Some(name))))
            .filter_map(|(name, entry)| of_entry(&name, entry));
        let own = own();
        let own = own.iter().filter(|tool| self.offers(tool)).map(Own::shown);
        of_catalog.chain(own).collect()
    }

    /// A token that is limited to names may not use tools for the whole fleet.
    fn offers(&self, tool: &Own) -> bool {
        self.identity.may(tool.scope) && !(tool.is_of_fleet() && self.identity.visibility().is_limited())
    }

    pub(super) async fn call_tool(&self, params: &Value) -> Result<Value, Fault> {
        let name = super::text(params, "name")?;
        let empty = Map::new();
        let arguments = arguments_of(params, &empty)?;
        if let Some(tool) = own().iter().find(|tool| tool.name == name && self.offers(tool)) {
            return self.call_own(tool, arguments).await;
        }
        let found = named(self.edge.catalog.entries()).into_iter().find(|(known, _)| known == name);
        let (_, entry) =
            found.ok_or_else(|| Fault::params(format!("there is no tool {name}, or the token may not use it")))?;
        self.submit(entry, arguments, params.get("task")).await
    }

    /// A call of an entry whose client wants to hear of its progress, as a stream. `None` when it is another call.
    pub(super) async fn with_progress(&self, id: &Value, params: &Value) -> Result<Option<Response>, Fault> {
        let token = &params["_meta"]["progressToken"];
        let name = params["name"].as_str().unwrap_or_default();
        let found = named(self.edge.catalog.entries()).into_iter().find(|(known, _)| known == name);
        let entry = found.map(|(_, entry)| entry);
        let (Some(entry), Value::Null, Value::String(_) | Value::Number(_)) = (entry, &params["task"], token) else {
            return Ok(None);
        };
        let empty = Map::new();
        let (path, body) = target(entry, arguments_of(params, &empty)?)?;
        let answer = self.inner.post(&path, &Value::Object(body)).await?;
        let task = answer.body["task_id"].as_str().or_else(|| answer.body["group_id"].as_str()).map(str::to_owned);
        let Some(task) = task.filter(|_| answer.status.is_success()) else {
            return Ok(Some(whole(id, super::tasks::result(&answer))));
        };
        match self.inner.events(&format!("/v1/tasks/{}/events", escaped(&task))).await? {
            Ok(events) => {
                let (id, token) = (id.clone(), token.clone());
                let patience = self.inner.patience(progress::PATIENCE);
                Ok(Some(progress::response(progress::Submitted { id, token, task, answer, patience }, events)))
            }
            // It is accepted; only the stream is refused.
            Err(_) => Ok(Some(whole(id, pointer(&task, &answer)))),
        }
    }

    async fn call_own(&self, tool: &Own, arguments: &Map<String, Value>) -> Result<Value, Fault> {
        let (mut path, rest) = tool.target(arguments)?;
        if tool.method == Method::GET {
            let pair = |(name, value): (&String, &Value)| {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                format!("{name}={}", escaped(&text))
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

    /// Submits a task: as an MCP task it returns at once, else it waits for the result.
    async fn submit(
        &self,
        entry: &Entry,
        arguments: &Map<String, Value>,
        task: Option<&Value>,
    ) -> Result<Value, Fault> {
        let (path, body) = target(entry, arguments)?;
        let wait = if task.is_some() { Duration::ZERO } else { PATIENCE };
        let answer = if task.is_some() {
            self.inner.post(&path, &Value::Object(body)).await?
        } else {
            self.inner.waiting(Method::POST, &path, Some(&Value::Object(body)), wait).await?
        };
        let id = answer.body["task_id"].as_str().or_else(|| answer.body["group_id"].as_str()).map(str::to_owned);
        match (task, id) {
            (Some(_), Some(id)) if answer.status.is_success() => Ok(json!({"task": self.task(&id).await?})),
            (_, Some(id)) if answer.status == StatusCode::ACCEPTED => Ok(pointer(&id, &answer)),
            _ => Ok(super::tasks::result(&answer)),
        }
    }
}

/// The path of an entry's endpoint, and the body.
fn target(entry: &Entry, arguments: &Map<String, Value>) -> Result<(String, Map<String, Value>), Fault> {
    let endpoint = entry.endpoint.as_ref().expect("only entries with an endpoint are tools");
    let (mut path, mut body) = (endpoint.path.clone(), arguments.clone());
    for param in &endpoint.params {
        let value = body.remove(param).as_ref().and_then(Value::as_str).map(escaped);
        let value = value.ok_or_else(|| Fault::params(format!("{param} is required, a string")))?;
        path = path.replace(&format!("{{{param}}}"), &value);
    }
    Ok((path, body))
}

/// The answer when the task is not finished yet: how to get its result.
pub(super) fn pointer(id: &str, answer: &Answer) -> Value {
    let text = format!("The task {id} is accepted and goes on. Ask taskgate_get_task for its result.");
    json!({"content": [{"type": "text", "text": text}], "structuredContent": answer.body, "isError": false})
}

fn whole(id: &Value, result: Value) -> Response {
    super::json_response(StatusCode::OK, json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string())
}

/// Converts an answer to a tool result.
fn shown(answer: &Answer) -> Value {
    if !answer.status.is_success() {
        return json!({"content": [{"type": "text", "text": answer.complaint()}], "structuredContent": answer.body, "isError": true});
    }
    let structured = if answer.body.is_object() { answer.body.clone() } else { json!({"value": answer.body}) };
    json!({"content": [{"type": "text", "text": answer.body.to_string()}], "structuredContent": structured, "isError": false})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_a_path_is_an_argument_and_names_are_plain() {
        for tool in own() {
            let places = tool.path.matches('{').count();
            let filled =
                tool.arguments.iter().filter(|argument| tool.path.contains(&format!("{{{}}}", argument.0))).count();
            assert_eq!(places, filled, "{}", tool.path);
            assert!(tool.name.chars().all(|char| char.is_ascii_lowercase() || char == '_'), "{}", tool.name);
            assert_eq!(tool.is_destructive, tool.scope == Scope::Control);
        }
    }

    #[test]
    fn two_entries_of_one_task_are_two_tools() {
        let toml = "[[tasks]]\nname = 'mail.send'\nendpoint = 'POST /mail'\n\
             [[tasks]]\nname = 'mail.send'\nendpoint = 'POST /mail/{to}'\nargs = ['{to}']\n\
             [[tasks]]\nname = 'mail.none'\n\
             [[tasks]]\nname = 'mail/send'\nendpoint = 'POST /other'\n\
             [[tasks]]\nname = 'taskgate_queues'\nendpoint = 'POST /queues'\n";
        let config = crate::config::Config::parse(crate::config::Role::Dev, toml).unwrap();
        let catalog = crate::catalog::Catalog::compile(&config).unwrap();
        let names: Vec<String> = named(catalog.entries()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["mail.send", "mail.send_2", "mail_send", "taskgate_queues_2"]);
    }

    #[test]
    fn every_tool_of_our_own_is_an_operation_and_those_of_the_fleet_are_known() {
        for tool in own() {
            assert!(access::of_shape(tool.method.as_str(), tool.path).is_some(), "{}", tool.path);
        }
        let of_fleet: Vec<&str> = own().iter().filter(|tool| tool.is_of_fleet()).map(|tool| tool.name).collect();
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
        let tools = own();
        let revoke = tools.iter().find(|tool| tool.name == "taskgate_revoke_task").unwrap();
        let arguments = json!({"task_id": "a b", "terminate": true});
        let (path, rest) = revoke.target(arguments.as_object().unwrap()).unwrap();
        assert_eq!((path.as_str(), Value::Object(rest)), ("/v1/tasks/a%20b/revoke", json!({"terminate": true})));
        assert!(revoke.target(&Map::new()).is_err());
        assert!(revoke.target(json!({"task_id": "a", "what": 1}).as_object().unwrap()).is_err());
    }
}
