//! MCP tasks: taskgate's tasks under their own ids, in the shape of the tasks extension of 2026-07-28.
//!
//! The extension's `failed` is for errors of the protocol only, so a task that failed is `completed` with a result that is an error.

use std::time::Duration;

use axum::http::StatusCode;
use rmcp::ErrorData;
use rmcp::model::{CallToolResult, ContentBlock, DetailedTask, JsonObject, Task, TaskPayload, TaskStatus};
use serde_json::{Value, json};

use super::handler::Call;
use super::inner::Answer;
use super::{inputs, wrong};
use runtime::clock;
use runtime::uri::encoded;

/// The poll interval that is suggested to clients.
pub(super) const POLL_MILLIS: u64 = 1_000;
/// How long `tasks/result` waits, unless the client prefers otherwise.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Of a task that waits for somebody.
pub(super) const WAITS: &str = "a step of it, or one before it, waits for an answer: taskgate_waits names it";

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Open,
    Succeeded,
    Failed,
    Cancelled,
}

impl Call<'_> {
    /// The operation's view of a task or a group.
    pub(super) async fn body_of(&self, id: &str) -> Result<Value, ErrorData> {
        let answer = self.inner.get(&format!("/v1/tasks/{}", encoded(id))).await?;
        if answer.status.is_success() { Ok(answer.body) } else { Err(complaint_of(&answer)) }
    }

    /// A task with its result, or with the requests for input if the client `asks` people.
    pub(super) async fn task(&self, id: &str, asks: bool) -> Result<DetailedTask, ErrorData> {
        let body = self.body_of(id).await?;
        let task = seed(&body);
        match standing(&body) {
            Standing::Cancelled => Ok(DetailedTask::new(task, TaskPayload::Cancelled)),
            Standing::Succeeded | Standing::Failed => self.ended(id, task).await,
            Standing::Open => self.open(id, &body, task, asks).await,
        }
    }

    async fn ended(&self, id: &str, task: Task) -> Result<DetailedTask, ErrorData> {
        let answer = self.inner.get(&format!("/result/{}", encoded(id))).await?;
        // A success may be known before its result is.
        if answer.status == StatusCode::ACCEPTED {
            return Ok(DetailedTask::new(task, TaskPayload::Working));
        }
        Ok(DetailedTask::new(task, TaskPayload::Completed { result: object(&result(&answer)) }))
    }

    async fn open(&self, id: &str, body: &Value, task: Task, asks: bool) -> Result<DetailedTask, ErrorData> {
        let steps = self.steps_that_wait(id, body).await?;
        if steps.is_empty() {
            return Ok(DetailedTask::new(task, TaskPayload::Working));
        }
        let waits = self.waits_of(&steps).await?;
        let task = task.with_status_message(WAITS);
        // Only a client that can ask somebody, with a token that may answer, is given the question.
        if !asks || waits.is_empty() {
            return Ok(DetailedTask::new(task, TaskPayload::Working));
        }
        let input_requests = waits.iter().map(|wait| (wait.new.task_id.to_string(), inputs::request(wait))).collect();
        Ok(DetailedTask::new(task, TaskPayload::InputRequired { input_requests }))
    }

    /// Revokes a task, also a running one. Returns what the operation answered.
    pub(super) async fn revoke(&self, id: &str) -> Result<Value, ErrorData> {
        let path = format!("/v1/tasks/{}/revoke", encoded(id));
        let answer = self.inner.post(&path, &json!({"terminate": true, "reason": "cancelled over MCP"})).await?;
        if answer.status.is_success() { Ok(answer.body) } else { Err(complaint_of(&answer)) }
    }
}

/// An operation refused the caller.
pub(super) fn complaint_of(answer: &Answer) -> ErrorData {
    wrong(answer.complaint())
}

