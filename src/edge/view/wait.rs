//! A step that waits, as a client sees it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::edge::base;
use celery::task::Json;
use ledger::{Wait, WaitState};

/// A step that waits for an answer
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Wait)]
pub struct WaitView {
    /// Identifies the wait in its link
    token: String,
    task_id: String,
    #[schema(example = "approve")]
    name: String,
    /// `open`, `answered`, `refused`, `expired` or `revoked`
    state: &'static str,
    /// RFC 3339, UTC
    since: String,
    /// RFC 3339, UTC
    expires_at: String,
    /// `fail` or `skip`: what happens then
    on_timeout: &'static str,
    /// JSON Schema of the answer; null takes any
    #[schema(value_type = Option<serde_json::Value>)]
    schema: Option<Json>,
    /// The result of the step before it
    #[schema(value_type = Option<serde_json::Value>)]
    input: Option<Json>,
    /// The answer, once there is one; the reason of a refusal
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    answer: Option<Json>,
    /// RFC 3339, UTC
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    links: WaitLinks,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct WaitLinks {
    /// POST the answer here; the link needs no other credential
    #[schema(example = "/v1/waits/…")]
    complete: String,
    task: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WaitList)]
pub struct WaitListView {
    pub waits: Vec<WaitView>,
    /// Cursor of the next page
    pub next: Option<String>,
}

impl WaitView {
    pub fn of(wait: Wait, token: String) -> Self {
        let Wait { new, state, answer, ended_at } = wait;
        Self {
            links: WaitLinks {
                complete: base::path(&format!("/v1/waits/{token}")),
                task: base::path(&format!("/v1/tasks/{}", new.task_id)),
            },
            token,
            task_id: new.task_id.to_string(),
            name: new.name,
            state: state.as_str(),
            since: new.since.rfc3339(),
            expires_at: new.expires_at.rfc3339(),
            on_timeout: new.on_timeout.as_str(),
            schema: new.schema,
            input: new.input,
            answer: answer.filter(|_| state != WaitState::Open),
            ended_at: ended_at.map(|at| at.rfc3339()),
        }
    }
}
