//! Control of a task: revoke, retry, resolve; and its canvas.

use axum::extract::State;

use super::result::unknown;
use super::submission::{Shown, accepted_task, idempotency, replay};
use crate::edge::answer::{Accepted, Answer, Body, OfTask, Refused};
use crate::edge::extract::{Caller, IdPath, JsonText, Repeatable, wishes};
use crate::edge::middleware::audit::Remark;
use crate::edge::problem::Problem;
use crate::edge::state::Edge;
use crate::edge::view::AcceptedView;
use crate::edge::view::control::{GraphView, ResolvedView};
use crate::edge::view::together::{RetriedAnswer, RetriedTogetherView, RevokedAnswer, RevokedTogetherView};
use crate::usecase::resolve::{Resolution, ResolveError};
use crate::usecase::retry::RetryError;
use crate::usecase::revoke::{RevokeError, RevokeRequest};
use crate::usecase::submit::{SubmitError, Submitted};
use celery::commands::SIGNALS;

/// The longest reason, in characters.
const MAX_REASON: usize = 1_000;

/// Revoke a task, a group or a canvas
///
/// Of a group's id every task of the group is revoked, with `canvas` every task of the canvas that the task belongs to: then the
/// answer has a verdict for each, and sums (`RevokedTogether`). Of the root of a DAG also what has not run of it. Answers with a verdict. Only `prevented` is a guarantee: the message was removed and will never run. `signalled` means that a
/// worker has it and was told; the answer waits up to 2 seconds for the worker to confirm. With `terminate` a running task is
/// stopped with `signal` (by workers whose pool can do that).
#[utoipa::path(
    post, path = "/v1/tasks/{id}/revoke", tag = "control", operation_id = "revoke_task",
    params(("id" = String, Path, description = "A task's or a group's id")),
    request_body(content = inline(serde_json::Value), content_type = "application/json",
        description = "`terminate` (default false), `signal` (default SIGTERM), `reason`, `canvas` (default false); may be empty",
        example = json!({"terminate": true, "signal": "SIGTERM", "reason": "wrong input"})),
)]
pub async fn revoke_task(
    State(edge): State<Edge>,
    caller: Caller,
    IdPath(id): IdPath,
    JsonText(body): JsonText,
) -> Result<Answer<RevokedAnswer>, Refused<(OfTask, Body, RevokeError)>> {
    let (request, canvas) = wishes(&body, &["terminate", "signal", "reason", "canvas"], |problems, fields| {
        let canvas = fields.get("canvas").and_then(|value| problems.within("canvas", |p| p.boolean(value)));
        let terminate = fields.get("terminate").and_then(|value| problems.within("terminate", |p| p.boolean(value)));
        let signal = fields.get("signal").and_then(|value| problems.within("signal", |p| p.text(value)));
        if signal.as_ref().is_some_and(|signal| !SIGNALS.contains(&signal.as_str())) {
            problems.add_at("signal", format!("must be one of {}", SIGNALS.join(", ")));
        }
        let reason = fields.get("reason").and_then(|value| problems.within("reason", |p| p.text(value)));
        if reason.as_ref().is_some_and(|reason| reason.contains('\0')) {
            problems.add_at("reason", "has a NUL character");
        }
        if reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_REASON) {
            problems.add_at("reason", format!("has more than {MAX_REASON} characters"));
        }
        let signal = signal.unwrap_or_else(|| "SIGTERM".to_owned());
        (RevokeRequest { terminate: terminate.unwrap_or(false), signal, reason }, canvas.unwrap_or(false))
    })?;
    caller.must_see(&edge, &id).await?;
    let together = match edge.gateway.group_of(&id).await? {
        Some(group) => Box::pin(edge.gateway.revoke_group(&group, &caller.visibility(), &request)).await?,
        None if canvas => Some(Box::pin(edge.gateway.revoke_canvas(&id, &caller.visibility(), &request)).await?),
        None => None,
    };
    let answer = match together {
        Some(all) => RevokedAnswer::Together(RevokedTogetherView::of(&id, all)),
        None => {
            let visibility = caller.visibility();
            RevokedAnswer::One(Box::pin(edge.gateway.revoke_with_dag(&id, &visibility, &request)).await?.into())
        }
    };
    let verdict = match &answer {
        RevokedAnswer::One(revoked) => revoked.verdict,
        RevokedAnswer::Together(_) => "revoked_together",
    };
    Ok(Answer::of(&answer).noting(Remark { verdict: Some(verdict.to_owned()), detail: request.reason }))
}

