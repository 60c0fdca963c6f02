//! The tasks of protocol 2025-11-25, which `rmcp` no longer has types for (ADR 78).
//!
//! They differ from the extension of 2026-07-28 in their shape, in who decides that a call becomes a task (the client), and in that a
//! result is fetched by a method of its own. A message of theirs is given a name that `rmcp` passes on unread, and is answered here;
//! the answers to `initialize` and `tools/list` get the members that announce these tasks.

use axum::body::to_bytes;
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use rmcp::ErrorData;
use rmcp::model::JsonRpcError;
use serde_json::{Map, Value, json};

use super::handler::Call;
use super::tasks::{self, POLL_MILLIS, Standing, complaint_of, said};
use super::{json_response, own, wrong};
use runtime::uri::encoded;

/// Before the name of a method that is answered here.
const PREFIX: &str = "taskgate.2025-11-25/";
/// The largest answer that is completed here: a list of all tools.
const MAX_ANSWER: usize = 32 << 20;

/// Renames a message about tasks. Returns whether it is one.
pub(super) fn inward(message: &mut Value) -> bool {
    let is_of_tasks = match message["method"].as_str() {
        Some("tasks/get" | "tasks/list" | "tasks/result" | "tasks/cancel") => true,
        Some("tools/call") => !message["params"]["task"].is_null(),
        _ => false,
    };
    if is_of_tasks {
        message["method"] = json!(format!("{PREFIX}{}", said(&message["method"])));
    }
    is_of_tasks
}

/// The original name of a method that [`inward`] renamed.
pub(super) fn method(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX)
}

/// Completes the answer to a message of an older version.
pub(super) async fn outward(method: &str, response: Response) -> Response {
    let complete = match method {
        "initialize" => announced,
        "tools/list" => executable,
        _ => return response,
    };
    if response.headers().get(header::CONTENT_TYPE).is_none_or(|kind| kind != "application/json") {
        return response;
    }
    let (head, body) = response.into_parts();
    let bytes = to_bytes(body, MAX_ANSWER).await.unwrap_or_default();
    let Ok(mut answer) = serde_json::from_slice::<Value>(&bytes) else {
        let error = JsonRpcError::new(None, ErrorData::internal_error("the answer could not be completed", None));
        return json_response(StatusCode::INTERNAL_SERVER_ERROR, serde_json::to_string(&error).unwrap_or_default());
    };
    if let Some(result) = answer.get_mut("result") {
        complete(result);
    }
    json_response(head.status, answer.to_string())
}

