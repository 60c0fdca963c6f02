//! `/v1/waits`: steps that wait for an answer from outside, and `POST /v1/tasks/{id}/complete`.

use axum::extract::{OriginalUri, State};

use super::tasks::linked;
use crate::edge::answer::{Answer, Body, Page, Query, Refused};
use crate::edge::cursor;
use crate::edge::extract::{Caller, IdPath, JsonText, PathValues, name_page_query, wishes};
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;
use crate::edge::view::wait::{WaitListView, WaitView};
use crate::usecase::waits::WaitError;
use celery::task::{Json, TaskId, json};
use ledger::Wait;
use runtime::clock::Time;

/// Steps that wait for an answer
///
/// Open waits, the longest first. `links.complete` of each needs no other credential: anyone who has the link may answer. A token that
/// is limited to some task names sees the waits of its own submissions.
#[utoipa::path(
    get, path = "/v1/waits", tag = "tasks", operation_id = "list_waits",
    params(
        ("limit" = Option<i64>, Query, description = "1 to 500, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of an earlier answer"),
    ),
)]
pub async fn list_waits(
    State(edge): State<Edge>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Page<WaitListView>, Refused<(Query, ledger::Error)>> {
    let (limit, after) = name_page_query(&uri)?;
    let after = after.map(|text| place(&text).ok_or_else(|| Problem::new(&slugs::INVALID_CURSOR))).transpose()?;
    let submitter = caller.id().filter(|_| caller.visibility().is_limited());
    let after = after.as_ref().map(|(at, id)| (*at, id));
    let mut found = edge.gateway.open_waits(after, submitter.as_deref(), limit + 1).await?;
    let has_more = found.len() as i64 > limit;
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = found
        .last()
        .filter(|_| has_more)
        .map(|last| cursor::write_name(&format!("{} {}", last.new.since.0, last.new.task_id)));
    let mut waits = Vec::with_capacity(found.len());
    for wait in found {
        let token = edge.gateway.wait_token(&wait.new.task_id).await?;
        waits.push(WaitView::of(wait, token));
    }
    let view = WaitListView { waits, next };
    Ok(linked(Page::of(&view), &uri, view.next.as_deref()).no_store())
}

/// One wait
///
/// Open or ended: its schema and input, and the answer if there is one.
#[utoipa::path(
    get, path = "/v1/waits/{token}", tag = "tasks", operation_id = "get_wait",
    params(("token" = String, Path, description = "The token of the wait")),
)]
pub async fn get_wait(State(edge): State<Edge>, path: PathValues) -> Result<Answer<WaitView>, Refused<WaitError>> {
    let wait = by_token(&edge, &path).await?;
    shown(&edge, wait).await.map_err(Refused::from)
}

/// Answer a wait
///
/// The body, any JSON value, becomes the result of the step, and the next step runs. Only the first answer counts: a second one
/// gets 409 with the first in `answer`.
#[utoipa::path(
    post, path = "/v1/waits/{token}", tag = "tasks", operation_id = "answer_wait",
    params(("token" = String, Path, description = "The token of the wait")),
    request_body(content = inline(serde_json::Value), content_type = "application/json", description = "The answer", example = json!(true)),
)]
pub async fn answer_wait(
    State(edge): State<Edge>,
    path: PathValues,
    JsonText(body): JsonText,
) -> Result<Answer<WaitView>, Refused<(Body, WaitError)>> {
    let wait = by_token(&edge, &path).await?;
    answered(&edge, wait, body).await.map_err(Refused::from)
}

/// Refuse a wait
///
/// The step fails with `WaitRefused`.
#[utoipa::path(
    delete, path = "/v1/waits/{token}", tag = "tasks", operation_id = "refuse_wait",
    params(("token" = String, Path, description = "The token of the wait")),
    request_body(content = inline(serde_json::Value), content_type = "application/json",
        description = "`reason`, for the error of the step; may be empty", example = json!({"reason": "too expensive"})),
)]
pub async fn refuse_wait(
    State(edge): State<Edge>,
    path: PathValues,
    JsonText(body): JsonText,
) -> Result<Answer<WaitView>, Refused<(Body, WaitError)>> {
    let reason = wishes(&body, &["reason"], |problems, fields| {
        fields.get("reason").and_then(|value| problems.within("reason", |problems| problems.text(value)))
    })?;
    let wait = by_token(&edge, &path).await?;
    let wait = edge.gateway.refuse_wait(wait, reason.as_deref()).await?;
    shown(&edge, wait).await.map_err(Refused::from)
}

/// Complete a task
///
/// As `POST /v1/waits/{token}`, but by the id of the step.
#[utoipa::path(
    post, path = "/v1/tasks/{id}/complete", tag = "control", operation_id = "complete_task",
    params(("id" = String, Path, description = "The id of a step that waits")),
    request_body(content = inline(serde_json::Value), content_type = "application/json", description = "The answer", example = json!(true)),
)]
pub async fn complete_task(
    State(edge): State<Edge>,
    caller: Caller,
    IdPath(id): IdPath,
    JsonText(body): JsonText,
) -> Result<Answer<WaitView>, Refused<(Body, WaitError)>> {
    let is_foreign = |wait: &Wait| caller.visibility().is_limited() && wait.new.token != caller.id();
    let wait = edge.gateway.wait_of(&id).await?.filter(|wait| !is_foreign(wait));
    let wait = wait.ok_or_else(|| {
        Problem::new(&slugs::WAIT_NOT_FOUND).detail(format!("no step of the id {id} waits for an answer"))
    })?;
    answered(&edge, wait, body).await.map_err(Refused::from)
}

async fn by_token(edge: &Edge, PathValues(values): &PathValues) -> Result<Wait, Problem> {
    let token = values.first().map_or("", |(_, value)| value.as_str());
    edge.gateway.wait_by_token(token).await?.ok_or_else(|| Problem::new(&slugs::WAIT_NOT_FOUND))
}

async fn answered(edge: &Edge, wait: Wait, body: String) -> Result<Answer<WaitView>, Problem> {
    let wait = edge.gateway.answer_wait(wait, value(body)?).await?;
    shown(edge, wait).await
}

fn value(body: String) -> Result<Json, Problem> {
    if body.is_empty() {
        return Err(Problem::new(&slugs::INVALID_REQUEST)
            .error("", "the answer is missing: send any JSON value, null included"));
    }
    json::verbatim(body).map_err(|error| Problem::new(&slugs::INVALID_JSON).detail(error.to_string()))
}

async fn shown(edge: &Edge, wait: Wait) -> Result<Answer<WaitView>, Problem> {
    let token = edge.gateway.wait_token(&wait.new.task_id).await?;
    Ok(Answer::of(&WaitView::of(wait, token)).no_store())
}

fn place(text: &str) -> Option<(Time, TaskId)> {
    let (at, id) = text.split_once(' ')?;
    Some((Time(at.parse().ok()?), TaskId::parse(id).ok()?))
}
