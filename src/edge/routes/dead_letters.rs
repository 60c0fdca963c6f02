//! `/v1/dead-letters`: tasks that failed for good or were lost.

use axum::extract::{OriginalUri, State};

use super::control::sent_again;
use super::tasks::linked;
use crate::edge::answer::{Accepted, Answer, Body, Either, NoContent, OfTask, Page, Query, Refused, Started};
use crate::edge::cursor;
use crate::edge::extract::{Caller, IdPath, JsonText, body_filter, dead_letter_query, feed_filter, wishes};
use crate::edge::state::Edge;
use crate::edge::view::control::{DismissedView, RequeuedTaskView, RequeuedView, SkippedView};
use crate::edge::view::{AcceptedView, SummaryView, TaskListView};
use crate::usecase::dead_letters::{Bulk, Requeued};
use crate::usecase::retry::RetryError;
use celery::task::invalid::Problems;
use celery::task::json::Fields;

/// Dead letters, newest first
///
/// Every task with phase `failed` or `lost`, until it is deleted or re-queued here. A task that was retried in another way stays in
/// the list, with `retried_as`. The filters are those of `GET /v1/tasks`.
#[utoipa::path(
    get, path = "/v1/dead-letters", tag = "control", operation_id = "list_dead_letters",
    params(
        ("task" = Option<Vec<String>>, Query, description = "Task names"),
        ("queue" = Option<Vec<String>>, Query),
        ("from" = Option<String>, Query, description = "Submitted at or after (RFC 3339)"),
        ("to" = Option<String>, Query, description = "Submitted before (RFC 3339)"),
        ("q" = Option<String>, Query, description = "Id prefix, or part of name, label, error type or message"),
        ("limit" = Option<u16>, Query, description = "1 to 500, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
)]
pub async fn list_dead_letters(
    State(edge): State<Edge>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Page<TaskListView<'static>>, Refused<(Query, ledger::Error)>> {
    let (filter, page) = dead_letter_query(&uri)?;
    let (tasks, next) = edge.gateway.dead_letters(caller.narrow(filter), &page).await?;
    let next = next.map(cursor::write);
    let view = TaskListView { tasks: tasks.iter().map(SummaryView::of).collect(), next: next.clone() };
    Ok(linked(Page::lent(&view), &uri, next.as_deref()))
}

/// Delete dead letters
///
/// Removes all matching tasks from the list; they stay in the history. The filters are those of `GET /v1/tasks`; without a filter
/// all are removed.
#[utoipa::path(
    delete, path = "/v1/dead-letters", tag = "control", operation_id = "delete_dead_letters",
    params(("task" = Option<Vec<String>>, Query, description = "Task names"), ("queue" = Option<Vec<String>>, Query)),
)]
pub async fn delete_dead_letters(
    State(edge): State<Edge>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<DismissedView>, Refused<(Query, ledger::Error)>> {
    let deleted = edge.gateway.dismiss_all(&caller.narrow(feed_filter(&uri)?)).await?;
    Ok(Answer::of(&DismissedView { deleted }))
}

/// Delete a dead letter
///
/// Removes the task from the list; it stays in the history.
#[utoipa::path(
    delete, path = "/v1/dead-letters/{id}", tag = "control", operation_id = "delete_dead_letter",
    params(("id" = String, Path, description = "A task's id")),
)]
pub async fn delete_dead_letter(
    State(edge): State<Edge>,
    caller: Caller,
    IdPath(id): IdPath,
) -> Result<NoContent, Refused<(OfTask, RetryError)>> {
    caller.must_see(&edge, &id).await?;
    edge.gateway.dismiss(&id).await?;
    Ok(NoContent)
}

