//! `GET /v1/tasks/{id}/events`: the live events of a task or group.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio_stream::{Stream, StreamExt};
use utoipa::ToSchema;

use super::result::{pruned, unknown};
use crate::catalog::Catalog;
use crate::edge::answer::{Answer, Described, Lends, OfResult, Refused};
use crate::edge::extract::{Caller, IdPath, LastEventId, wants_json};
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::sse;
use crate::edge::state::Edge;
use crate::edge::view::{EventView, GroupEventView, GroupView, Mask, ResultView, SnapshotView};
use crate::usecase::read::Found;
use crate::usecase::watch::{Watched, WatchedGroup};
use celery::task::GroupId;
use ledger::{Filter, Group, Page, Task};

/// Events as one document.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventList)]
pub struct EventList<'a> {
    events: Vec<Listed<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ListedEvent)]
pub struct Listed<'a> {
    /// `state`, `progress` or `end`.
    #[schema(value_type = String)]
    event: &'static str,
    #[serde(flatten)]
    data: EventView<'a>,
}

impl Lends for EventList<'static> {
    type With<'a> = EventList<'a>;
}

/// Events of a task or group
///
/// Server-sent events: first `snapshot` (or, with `Last-Event-ID`, exactly the later events), then `state` and `progress`, and
/// `end` with the result body. Ids are the task's `seq`. 204 when nothing will follow. With `Accept: application/json` the answer is
/// one document with the events so far.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/events", tag = "tasks", operation_id = "watch_task",
    params(
        ("id" = String, Path, description = "A task's or a group's id"),
        ("Last-Event-ID" = Option<u64>, Header, description = "The id of the last event received; 0 replays all"),
    ),
    responses(
        (status = 200, description = "The stream, or the document", content(
            (String = "text/event-stream", example = "id: 3\nevent: progress\ndata: {\"task_id\":\"…\",\"seq\":3,\"status\":\"PROGRESS\",\"phase\":\"running\",\"at\":\"2026-11-20T18:17:30.698350Z\",\"worker\":\"w1@host\",\"retries\":0,\"meta\":{\"progress\":1,\"total\":5}}\n\n"),
            (EventList = "application/json"),
        )),
        (status = 204, description = "Finished, and the client has everything"),
    )
)]
pub async fn watch_task(
    State(edge): State<Edge>,
    caller: Caller,
    IdPath(id): IdPath,
    LastEventId(after): LastEventId,
    headers: HeaderMap,
) -> Result<Described, Refused<(OfResult, ledger::Error)>> {
    let found = edge.gateway.find_for(&caller.visibility(), id.as_str(), std::time::Duration::ZERO).await?;
    Ok(Described(match found {
        Found::Task(task) if wants_json(&headers) => listed(&edge, &task, after.unwrap_or(0)).await?.into_response(),
        Found::Task(task) => task_stream(&edge, &caller, &task, after, Ids::Numbers).await?,
        Found::Group(group) if wants_json(&headers) => {
            Answer::<GroupView<'static>>::lent(&GroupView::of(&group)).into_response()
        }
        Found::Group(group) => group_stream(&edge, &caller, &group, after).await?,
        Found::Pruned(at) => return Err(pruned(id.as_str(), at).into()),
        Found::Unknown => return Err(unknown(id.as_str()).into()),
    }))
}

/// How long a watcher of an inbox call waits for the call to become a task.
const DRAIN_PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// The form of a stream's event ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    /// The task's `seq`.
    Numbers,
    /// The task's id, a colon and its `seq`, because the next connection may get another task.
    Named,
}

/// The last event that a reader of the newest task with some labels has.
#[derive(Debug)]
pub struct Follow {
    as_json: bool,
    last: Option<(String, i64)>,
}

impl Follow {
    /// # Errors
    /// When `Last-Event-ID` is not an id of such a stream.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let text = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?").trim()).unwrap_or_default();
        let wrong = || {
            let detail = "must be the id of an event of this stream: a task's id, a colon and a number";
            Problem::new(&slugs::INVALID_HEADER)
                .detail(format!("Last-Event-ID {detail}"))
                .error("Last-Event-ID", detail)
        };
        let last = match text.rsplit_once(':') {
            None if text.is_empty() => None,
            None => return Err(wrong()),
            Some((id, seq)) => {
                let seq = seq.parse().ok().filter(|seq| *seq >= 0).ok_or_else(wrong)?;
                Some((id.to_owned(), seq))
            }
        };
        Ok(Self { as_json: wants_json(headers), last })
    }
}