/// Run a task again, or the failed members of a group
///
/// For a task's id: submits the same message as a new task with `retry_of`. The steps after it in its canvas are copied under new
/// ids. With `restart` the old task is revoked first, with SIGTERM if it runs. For a group's id: submits every member that failed or
/// was lost again, but each only once, however often this is called; the answer is `RetriedTogether`.
#[utoipa::path(
    post, path = "/v1/tasks/{id}/retry", tag = "control", operation_id = "retry_task",
    params(
        ("id" = String, Path, description = "A task's or a group's id"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition harmless: it gets the first answer"),
    ),
    request_body(content = inline(serde_json::Value), content_type = "application/json",
        description = "`restart` (default false); may be empty", example = json!({"restart": true})),
)]
pub async fn retry_task(
    State(edge): State<Edge>,
    caller: Caller,
    IdPath(id): IdPath,
    repeatable: Repeatable,
    JsonText(body): JsonText,
) -> Result<Accepted<RetriedAnswer>, Refused<(OfTask, Body, RetryError)>> {
    let restart = wishes(&body, &["restart"], |problems, fields| {
        fields.get("restart").and_then(|value| problems.within("restart", |p| p.boolean(value))).unwrap_or(false)
    })?;
    caller.must_see(&edge, &id).await?;
    if let Some(group) = edge.gateway.group_of(&id).await?
        && let Some(all) = Box::pin(edge.gateway.retry_group(&caller.visibility(), &group)).await?
    {
        return Ok(Accepted::of(&RetriedAnswer::Together(RetriedTogetherView::of(&id, all))));
    }
    let repeatable = idempotency(&caller, repeatable, &body, Shown::default());
    match Box::pin(edge.gateway.retry(&caller.visibility(), &id, restart, repeatable)).await {
        Ok(submitted) => {
            let view = AcceptedView::new(&submitted, Shown::default());
            let place = view.links.this.clone();
            Ok(accepted_task(&RetriedAnswer::One(Box::new(view)), &place))
        }
        Err(RetryError::Submit(SubmitError::Replay(kept))) => Ok(replay(&kept)?),
        Err(error) => Err(error.into()),
    }
}

/// Run again what failed of a DAG
///
/// Of the id of any task of a DAG, or of its group: the nodes that ended badly are submitted again under new ids, with all that follows
/// them; nothing else is. What succeeded is not run, and its results are read from the ledger. Once for each DAG: the new one may be
/// resumed in its turn.
#[utoipa::path(
    post, path = "/v1/tasks/{id}/resume", tag = "control", operation_id = "resume_dag",
    params(
        ("id" = String, Path, description = "The id of any task of the DAG, or of the group of its ends"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition harmless: it gets the first answer"),
    ),
    request_body(content = inline(serde_json::Value), content_type = "application/json", description = "Nothing; may be empty", example = json!({})),
)]
pub async fn resume_dag(
    State(edge): State<Edge>,
    caller: Caller,
    IdPath(id): IdPath,
    repeatable: Repeatable,
    JsonText(body): JsonText,
) -> Result<Accepted<AcceptedView>, Refused<(OfTask, Body, RetryError)>> {
    wishes(&body, &[], |_, _| ())?;
    caller.must_see(&edge, &id).await?;
    let repeatable = idempotency(&caller, repeatable, &body, Shown::default());
    match Box::pin(edge.gateway.resume_dag(&caller.visibility(), &id, caller.id(), repeatable)).await {
        Ok(submitted) => Ok(sent_again(&submitted)),
        Err(RetryError::Submit(SubmitError::Replay(kept))) => Ok(replay(&kept)?),
        Err(error) => Err(error.into()),
    }
}

/// Decide the outcome of a task
///
/// For a task whose fate is uncertain (see the incidents `undecided` and `repair-suspended`): it ends as `ignored` or as `lost`, or
/// runs again. Any message of it in the broker is removed. A task that a worker reports to have is not run again.
#[utoipa::path(
    post, path = "/v1/tasks/{id}/resolve", tag = "control", operation_id = "resolve_task",
    params(("id" = String, Path, description = "A task's id")),
    request_body(content = inline(serde_json::Value), content_type = "application/json",
        description = "`as`: `ignored`, `lost` or `rerun`", example = json!({"as": "lost"})),
)]
pub async fn resolve_task(
    State(edge): State<Edge>,
    caller: Caller,
    IdPath(id): IdPath,
    JsonText(body): JsonText,
) -> Result<Answer<ResolvedView>, Refused<(OfTask, Body, ResolveError)>> {
    let resolution = wishes(&body, &["as"], |problems, fields| {
        let word = fields.get("as").and_then(|value| problems.within("as", |p| p.text(value)));
        let resolution = word.as_deref().and_then(Resolution::parse);
        if resolution.is_none() && !problems.is_full() {
            problems.add_at("as", format!("must be one of {}", Resolution::WORDS.join(", ")));
        }
        resolution
    })?;
    caller.must_see(&edge, &id).await?;
    let Some(resolution) = resolution else { return Err(Problem::invalid(Vec::new()).into()) };
    let task = edge.gateway.resolve(&id, resolution).await?;
    Ok(Answer::of(&ResolvedView::of(&task)))
}

/// The 202 answer with the new task.
pub fn sent_again(submitted: &Submitted) -> Accepted<AcceptedView> {
    let view = AcceptedView::new(submitted, Shown::default());
    accepted_task(&view, &view.links.this)
}

/// The canvas of a task
///
/// All tasks of the submission that the task belongs to, and the edges between them.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/graph", tag = "tasks", operation_id = "task_graph",
    params(("id" = String, Path, description = "The id of any task of the canvas, or of a group in it")),
)]
pub async fn task_graph(
    State(edge): State<Edge>,
    caller: Caller,
    IdPath(id): IdPath,
) -> Result<Answer<GraphView>, Refused<(OfTask, ledger::Error)>> {
    caller.must_see(&edge, &id).await?;
    let visibility = caller.visibility();
    let (mut nodes, mut edges) = edge.gateway.graph_of(&id).await?.ok_or_else(|| unknown(id.as_str()))?;
    if visibility.is_limited() {
        nodes.retain(|node| visibility.sees_task(node));
        edges.retain(|(from, to, _)| [from, to].into_iter().all(|end| nodes.iter().any(|node| node.id == *end)));
    }
    Ok(Answer::of(&GraphView::of(nodes, &edges)))
}
