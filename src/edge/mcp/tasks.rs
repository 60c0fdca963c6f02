//! MCP tasks: taskgate's tasks under their own ids.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::inner::{Answer, escaped};
use super::{Call, Fault};
use celery::task::pause;

/// The poll interval that is suggested to clients.
const POLL_MILLIS: u64 = 1_000;
/// How long `tasks/result` waits, unless the client prefers otherwise.
const PATIENCE: Duration = Duration::from_secs(20);

impl Call<'_> {
    /// A task in the form of MCP.
    pub(super) async fn task(&self, id: &str) -> Result<Value, Fault> {
        let answer = self.inner.get(&format!("/v1/tasks/{}", escaped(id))).await?;
        if !answer.status.is_success() {
            return Err(Fault::params(answer.complaint()));
        }
        let mut task = view(&answer.body);
        if answer.body["phase"] == "waiting" && self.is_waited_in(id).await {
            task["status"] = json!("input_required");
            task["statusMessage"] = json!("a step before it waits for an answer: taskgate_waits names it");
        }
        Ok(task)
    }

    /// Whether a step of its canvas waits for an answer.
    async fn is_waited_in(&self, id: &str) -> bool {
        let graph = self.inner.get(&format!("/v1/tasks/{}/graph", escaped(id))).await;
        let nodes = graph.ok().map(|answer| answer.body["nodes"].clone());
        let waits = |node: &Value| node["task"] == pause::WAIT && node["phase"] == "running";
        nodes.as_ref().and_then(Value::as_array).is_some_and(|nodes| nodes.iter().any(waits))
    }

    pub(super) async fn get_task(&self, params: &Value) -> Result<Value, Fault> {
        self.task(super::text(params, "taskId")?).await
    }

    pub(super) async fn list_tasks(&self, params: &Value) -> Result<Value, Fault> {
        let cursor = params["cursor"].as_str().map(|cursor| format!("&cursor={}", escaped(cursor))).unwrap_or_default();
        let answer = self.inner.get(&format!("/v1/tasks?limit=100{cursor}")).await?;
        if !answer.status.is_success() {
            return Err(Fault::params(answer.complaint()));
        }
        let tasks: Vec<Value> = answer.body["tasks"].as_array().into_iter().flatten().map(view).collect();
        let mut result = json!({"tasks": tasks});
        if let Some(next) = answer.body["next"].as_str() {
            result["nextCursor"] = json!(next);
        }
        Ok(result)
    }

    /// The result of the tool call, once the task has ended.
    pub(super) async fn task_result(&self, params: &Value) -> Result<Value, Fault> {
        let id = super::text(params, "taskId")?;
        let path = format!("/result/{}", escaped(id));
        let answer = self.inner.waiting(Method::GET, &path, None, PATIENCE).await?;
        if answer.status == StatusCode::ACCEPTED {
            return Err(Fault::params(format!("the task {id} has not ended yet: ask again")));
        }
        if !answer.status.is_success() {
            return Err(Fault::params(answer.complaint()));
        }
        let mut shown = result(&answer);
        shown["_meta"] = json!({"io.modelcontextprotocol/related-task": {"taskId": id}});
        Ok(shown)
    }

    /// Revokes a task; the message says what is certain.
    pub(super) async fn cancel_task(&self, params: &Value) -> Result<Value, Fault> {
        let id = super::text(params, "taskId")?;
        let path = format!("/v1/tasks/{}/revoke", escaped(id));
        let answer = self.inner.post(&path, &json!({"terminate": true, "reason": "cancelled over MCP"})).await?;
        if !answer.status.is_success() {
            return Err(Fault::params(answer.complaint()));
        }
        if answer.body["verdict"] == "too_late" {
            let detail = answer.body["detail"].as_str().unwrap_or_default();
            return Err(Fault::params(format!("the task {id} cannot be cancelled: {detail}")));
        }
        let mut task = self.task(id).await?;
        task["status"] = json!("cancelled");
        task["statusMessage"] = json!(format!("{}: {}", said(&answer.body["verdict"]), said(&answer.body["detail"])));
        Ok(task)
    }
}

fn said(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Converts a task or a group of the contract.
fn view(task: &Value) -> Value {
    let phase = said(&task["phase"]);
    let id = task["task_id"].as_str().or_else(|| task["group_id"].as_str());
    let created = task["submitted_at"].as_str().or_else(|| task["accepted_at"].as_str());
    let updated =
        ["finished_at", "started_at", "received_at", "queued_at"].iter().find_map(|name| task[*name].as_str());
    json!({
        "taskId": id,
        "status": status(phase, said(&task["status"])),
        "statusMessage": task["reason"].as_str().map_or_else(|| format!("{phase} ({})", said(&task["status"])), str::to_owned),
        "createdAt": created.or(updated),
        "lastUpdatedAt": updated.or(created),
        "ttl": Value::Null,
        "pollInterval": POLL_MILLIS,
    })
}

/// The MCP status of a task.
fn status(phase: &str, status: &str) -> &'static str {
    match phase {
        "succeeded" => "completed",
        "failed" | "lost" => "failed",
        "revoked" | "expired" | "skipped" | "ignored" => "cancelled",
        _ if status == "WAITING" => "input_required",
        _ => "working",
    }
}

/// The end of a task as a tool result; a refusal becomes an error text that a model can read.
pub(super) fn result(answer: &Answer) -> Value {
    if !answer.status.is_success() {
        return json!({"content": [{"type": "text", "text": refusal(answer)}], "structuredContent": answer.body, "isError": true});
    }
    let error = &answer.body["error"];
    if error.is_object() || answer.body["status"] == "REVOKED" {
        let text = format!(
            "{}: {}",
            error["type"].as_str().unwrap_or_else(|| said(&answer.body["status"])),
            said(&error["message"])
        );
        return json!({"content": [{"type": "text", "text": text}], "structuredContent": answer.body, "isError": true});
    }
    let value = &answer.body["result"];
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    json!({"content": [{"type": "text", "text": text}], "structuredContent": answer.body, "isError": false})
}

/// The text of a refusal, with each mistake and its place.
fn refusal(answer: &Answer) -> String {
    let places = answer.body["errors"].as_array().into_iter().flatten();
    let places: Vec<String> =
        places.map(|one| format!("{}: {}", said(&one["pointer"]), said(&one["detail"]))).collect();
    if places.is_empty() { answer.complaint() } else { places.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_has_a_word_of_the_protocol() {
        for (phase, said, expected) in [
            ("accepted", "PENDING", "working"),
            ("running", "STARTED", "working"),
            ("running", "WAITING", "input_required"),
            ("succeeded", "SUCCESS", "completed"),
            ("lost", "FAILURE", "failed"),
            ("revoked", "REVOKED", "cancelled"),
        ] {
            assert_eq!(status(phase, said), expected, "{phase}");
        }
    }

    #[test]
    fn a_refusal_names_its_places_and_a_failure_its_error() {
        let body = json!({"detail": "x", "errors": [{"pointer": "/y", "detail": "is required"}]});
        let refused = result(&Answer { status: StatusCode::UNPROCESSABLE_ENTITY, body });
        assert_eq!((&refused["isError"], &refused["content"][0]["text"]), (&json!(true), &json!("/y: is required")));
        let body = json!({"status": "FAILURE", "error": {"type": "ValueError", "message": "no"}});
        let failed = result(&Answer { status: StatusCode::OK, body });
        assert_eq!(failed["content"][0]["text"], "ValueError: no");
    }
}