/// The events of the newest task with all these labels that the caller may see.
pub async fn follow_newest(
    edge: &Edge,
    caller: &Caller,
    labels: Vec<(String, String)>,
    follow: Follow,
) -> Result<Response, Problem> {
    let said: Vec<String> = labels.iter().map(|(name, value)| format!("{name}:{value}")).collect();
    let filter = Filter { labels, ..Filter::default() };
    let (found, _) = edge.gateway.tasks(&caller.narrow(filter), &Page { limit: 1, after: None }).await?;
    let Some(task) = found.first() else {
        let detail = format!("no task here has the labels {}", said.join(", "));
        return Err(Problem::new(&slugs::TASK_NOT_FOUND).detail(detail));
    };
    // The last event of an older task does not apply to this task.
    let after = follow.last.filter(|(id, _)| id == task.id.as_str()).map(|(_, seq)| seq);
    if follow.as_json {
        return Ok(listed(edge, task, after.unwrap_or(0)).await?.into_response());
    }
    task_stream(edge, caller, task, after, Ids::Named).await
}

async fn task_stream(
    edge: &Edge,
    caller: &Caller,
    task: &Task,
    after: Option<i64>,
    ids: Ids,
) -> Result<Response, Problem> {
    if task.is_undrained() {
        edge.gateway.enqueued(&task.id, DRAIN_PATIENCE).await?;
    }
    if task.phase.is_final() && after.is_some_and(|after| after >= task.seq) {
        return Ok(sse::over());
    }
    let place = sse::admit(edge, caller)?;
    let Some(watch) = edge.gateway.watcher().task(&task.id, after).await? else {
        return Err(unknown(task.id.as_str()));
    };
    let id = (ids == Ids::Named).then(|| task.id.to_string());
    let frames = task_frames(watch, task.options.redact.clone(), id);
    Ok(sse::answer(edge, caller, place, frames))
}

fn task_frames(
    watch: impl Stream<Item = Watched>,
    redact: Vec<String>,
    id: Option<String>,
) -> impl Stream<Item = Bytes> {
    let named = move |seq: i64| id.as_ref().map_or_else(|| seq.to_string(), |id| format!("{id}:{seq}"));
    watch.map(move |watched| match watched {
        Watched::Snapshot(task) => sse::frame(named(task.seq), "snapshot", &SnapshotView::of(&task)),
        Watched::Event(event) => {
            let view = EventView::of(&event, Mask::new(&redact));
            // A final event that is not the last one was corrected later, so here it is an intermediate state.
            let kind = if view.phase.is_final() { "state" } else { view.kind() };
            sse::frame(named(event.seq), kind, &view)
        }
        Watched::End(task) => sse::frame(named(task.seq), "end", &ResultView::of(&task)),
    })
}

async fn group_stream(edge: &Edge, caller: &Caller, group: &Group, after: Option<i64>) -> Result<Response, Problem> {
    let after = after.map(|after| i32::try_from(after).unwrap_or(i32::MAX));
    if group.completed() >= group.total && after.is_some_and(|after| after >= group.total) {
        return Ok(sse::over());
    }
    let place = sse::admit(edge, caller)?;
    let id = group.id.clone();
    let Some(watch) = edge.gateway.watcher().group(&id, after).await? else { return Err(unknown(id.as_str())) };
    Ok(sse::answer(edge, caller, place, group_frames(watch, id)))
}

fn group_frames(watch: impl Stream<Item = WatchedGroup>, id: GroupId) -> impl Stream<Item = Bytes> {
    watch.map(move |watched| match watched {
        WatchedGroup::Snapshot(group) => {
            let view = GroupEventView { group_id: id.as_str(), completed: group.completed(), total: group.total };
            sse::frame(group.completed(), "snapshot", &view)
        }
        WatchedGroup::Progress { completed, total } => {
            sse::frame(completed, "progress", &GroupEventView { group_id: id.as_str(), completed, total })
        }
        WatchedGroup::End(group) => sse::frame(group.total, "end", &GroupView::of(&group)),
    })
}

async fn listed(edge: &Edge, task: &Task, after: i64) -> Result<Answer<EventList<'static>>, Problem> {
    let events = edge.gateway.events(&task.id, after).await?;
    let mask = Mask::new(&task.options.redact);
    let listed = events.iter().map(|event| {
        let data = EventView::of(event, mask);
        Listed { event: if event.seq < task.seq && data.phase.is_final() { "state" } else { data.kind() }, data }
    });
    Ok(Answer::lent(&EventList { events: listed.collect() }))
}

/// The fields that the catalog masks for tasks of this name.
pub fn redacted<'a>(catalog: &'a Catalog, name: Option<&str>) -> Mask<'a> {
    let entry = name.and_then(|name| catalog.entry(name));
    Mask::new(entry.map_or(&[], |entry| entry.defaults.redact.as_slice()))
}
