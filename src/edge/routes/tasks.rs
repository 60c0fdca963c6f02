//! `GET /v1/tasks` and `GET /v1/tasks/{id}`.

use axum::extract::{OriginalUri, State};
use axum::http::{Uri, header};
use ledger::Task;
use serde::Serialize;

use super::result::{etag_of, pruned, unknown, version};
use crate::edge::answer::{Answer, Either, OfResult, OfTask, Page, Query, Refused, Tagged, Unchanged, text};
use crate::edge::cursor;
use crate::edge::extract::{Caller, IdPath, IfNoneMatch, ListQuery, list_query};
use crate::edge::problem::Problem;
use crate::edge::state::Edge;
use crate::edge::view::{GroupView, MessageView, SummaryView, TaskListView, TaskView};
use crate::usecase::embedded::without_foreign;
use crate::usecase::read::Found;

/// A task with all its details
///
/// The result body, and phase, arguments, worker, times, labels and links. For a group's id the answer is the group.
#[utoipa::path(
    get, path = "/v1/tasks/{id}", tag = "tasks", operation_id = "get_task",
    params(
        ("id" = String, Path, description = "A task's id"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` of an earlier answer"),
    ),
)]
pub async fn get_task(
    State(edge): State<Edge>,
    caller: Caller,
    IdPath(id): IdPath,
    known: IfNoneMatch,
) -> Result<Either<Tagged<TaskView<'static>>, Unchanged>, Refused<(OfResult, ledger::Error)>> {
    let visibility = caller.visibility();
    let body = match edge.gateway.task_with_message(&id).await? {
        Some((task, _)) if !visibility.sees_task(&task) => return Err(unknown(id.as_str()).into()),
        Some((task, message)) => text(&TaskView::of(&task, message.as_ref())),
        None => match edge.gateway.find_for(&visibility, id.as_str(), std::time::Duration::ZERO).await? {
            Found::Group(group) => text(&GroupView::of(&group)),
            Found::Pruned(at) => return Err(pruned(id.as_str(), at).into()),
            // The task was submitted a moment ago, or waits in an inbox.
            Found::Task(task) => text(&TaskView::of(&task, None)),
            Found::Unknown => return Err(unknown(id.as_str()).into()),
        },
    };
    let etag = etag_of(&body);
    if known.has(&etag) {
        return Ok(Either::Other(Unchanged::of(&etag)));
    }
    Ok(Either::One(version(Tagged::written(body), &etag)))
}

/// Tasks, newest first
///
/// A task must match all filters; a filter may be repeated or have several values separated by commas, of which one must match.
#[utoipa::path(
    get, path = "/v1/tasks", tag = "tasks", operation_id = "list_tasks",
    params(
        ("status" = Option<Vec<String>>, Query, description = "Celery states, also custom ones"),
        ("phase" = Option<Vec<String>>, Query, description = "As `phase` of a task"),
        ("task" = Option<Vec<String>>, Query, description = "Task names"),
        ("queue" = Option<Vec<String>>, Query),
        ("worker" = Option<Vec<String>>, Query),
        ("label" = Option<Vec<String>>, Query, description = "`key:value`; all given labels must match"),
        ("root_id" = Option<String>, Query),
        ("group_id" = Option<String>, Query),
        ("schedule" = Option<String>, Query),
        ("from" = Option<String>, Query, description = "Submitted at or after (RFC 3339)"),
        ("to" = Option<String>, Query, description = "Submitted before (RFC 3339)"),
        ("q" = Option<String>, Query, description = "Id prefix, or part of name, label, error type or message"),
        ("argument" = Option<String>, Query, description = "Part of an argument, as its JSON has it; case-insensitive. Looks at the first 16 KiB of the arguments, at nothing of tasks whose arguments are masked or no longer kept, and at one month of the history for each page: follow `next`, also from an empty page"),
        ("newest" = Option<bool>, Query, description = "Only the newest matching task, with its result and arguments"),
        ("limit" = Option<u16>, Query, description = "1 to 500, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
)]
pub async fn list_tasks(
    State(edge): State<Edge>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Page<TaskListView<'static>>, Refused<(Query, ledger::Error)>> {
    let ListQuery { filter, page, newest } = list_query(&uri)?;
    let (tasks, next) = edge.gateway.tasks(&caller.narrow(filter), &page).await?;
    if newest {
        return Ok(whole(&edge, tasks.first()).await?);
    }
    let next = next.map(cursor::write);
    let view = TaskListView { tasks: tasks.iter().map(SummaryView::of).collect(), next: next.clone() };
    Ok(linked(Page::lent(&view), &uri, next.as_deref()))
}

/// A list of at most one task, with all its fields: those of a summary, and more.
async fn whole(edge: &Edge, task: Option<&Task>) -> Result<Page<TaskListView<'static>>, Problem> {
    let found = match task {
        Some(task) => edge.gateway.task_with_message(&task.id).await?,
        None => None,
    };
    let tasks = found.iter().map(|(task, message)| TaskView::of(task, message.as_ref())).collect();
    Ok(Page::written(text(&NewestView { tasks, next: () })))
}

/// As [`TaskListView`], but of tasks with all fields.
#[derive(Serialize)]
struct NewestView<'a> {
    tasks: Vec<TaskView<'a>>,
    next: (),
}

/// A page with `Link: rel=next`, unless it is the last one.
pub fn linked<T>(page: Page<T>, uri: &Uri, next: Option<&str>) -> Page<T> {
    match next {
        Some(next) => page.with(header::LINK, &next_link(uri, next)),
        None => page,
    }
}

/// The same query with another cursor.
fn next_link(uri: &Uri, next: &str) -> String {
    let kept =
        uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
    let query: Vec<&str> = kept.collect();
    let query = if query.is_empty() { String::new() } else { format!("{}&", query.join("&")) };
    format!("<{}?{query}cursor={next}>; rel=\"next\"", uri.path())
}

/// A task's message
///
/// As it was or will be put into the broker: headers and body as JSON. Fields that the catalog lists under `redact` are masked.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/message", tag = "tasks", operation_id = "get_message",
    params(("id" = String, Path, description = "A task's id")),
)]
pub async fn get_message(
    State(edge): State<Edge>,
    caller: Caller,
    IdPath(id): IdPath,
) -> Result<Answer<MessageView<'static>>, Refused<(OfTask, ledger::Error)>> {
    caller.must_see(&edge, &id).await?;
    let (task, message) = edge.gateway.task_with_message(&id).await?.ok_or_else(|| unknown(id.as_str()))?;
    let unseen = || unknown(id.as_str()).detail("its message was never seen here, or was pruned");
    let mut message = message.ok_or_else(unseen)?;
    let visibility = caller.visibility();
    if visibility.is_limited() {
        message.body = without_foreign(&message.body, &visibility);
    }
    Ok(Answer::lent(&MessageView::of(&task, &message)))
}
