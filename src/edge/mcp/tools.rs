//! MCP tools: one for each catalog entry with an endpoint, and the gateway's own.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use rmcp::ErrorData;
use rmcp::model::{CallToolResponse, CallToolResult, CreateTaskResult, Tool, ToolAnnotations};
use serde_json::{Map, Value, json};

use super::handler::Call;
use super::inner::Answer;
use super::own::{self, Own};
use super::progress::{self, Listener};
use super::tasks::{id_of, result, seed, tool_result};
use super::wrong;
use crate::catalog::Entry;
use ledger::Scope;
use runtime::uri::encoded;

/// How long a call waits for its result, unless the client prefers otherwise.
const PATIENCE: Duration = Duration::from_secs(10);
/// Maximum length of a tool's name.
const MAX_NAME: usize = 128;

/// How a client takes the answer to a call that goes on.
pub(super) struct Way {
    /// It declared the tasks extension for this call.
    pub takes_tasks: bool,
    /// It wants to hear of progress.
    pub listener: Option<Listener>,
}

/// The tool name of an entry.
fn plain_name(entry: &Entry) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "_-.".contains(char);
    entry.name.as_str().chars().take(MAX_NAME).map(|char| if is_plain(char) { char } else { '_' }).collect()
}

/// The entries that are tools, each with a unique name: the second of two entries of one task gets `_2`. The same for every
/// caller, so that a name always means the same tool.
fn named(entries: &[Arc<Entry>]) -> Vec<(String, &Entry)> {
    let mut taken: HashSet<String> = own::all().into_iter().map(|tool| tool.name.to_owned()).collect();
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

/// The tool of an entry, by its name.
pub(super) fn of_catalog(entries: &[Arc<Entry>], name: &str) -> Option<Tool> {
    let (name, entry) = named(entries).into_iter().find(|(known, _)| known == name)?;
    of_entry(name, entry)
}

fn of_entry(name: String, entry: &Entry) -> Option<Tool> {
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
    let description = description.map_or_else(|| format!("Submits the task {}.", entry.name), Clone::clone);
    let hints = ToolAnnotations::new().read_only(false).idempotent(entry.defaults.idempotent);
    let tool = Tool::new(name, description, std::mem::take(object)).with_annotations(hints);
    // A client may take no null for a text.
    Some(match &entry.summary {
        Some(summary) => tool.with_title(summary),
        None => tool,
    })
}

impl Call<'_> {
    /// The tools that the caller may use.
    pub(super) fn tools(&self) -> Vec<Tool> {
        let visibility = self.identity.visibility();
        let may_submit = self.identity.may(Scope::Submit);
        let of_catalog = named(self.edge.catalog.entries())
            .into_iter()
            .filter(|(_, entry)| may_submit && entry.calls_only(&|name| visibility.sees(Some(name))))
            .filter_map(|(name, entry)| of_entry(name, entry));
        let own = own::all();
        let own = own.iter().filter(|tool| self.offers(tool)).map(Own::shown);
        of_catalog.chain(own).collect()
    }

    /// A token that is limited to names may not use tools for the whole fleet.
    fn offers(&self, tool: &Own) -> bool {
        self.identity.may(tool.scope) && !(tool.is_of_fleet() && self.identity.visibility().is_limited())
    }

    pub(super) async fn call_tool(
        &self,
        name: &str,
        arguments: Map<String, Value>,
        way: Way,
    ) -> Result<CallToolResponse, ErrorData> {
        if let Some(tool) = own::all().iter().find(|tool| tool.name == name && self.offers(tool)) {
            return Ok(self.call_own(tool, &arguments).await?.into());
        }
        if let Some(listener) = &way.listener {
            return self.tell(name, arguments, listener, way.takes_tasks).await;
        }
        let (path, body) = self.target(name, arguments)?;
        let answer = self.inner.waiting(Method::POST, &path, Some(&body), PATIENCE).await?;
        if answer.status == StatusCode::ACCEPTED && id_of(&answer.body).is_some() {
            return Ok(self.goes_on(&answer, way.takes_tasks).await);
        }
        Ok(result(&answer).into())
    }

    /// Submits the task of a tool without waiting for it.
    pub(super) async fn submit(&self, name: &str, arguments: Map<String, Value>) -> Result<Answer, ErrorData> {
        let (path, body) = self.target(name, arguments)?;
        self.inner.post(&path, &body).await
    }

    /// A call whose client hears of its progress until it ends, or the patience does.
    async fn tell(
        &self,
        name: &str,
        arguments: Map<String, Value>,
        listener: &Listener,
        takes_tasks: bool,
    ) -> Result<CallToolResponse, ErrorData> {
        let answer = self.submit(name, arguments).await?;
        let Some(id) = id_of(&answer.body).filter(|_| answer.status.is_success()) else {
            return Ok(result(&answer).into());
        };
        // It is accepted, even if the stream of its events is refused.
        let Ok(events) = self.inner.events(&format!("/v1/tasks/{}/events", encoded(id))).await? else {
            return Ok(self.goes_on(&answer, takes_tasks).await);
        };
        let patience = self.inner.patience(if takes_tasks { PATIENCE } else { progress::PATIENCE });
        match progress::follow(listener, id, events, patience).await {
            Some(body) => Ok(result(&Answer { status: StatusCode::OK, body }).into()),
            None => Ok(self.goes_on(&answer, takes_tasks).await),
        }
    }

    /// The answer while the task goes on: a task of the protocol, or how to get the result.
    async fn goes_on(&self, answer: &Answer, takes_tasks: bool) -> CallToolResponse {
        let id = id_of(&answer.body).unwrap_or_default();
        if !takes_tasks {
            return pointer(id, answer).into();
        }
        // A token may submit and not read.
        let body = self.body_of(id).await;
        CallToolResponse::Task(CreateTaskResult::new(seed(body.as_ref().unwrap_or(&answer.body))))
    }

    /// The path of a tool's endpoint, and the body.
    fn target(&self, name: &str, arguments: Map<String, Value>) -> Result<(String, Value), ErrorData> {
        let found = named(self.edge.catalog.entries()).into_iter().find(|(known, _)| known == name);
        let (_, entry) = found.ok_or_else(|| wrong(format!("there is no tool {name}, or the token may not use it")))?;
        let endpoint = entry.endpoint.as_ref().expect("only entries with an endpoint are tools");
        let (mut path, mut body) = (endpoint.path.clone(), arguments);
        for param in &endpoint.params {
            let value = body.remove(param).as_ref().and_then(Value::as_str).map(encoded);
            let value = value.ok_or_else(|| wrong(format!("{param} is required, a string")))?;
            path = path.replace(&format!("{{{param}}}"), &value);
        }
        Ok((path, Value::Object(body)))
    }
}

/// The answer when the task is not finished yet: how to get its result.
fn pointer(id: &str, answer: &Answer) -> CallToolResult {
    let text = format!("The task {id} is accepted and goes on. Ask taskgate_get_task for its result.");
    tool_result(text, answer.body.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
