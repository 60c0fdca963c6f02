//! `/v1/schedules`: reads and changes the schedules of beat.

use std::sync::Arc;

use axum::extract::{OriginalUri, State};
use axum::http::{HeaderName, header};

use super::result::version;
use super::submission::{Shown, SubmissionAnswer, Surroundings, idempotency, respond};
use super::tasks::linked;
use crate::edge::answer::{Answer, Body, Created, Either, NoContent, Page, Query, Refused, Tagged, text};
use crate::edge::cursor;
use crate::edge::extract::{
    Caller, Demand, JsonText, NoBody, PathValues, Repeatable, count_query, name_page_query, page_query,
};
use crate::edge::schedule_schema::{ScheduleList, ScheduleText};
use crate::edge::state::Edge;
use crate::edge::view::{PreviewView, RunListView, RunView, schedule_path, schedule_text};
use crate::usecase::schedules::{MOST_PREVIEWED, ScheduleError, tag};
use ledger::Schedule;
use runtime::heavy;

const DEFAULT_PREVIEW: usize = 10;

/// All schedules, by name
#[utoipa::path(
    get, path = "/v1/schedules", tag = "schedules", operation_id = "list_schedules",
    params(
        ("limit" = Option<u16>, Query, description = "1 to 500, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
)]
pub async fn list_schedules(
    State(edge): State<Edge>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Page<ScheduleList>, Refused<(Query, ScheduleError)>> {
    let (limit, after) = name_page_query(&uri)?;
    let visibility = caller.visibility();
    let (found, more) = edge.gateway.schedules(&visibility, after, limit).await?;
    let next = found.last().filter(|_| more).map(|last| cursor::write_name(&last.name));
    let shown: Vec<String> = found
        .iter()
        .map(|schedule| schedule_text(schedule, visibility.shown_name(&schedule.name), &edge.catalog))
        .collect();
    let body = format!("{{\"schedules\":[{}],\"next\":{}}}", shown.join(","), text(&next));
    Ok(linked(Page::written(body), &uri, next.as_deref()))
}

/// Create a schedule
///
/// Takes a signature and its timetable. With an `Idempotency-Key` a repeated request gets the same schedule.
#[utoipa::path(
    post, path = "/v1/schedules", tag = "schedules", operation_id = "create_schedule",
    request_body(content = ref("#/components/schemas/ScheduleDocument"), content_type = "application/json"),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition harmless")),
)]
pub async fn create_schedule(
    State(edge): State<Edge>,
    caller: Caller,
    repeatable: Repeatable,
    JsonText(body): JsonText,
) -> Result<Created<ScheduleText>, Refused<(Body, ScheduleError)>> {
    let key = repeatable.key.map(|key| match caller.id() {
        Some(id) => format!("{id} {key}"),
        None => key,
    });
    let written = edge.gateway.create_schedule(&caller.visibility(), &body, key.as_deref()).await?;
    let answer = created(&edge, &caller, &written.schedule);
    Ok(if written.replayed { answer.with(&REPLAYED, "true") } else { answer })
}

/// One schedule
#[utoipa::path(
    get, path = "/v1/schedules/{name}", tag = "schedules", operation_id = "get_schedule",
    params(("name" = String, Path)),
)]
pub async fn get_schedule(
    State(edge): State<Edge>,
    caller: Caller,
    path: PathValues,
) -> Result<Tagged<ScheduleText>, Refused<ScheduleError>> {
    let schedule = edge.gateway.find_schedule(&caller.visibility(), &name(path)).await?;
    Ok(shown(&edge, &caller, &schedule))
}

