//! `POST /chain`, `/group`, `/chord`: compositions as their own endpoints.

use axum::extract::State;

use super::submission::{Shown, SubmissionAnswer, Surroundings, parsed, submit};
use crate::edge::answer::{Body, Refused};
use crate::edge::extract::JsonText;
use crate::edge::state::Edge;
use crate::usecase::submit::SubmitError;
use celery::task::submission::Submission;

/// Submit a chain
///
/// Tasks run one after the other; each gets the previous result as its first argument, unless it is immutable.
#[utoipa::path(
    post, path = "/chain", tag = "submit", operation_id = "submit_chain",
    request_body(content = ref("#/components/schemas/Tasks"), content_type = "application/json",
        example = json!({"tasks": [{"task": "tasks.add", "args": [2, 3]}, {"task": "tasks.multiply", "args": [10]}]})),
)]
pub async fn submit_chain(
    State(edge): State<Edge>,
    surroundings: Surroundings,
    JsonText(body): JsonText,
) -> Result<SubmissionAnswer, Refused<(Body, SubmitError)>> {
    let (submission, body) = parsed(&edge, body, Submission::parse_chain).await?;
    Ok(submit(&edge, surroundings, submission, &body, false, Shown::default()).await?)
}

/// Submit a group
///
/// All tasks run at the same time. The answer has a `group_id` and no `task_id`.
#[utoipa::path(
    post, path = "/group", tag = "submit", operation_id = "submit_group",
    request_body(content = ref("#/components/schemas/Tasks"), content_type = "application/json",
        example = json!({"tasks": [{"task": "tasks.add", "args": [1, 1]}, {"task": "tasks.add", "args": [2, 2]}]})),
)]
pub async fn submit_group(
    State(edge): State<Edge>,
    surroundings: Surroundings,
    JsonText(body): JsonText,
) -> Result<SubmissionAnswer, Refused<(Body, SubmitError)>> {
    let (submission, body) = parsed(&edge, body, Submission::parse_group).await?;
    Ok(submit(&edge, surroundings, submission, &body, false, Shown::default()).await?)
}

/// Submit a chord
///
/// The body runs when all tasks of the header have succeeded, and gets the list of their results.
#[utoipa::path(
    post, path = "/chord", tag = "submit", operation_id = "submit_chord",
    request_body(content = ref("#/components/schemas/Chord"), content_type = "application/json",
        example = json!({"header": [{"task": "tasks.add", "args": [1, 1]}, {"task": "tasks.add", "args": [2, 2]}], "body": {"task": "tasks.sum_results"}})),
)]
pub async fn submit_chord(
    State(edge): State<Edge>,
    surroundings: Surroundings,
    JsonText(body): JsonText,
) -> Result<SubmissionAnswer, Refused<(Body, SubmitError)>> {
    let (submission, body) = parsed(&edge, body, Submission::parse_chord).await?;
    Ok(submit(&edge, surroundings, submission, &body, false, Shown::default()).await?)
}