pub(super) fn said(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The id of a task or a group.
pub(super) fn id_of(body: &Value) -> Option<&str> {
    body["task_id"].as_str().or_else(|| body["group_id"].as_str())
}

/// The members of a task that do not depend on where it stands.
pub(super) fn seed(body: &Value) -> Task {
    let created = body["submitted_at"].as_str().or_else(|| body["accepted_at"].as_str());
    let updated =
        ["finished_at", "started_at", "received_at", "queued_at"].iter().find_map(|name| body[*name].as_str());
    let or_now = |time: Option<&str>| time.map_or_else(|| clock::now().rfc3339(), str::to_owned);
    Task::new(
        id_of(body).unwrap_or_default(),
        TaskStatus::Working,
        or_now(created.or(updated)),
        or_now(updated.or(created)),
    )
    .with_status_message(message(body))
    .with_poll_interval_ms(POLL_MILLIS)
}

/// What is said of a task; of one that was revoked also what is certain.
fn message(body: &Value) -> String {
    let (phase, reason) = (said(&body["phase"]), body["reason"].as_str());
    if phase == "revoked" {
        let verdict =
            if body["started_at"].is_null() { "prevented: it never ran" } else { "signalled: it had started" };
        return reason.map_or_else(|| verdict.to_owned(), |reason| format!("{verdict}; {reason}"));
    }
    reason.map_or_else(|| format!("{phase} ({})", said(&body["status"])), str::to_owned)
}

pub(super) fn standing(body: &Value) -> Standing {
    match said(&body["phase"]) {
        "succeeded" => Standing::Succeeded,
        "failed" | "lost" => Standing::Failed,
        "revoked" | "expired" | "skipped" | "ignored" => Standing::Cancelled,
        _ => Standing::Open,
    }
}

/// The end of a task as a tool result; a refusal becomes an error text that a model can read.
pub(super) fn result(answer: &Answer) -> CallToolResult {
    if !answer.status.is_success() {
        return tool_error(refusal(answer), answer.body.clone());
    }
    let error = &answer.body["error"];
    if error.is_object() || answer.body["status"] == "REVOKED" {
        let kind = error["type"].as_str().unwrap_or_else(|| said(&answer.body["status"]));
        return tool_error(format!("{kind}: {}", said(&error["message"])), answer.body.clone());
    }
    let value = &answer.body["result"];
    tool_result(value.as_str().map_or_else(|| value.to_string(), str::to_owned), answer.body.clone())
}

pub(super) fn tool_result(text: String, structured: Value) -> CallToolResult {
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    result.structured_content = Some(structured);
    result
}

pub(super) fn tool_error(text: String, structured: Value) -> CallToolResult {
    let mut result = CallToolResult::error(vec![ContentBlock::text(text)]);
    result.structured_content = Some(structured);
    result
}

/// The text of a refusal, with each mistake and its place.
pub(super) fn refusal(answer: &Answer) -> String {
    let places = answer.body["errors"].as_array().into_iter().flatten();
    let places: Vec<String> =
        places.map(|error| format!("{}: {}", said(&error["pointer"]), said(&error["detail"]))).collect();
    if places.is_empty() { answer.complaint() } else { places.join("; ") }
}

fn object(result: &CallToolResult) -> JsonObject {
    match serde_json::to_value(result).expect("a result is JSON") {
        Value::Object(members) => members,
        other => JsonObject::from_iter([("structuredContent".to_owned(), other)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_stands_somewhere() {
        for (phase, expected) in [
            ("accepted", Standing::Open),
            ("running", Standing::Open),
            ("succeeded", Standing::Succeeded),
            ("lost", Standing::Failed),
            ("revoked", Standing::Cancelled),
        ] {
            assert_eq!(standing(&json!({"phase": phase})), expected, "{phase}");
        }
    }

    #[test]
    fn a_revoked_task_says_whether_it_ran() {
        let told = |body: Value| seed(&body).status_message.unwrap();
        assert!(told(json!({"phase": "revoked", "reason": "on request"})).starts_with("prevented: it never ran; on"));
        assert!(told(json!({"phase": "revoked", "started_at": "2026-01-01T00:00:00Z"})).starts_with("signalled"));
        assert_eq!(told(json!({"phase": "running", "status": "STARTED"})), "running (STARTED)");
    }

    #[test]
    fn a_refusal_names_its_places_and_a_failure_its_error() {
        let body = json!({"detail": "x", "errors": [{"pointer": "/y", "detail": "is required"}]});
        let refused = object(&result(&Answer { status: StatusCode::UNPROCESSABLE_ENTITY, body }));
        assert_eq!((&refused["isError"], &refused["content"][0]["text"]), (&json!(true), &json!("/y: is required")));
        let body = json!({"status": "FAILURE", "error": {"type": "ValueError", "message": "no"}});
        let failed = object(&result(&Answer { status: StatusCode::OK, body }));
        assert_eq!(failed["content"][0]["text"], "ValueError: no");
    }
}