/// Create or replace a schedule
///
/// With `If-Match` and the `ETag` that was read, another client's edit is not overwritten.
#[utoipa::path(
    put, path = "/v1/schedules/{name}", tag = "schedules", operation_id = "put_schedule",
    request_body(content = ref("#/components/schemas/ScheduleDocument"), content_type = "application/json"),
    params(
        ("name" = String, Path),
        ("If-Match" = Option<String>, Header, description = "The `ETag` that was read"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only create"),
    ),
)]
pub async fn put_schedule(
    State(edge): State<Edge>,
    caller: Caller,
    path: PathValues,
    Demand(precondition): Demand,
    JsonText(body): JsonText,
) -> Result<Either<Tagged<ScheduleText>, Created<ScheduleText>>, Refused<(Body, ScheduleError)>> {
    let written = edge.gateway.put_schedule(&caller.visibility(), &name(path), &body, &precondition).await?;
    let schedule = &written.schedule;
    Ok(if written.created {
        Either::Other(created(&edge, &caller, schedule))
    } else {
        Either::One(shown(&edge, &caller, schedule))
    })
}

/// Change parts of a schedule
#[utoipa::path(
    patch, path = "/v1/schedules/{name}", tag = "schedules", operation_id = "patch_schedule",
    request_body(content = ref("#/components/schemas/SchedulePatch"), content_type = "application/json"),
    params(("name" = String, Path), ("If-Match" = Option<String>, Header, description = "The `ETag` that was read")),
)]
pub async fn patch_schedule(
    State(edge): State<Edge>,
    caller: Caller,
    path: PathValues,
    Demand(precondition): Demand,
    JsonText(body): JsonText,
) -> Result<Tagged<ScheduleText>, Refused<(Body, ScheduleError)>> {
    let schedule = edge.gateway.patch_schedule(&caller.visibility(), &name(path), &body, &precondition).await?;
    Ok(shown(&edge, &caller, &schedule))
}

/// Delete a schedule and its runs
///
/// Tasks that it submitted stay. A schedule from the configuration is not created again.
#[utoipa::path(
    delete, path = "/v1/schedules/{name}", tag = "schedules", operation_id = "delete_schedule",
    params(("name" = String, Path), ("If-Match" = Option<String>, Header, description = "The `ETag` that was read")),
)]
pub async fn delete_schedule(
    State(edge): State<Edge>,
    caller: Caller,
    path: PathValues,
    Demand(precondition): Demand,
    _: NoBody,
) -> Result<NoContent, Refused<ScheduleError>> {
    edge.gateway.delete_schedule(&caller.visibility(), &name(path), &precondition).await?;
    Ok(NoContent)
}

/// Pause a schedule
///
/// It does not tick until it is resumed; the ticks in between do not count as missed.
#[utoipa::path(
    post, path = "/v1/schedules/{name}/pause", tag = "schedules", operation_id = "pause_schedule",
    params(("name" = String, Path)),
)]
pub async fn pause_schedule(
    State(edge): State<Edge>,
    caller: Caller,
    path: PathValues,
    Demand(precondition): Demand,
    _: NoBody,
) -> Result<Tagged<ScheduleText>, Refused<ScheduleError>> {
    let schedule = edge.gateway.pause_schedule(&caller.visibility(), &name(path), true, &precondition).await?;
    Ok(shown(&edge, &caller, &schedule))
}

/// Resume a schedule
#[utoipa::path(
    post, path = "/v1/schedules/{name}/resume", tag = "schedules", operation_id = "resume_schedule",
    params(("name" = String, Path)),
)]
pub async fn resume_schedule(
    State(edge): State<Edge>,
    caller: Caller,
    path: PathValues,
    Demand(precondition): Demand,
    _: NoBody,
) -> Result<Tagged<ScheduleText>, Refused<ScheduleError>> {
    let schedule = edge.gateway.pause_schedule(&caller.visibility(), &name(path), false, &precondition).await?;
    Ok(shown(&edge, &caller, &schedule))
}

