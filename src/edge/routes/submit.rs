//! `POST /v1/tasks`: any signature.

use axum::extract::State;
use axum::response::Response;

use super::submission::{Shown, Surroundings, parsed, submit};
use crate::edge::extract::JsonText;
use crate::edge::problem::{Problem, ProblemDocument};
use crate::edge::state::Edge;
use crate::edge::view::AcceptedView;
use celery::task::submission::Submission;

/// Submit a task
///
/// Takes one signature: a task, or a chain, group or chord. 202 means committed to disk. With `Prefer: wait=N` the answer
/// waits up to N seconds for the end.
#[utoipa::path(
    post, path = "/v1/tasks", tag = "submit", operation_id = "submit_task",
    request_body(content = ref("#/components/schemas/Submission"), content_type = "application/json",
        example = json!({"task": "tasks.add", "args": [2, 3]})),
    responses(
        (status = 202, description = "Accepted", body = AcceptedView,
            headers(("Location" = String, description = "The task"), ("Retry-After" = u64, description = "Seconds"))),
        (status = 403, description = "Not allowed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "The id is taken", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "Does not fit", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn submit_task(
    State(edge): State<Edge>,
    surroundings: Surroundings,
    JsonText(body): JsonText,
) -> Result<Response, Problem> {
    let (submission, body) = parsed(&edge, body, Submission::parse).await?;
    submit(&edge, surroundings, submission, &body, false, Shown::default()).await
}
