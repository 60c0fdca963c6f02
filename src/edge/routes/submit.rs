//! `POST /v1/tasks`: any signature.

use axum::extract::State;

use super::submission::{Shown, SubmissionAnswer, Surroundings, parsed, submit};
use crate::edge::answer::{Body, Refused};
use crate::edge::extract::JsonText;
use crate::edge::state::Edge;
use crate::usecase::submit::SubmitError;
use celery::task::submission::Submission;

/// Submit a task
///
/// Takes one signature: a task, or a chain, group or chord. 202 means committed to disk. With `Prefer: wait=N` the answer
/// waits up to N seconds for the end.
#[utoipa::path(
    post, path = "/v1/tasks", tag = "submit", operation_id = "submit_task",
    request_body(content = ref("#/components/schemas/Submission"), content_type = "application/json",
        example = json!({"task": "tasks.add", "args": [2, 3]})),
)]
pub async fn submit_task(
    State(edge): State<Edge>,
    surroundings: Surroundings,
    JsonText(body): JsonText,
) -> Result<SubmissionAnswer, Refused<(Body, SubmitError)>> {
    let (submission, body) = parsed(&edge, body, Submission::parse).await?;
    Ok(submit(&edge, surroundings, submission, &body, false, Shown::default()).await?)
}