/// Run a schedule now
///
/// Submits its call once, even while it is paused; its next tick does not change.
#[utoipa::path(
    post, path = "/v1/schedules/{name}/run", tag = "schedules", operation_id = "run_schedule",
    params(("name" = String, Path)),
)]
pub async fn run_schedule(
    State(edge): State<Edge>,
    path: PathValues,
    surroundings: Surroundings,
    _: NoBody,
) -> Result<SubmissionAnswer, Refused<ScheduleError>> {
    let Surroundings { caller, prefer, repeatable, traceparent } = surroundings;
    let key = idempotency(&caller, repeatable, "", Shown::default());
    let outcome = match edge.gateway.run_schedule(&caller.visibility(), &name(path), traceparent.0, key).await {
        Ok(submitted) => Ok(submitted),
        Err(ScheduleError::Submit(error)) => Err(error),
        Err(error) => return Err(error.into()),
    };
    Ok(respond(&edge, outcome, prefer.wait, Shown::default()).await?)
}

/// The next ticks
#[utoipa::path(
    get, path = "/v1/schedules/{name}/preview", tag = "schedules", operation_id = "preview_schedule",
    params(("name" = String, Path), ("n" = Option<u16>, Query, description = "1 to 500, default 10")),
)]
pub async fn preview_schedule(
    State(edge): State<Edge>,
    caller: Caller,
    path: PathValues,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<PreviewView>, Refused<(Query, ScheduleError)>> {
    let count = count_query(&uri, DEFAULT_PREVIEW, MOST_PREVIEWED)?;
    let ticks = edge.gateway.preview_schedule(&caller.visibility(), &name(path), count).await?;
    Ok(Answer::of(&PreviewView { ticks }))
}

/// The next ticks of a schedule that does not exist yet
///
/// Reads it like `POST /v1/schedules` and returns when it would fire. Nothing is written. The name may be left out.
#[utoipa::path(
    post, path = "/v1/schedule-preview", tag = "schedules", operation_id = "preview_document",
    request_body(content = ref("#/components/schemas/ScheduleDocument"), content_type = "application/json"),
    params(("n" = Option<u16>, Query, description = "1 to 500, default 10")),
)]
pub async fn preview_document(
    State(edge): State<Edge>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    JsonText(body): JsonText,
) -> Result<Answer<PreviewView>, Refused<(Query, Body, ScheduleError)>> {
    let count = count_query(&uri, DEFAULT_PREVIEW, MOST_PREVIEWED)?;
    let (gateway, visibility) = (Arc::clone(&edge.gateway), caller.visibility());
    let ticks = heavy::run(body.len(), move || gateway.preview_document(&visibility, &body, count)).await?;
    Ok(Answer::of(&PreviewView { ticks }))
}

/// The outcomes of its ticks, newest first
#[utoipa::path(
    get, path = "/v1/schedules/{name}/runs", tag = "schedules", operation_id = "schedule_runs",
    params(
        ("name" = String, Path),
        ("limit" = Option<u16>, Query, description = "1 to 500, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
)]
pub async fn schedule_runs(
    State(edge): State<Edge>,
    caller: Caller,
    path: PathValues,
    OriginalUri(uri): OriginalUri,
) -> Result<Page<RunListView>, Refused<(Query, ScheduleError)>> {
    let page = page_query(&uri)?;
    let (runs, next) = edge.gateway.schedule_runs(&caller.visibility(), &name(path), &page).await?;
    let next = next.map(cursor::write);
    let view = RunListView { runs: runs.iter().map(RunView::of).collect(), next: next.clone() };
    Ok(linked(Page::of(&view), &uri, next.as_deref()))
}

fn name(PathValues(values): PathValues) -> String {
    values.into_iter().find(|(name, _)| name == "name").map(|(_, value)| value).unwrap_or_default()
}

static REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

fn shown(edge: &Edge, caller: &Caller, schedule: &Schedule) -> Tagged<ScheduleText> {
    let visibility = caller.visibility();
    let name = visibility.shown_name(&schedule.name);
    version(Tagged::written(schedule_text(schedule, name, &edge.catalog)), &tag(schedule))
}

fn created(edge: &Edge, caller: &Caller, schedule: &Schedule) -> Created<ScheduleText> {
    let visibility = caller.visibility();
    let name = visibility.shown_name(&schedule.name);
    let place = schedule_path(name);
    version(Created::written(schedule_text(schedule, name, &edge.catalog)), &tag(schedule))
        .with(header::LOCATION, &place)
}