/// Run a dead letter again
///
/// Submits its message as a new task with `retry_of`, and removes it from the list.
#[utoipa::path(
    post, path = "/v1/dead-letters/{id}/requeue", tag = "control", operation_id = "requeue_dead_letter",
    params(("id" = String, Path, description = "A task's id")),
)]
pub async fn requeue_dead_letter(
    State(edge): State<Edge>,
    caller: Caller,
    IdPath(id): IdPath,
    JsonText(body): JsonText,
) -> Result<Accepted<AcceptedView>, Refused<(OfTask, Body, RetryError)>> {
    wishes(&body, &[], |_, _| ())?;
    caller.must_see(&edge, &id).await?;
    Ok(sent_again(&edge.gateway.requeue(&caller.visibility(), &id).await?))
}

/// Run dead letters again
///
/// Submits all matching tasks again, oldest first, at most 5,000 in one call. With `max_per_second` they are held and published
/// one after the other. With `dry_run` they are only counted.
#[utoipa::path(
    post, path = "/v1/dead-letters/requeue", tag = "control", operation_id = "requeue_dead_letters",
    request_body(content = inline(serde_json::Value), content_type = "application/json",
        description = "`filter` (members as the query of `GET /v1/tasks`), `fingerprint` (of a group in `GET /v1/stats/errors`), `max_per_second`, `dry_run`; may be empty",
        example = json!({"filter": {"task": ["tasks.add"]}, "max_per_second": 10, "dry_run": true})),
)]
pub async fn requeue_dead_letters(
    State(edge): State<Edge>,
    caller: Caller,
    JsonText(body): JsonText,
) -> Result<Either<Answer<RequeuedView>, Started<RequeuedView>>, Refused<(Body, RetryError)>> {
    let mut bulk = wishes(&body, &["filter", "fingerprint", "max_per_second", "dry_run"], bulk)?;
    bulk.filter = caller.narrow(bulk.filter);
    let dry_run = bulk.dry_run;
    let done = edge.gateway.requeue_all(&caller.visibility(), bulk).await?;
    let view = requeued(done, dry_run);
    Ok(if dry_run { Either::One(Answer::of(&view)) } else { Either::Other(Started::of(&view)) })
}

fn requeued(done: Requeued, dry_run: bool) -> RequeuedView {
    let skipped = done.skipped.into_iter().map(|(id, reason)| SkippedView { task_id: id.to_string(), reason });
    let tasks: Vec<RequeuedTaskView> = done
        .requeued
        .into_iter()
        .map(|(old, new)| RequeuedTaskView { task_id: new.to_string(), retry_of: old.to_string() })
        .collect();
    RequeuedView {
        dry_run,
        matched: done.matched,
        requeued: tasks.len(),
        tasks,
        skipped: skipped.collect(),
        remaining: done.remaining,
    }
}

/// Bounds of the rate in publications per second: one a day, and so many that the pause between them is zero.
const SLOWEST: f64 = 1.0 / 86_400.0;
const FASTEST: f64 = 1_000_000.0;

fn bulk(problems: &mut Problems, fields: &Fields<'_>) -> Bulk {
    let rate = fields.get("max_per_second").and_then(|value| {
        problems.within("max_per_second", |problems| problems.number(value, SLOWEST).map(|rate| rate.min(FASTEST)))
    });
    let dry_run = fields.get("dry_run").and_then(|value| problems.within("dry_run", |p| p.boolean(value)));
    let fingerprint = fields.get("fingerprint").and_then(|value| {
        problems.within("fingerprint", |problems| {
            let text = problems.text(value)?;
            let is_one = text.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_one {
                problems.add("must be a fingerprint of GET /v1/stats/errors");
            }
            is_one.then_some(text)
        })
    });
    let filter = fields.get("filter").and_then(|value| {
        problems.within("filter", |problems| {
            let fields = problems.object(value)?;
            Some(body_filter(problems, &fields))
        })
    });
    Bulk { filter: filter.unwrap_or_default(), fingerprint, max_per_second: rate, dry_run: dry_run.unwrap_or(false) }
}