fn announced(result: &mut Value) {
    let Some(capabilities) = result["capabilities"].as_object_mut() else { return };
    capabilities.remove("extensions");
    capabilities.insert("tasks".to_owned(), json!({"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}));
}

fn executable(result: &mut Value) {
    for tool in result["tools"].as_array_mut().into_iter().flatten() {
        let support = if own::is_own(said(&tool["name"])) { "forbidden" } else { "optional" };
        tool["execution"] = json!({"taskSupport": support});
    }
}

/// Carries out a method that [`inward`] renamed.
pub(super) async fn answer(call: &Call<'_>, method: &str, params: &Value) -> Result<Value, ErrorData> {
    let id = || params["taskId"].as_str().ok_or_else(|| wrong("taskId is required, a string"));
    match method {
        "tools/call" => call.start(params).await,
        "tasks/get" => call.shown(id()?).await,
        "tasks/list" => call.list(params).await,
        "tasks/result" => call.result(id()?).await,
        "tasks/cancel" => call.cancel(id()?).await,
        _ => Err(wrong(format!("there is no method {method}"))),
    }
}

impl Call<'_> {
    /// Submits the task of a tool, and answers at once.
    async fn start(&self, params: &Value) -> Result<Value, ErrorData> {
        let name = params["name"].as_str().ok_or_else(|| wrong("name is required, a string"))?;
        let arguments = match &params["arguments"] {
            Value::Null => Map::new(),
            Value::Object(arguments) => arguments.clone(),
            _ => return Err(wrong("arguments must be an object")),
        };
        if own::is_own(name) {
            return Err(wrong(format!("{name} cannot be called as a task")));
        }
        let answer = self.submit(name, arguments).await?;
        match tasks::id_of(&answer.body).filter(|_| answer.status.is_success()) {
            Some(id) => {
                let shown = self.shown(id).await;
                Ok(json!({"task": shown.unwrap_or_else(|_| view(&answer.body, Standing::Open))}))
            }
            None => Ok(plain(&tasks::result(&answer))),
        }
    }

    async fn shown(&self, id: &str) -> Result<Value, ErrorData> {
        let body = self.body_of(id).await?;
        let mut task = view(&body, tasks::standing(&body));
        if tasks::standing(&body) == Standing::Open && !self.steps_that_wait(id, &body).await?.is_empty() {
            task["status"] = json!("input_required");
            task["statusMessage"] = json!(tasks::WAITS);
        }
        Ok(task)
    }

    async fn list(&self, params: &Value) -> Result<Value, ErrorData> {
        let cursor = params["cursor"].as_str().map(|cursor| format!("&cursor={}", encoded(cursor))).unwrap_or_default();
        let answer = self.inner.get(&format!("/v1/tasks?limit=100{cursor}")).await?;
        if !answer.status.is_success() {
            return Err(complaint_of(&answer));
        }
        let bodies = answer.body["tasks"].as_array().into_iter().flatten();
        let tasks: Vec<Value> = bodies.map(|body| view(body, tasks::standing(body))).collect();
        let mut result = json!({"tasks": tasks});
        if let Some(next) = answer.body["next"].as_str() {
            result["nextCursor"] = json!(next);
        }
        Ok(result)
    }

    /// The result of the tool call, once the task has ended.
    async fn result(&self, id: &str) -> Result<Value, ErrorData> {
        let path = format!("/result/{}", encoded(id));
        let answer = self.inner.waiting(Method::GET, &path, None, tasks::PATIENCE).await?;
        if answer.status == StatusCode::ACCEPTED {
            return Err(wrong(format!("the task {id} has not ended yet: ask again")));
        }
        if !answer.status.is_success() {
            return Err(complaint_of(&answer));
        }
        let mut shown = plain(&tasks::result(&answer));
        shown["_meta"] = json!({"io.modelcontextprotocol/related-task": {"taskId": id}});
        Ok(shown)
    }

    /// Revokes a task; the message says what is certain.
    async fn cancel(&self, id: &str) -> Result<Value, ErrorData> {
        let verdict = self.revoke(id).await?;
        if verdict["verdict"] == "too_late" {
            return Err(wrong(format!("the task {id} cannot be cancelled: {}", said(&verdict["detail"]))));
        }
        let mut task = self.shown(id).await?;
        task["status"] = json!("cancelled");
        task["statusMessage"] = json!(format!("{}: {}", said(&verdict["verdict"]), said(&verdict["detail"])));
        Ok(task)
    }
}

/// A task or a group of the contract as these tasks are written.
fn view(body: &Value, standing: Standing) -> Value {
    let task = tasks::seed(body);
    let status = match standing {
        Standing::Open => "working",
        Standing::Succeeded => "completed",
        Standing::Failed => "failed",
        Standing::Cancelled => "cancelled",
    };
    json!({
        "taskId": task.task_id,
        "status": status,
        "statusMessage": task.status_message,
        "createdAt": task.created_at,
        "lastUpdatedAt": task.last_updated_at,
        "ttl": Value::Null,
        "pollInterval": POLL_MILLIS,
    })
}

/// A result without the member that came with 2026-07-28.
fn plain(result: &rmcp::model::CallToolResult) -> Value {
    let mut value = serde_json::to_value(result).expect("a result is JSON");
    if let Some(members) = value.as_object_mut() {
        members.remove("resultType");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_about_tasks_are_renamed() {
        let renamed = |message: Value| {
            let mut message = message;
            inward(&mut message).then(|| method(said(&message["method"])).unwrap().to_owned())
        };
        assert_eq!(renamed(json!({"method": "tasks/get", "params": {"taskId": "a"}})).as_deref(), Some("tasks/get"));
        let call = json!({"method": "tools/call", "params": {"name": "a", "task": {}}});
        assert_eq!(renamed(call).as_deref(), Some("tools/call"));
        for message in [json!({"method": "tools/call", "params": {"name": "a"}}), json!({"method": "ping"}), json!([1])]
        {
            assert_eq!(renamed(message), None);
        }
    }

    #[test]
    fn tools_and_capabilities_announce_tasks() {
        let mut tools = json!({"tools": [{"name": "demo.add"}, {"name": "taskgate_queues"}]});
        executable(&mut tools);
        let support = |at: usize| tools["tools"][at]["execution"]["taskSupport"].clone();
        assert_eq!((support(0), support(1)), (json!("optional"), json!("forbidden")));
        let mut begun = json!({"capabilities": {"tools": {}, "extensions": {}}});
        announced(&mut begun);
        assert!(begun["capabilities"]["tasks"]["requests"]["tools"]["call"].is_object(), "{begun}");
        assert!(begun["capabilities"]["extensions"].is_null(), "{begun}");
    }

    #[test]
    fn a_task_has_the_members_of_2025_11_25() {
        let body =
            json!({"task_id": "a", "phase": "running", "status": "STARTED", "submitted_at": "2026-01-01T00:00:00Z"});
        let task = view(&body, Standing::Open);
        assert_eq!((&task["taskId"], &task["status"], &task["ttl"]), (&json!("a"), &json!("working"), &Value::Null));
        assert!(task.as_object().unwrap().contains_key("ttl") && task["pollInterval"].is_u64(), "{task}");
    }
}
