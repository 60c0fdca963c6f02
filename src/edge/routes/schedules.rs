//! `/v1/schedules`: the timetable, changed while it runs.

use axum::body::Body;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::submission::{Shown, Surroundings, idempotency, json_response, respond, text};
use crate::edge::base;
use crate::edge::cursor;
use crate::edge::extract::{
    Caller, Demand, JsonText, NoBody, PathValues, Repeatable, count_query, name_page_query, page_query,
};
use crate::edge::problem::{Problem, ProblemDocument};
use crate::edge::state::Edge;
use crate::edge::view::{AcceptedView, PreviewView, RunListView, RunView, schedule_text};
use crate::usecase::schedules::{MOST_PREVIEWED, ScheduleError, tag};
use ledger::Schedule;

const DEFAULT_PREVIEW: usize = 10;

/// All schedules, by name
#[utoipa::path(
    get, path = "/v1/schedules", tag = "schedules", operation_id = "list_schedules",
    params(
        ("limit" = Option<u16>, Query, description = "1 to 500, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses((status = 200, description = "A page", body = ref("#/components/schemas/ScheduleList"), content_type = "application/json")),
)]
pub async fn list_schedules(
    State(edge): State<Edge>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Problem> {
    let (limit, after) = name_page_query(&uri)?;
    let (mut found, more) = edge.gateway.schedules(after.as_deref(), limit).await?;
    let next = found.last().filter(|_| more).map(|last| cursor::write_name(&last.name));
    // A limited token's page may be short, even empty, and still have a next one.
    let visibility = caller.visibility();
    found.retain(|schedule| edge.gateway.sees_schedule(&visibility, schedule));
    let shown: Vec<String> = found.iter().map(|schedule| schedule_text(schedule, &edge.catalog)).collect();
    let body = format!("{{\"schedules\":[{}],\"next\":{}}}", shown.join(","), text(&next));
    let mut response = json_response(StatusCode::OK, body);
    super::tasks::link_next(&mut response, &uri, next.as_deref());
    Ok(response)
}

/// Write a schedule
///
/// A signature and its timetable. With an `Idempotency-Key` a repetition gets the same schedule.
#[utoipa::path(
    post, path = "/v1/schedules", tag = "schedules", operation_id = "create_schedule",
    request_body(content = ref("#/components/schemas/ScheduleDocument"), content_type = "application/json"),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition harmless")),
    responses(
        (status = 201, description = "Written", body = ref("#/components/schemas/Schedule"), content_type = "application/json", headers(("ETag" = String, description = "For `If-Match`"), ("Location" = String, description = "The schedule"))),
        (status = 409, description = "The name is taken", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "Does not fit", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn create_schedule(
    State(edge): State<Edge>,
    caller: Caller,
    repeatable: Repeatable,
    JsonText(body): JsonText,
) -> Result<Response, Problem> {
    let key = repeatable.key.map(|key| match caller.id() {
        Some(id) => format!("{id} {key}"),
        None => key,
    });
    let written = edge.gateway.create_schedule(&caller.visibility(), &body, key.as_deref()).await?;
    let mut response = shown(&edge, StatusCode::CREATED, &written.schedule);
    if written.replayed {
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// One schedule
#[utoipa::path(
    get, path = "/v1/schedules/{name}", tag = "schedules", operation_id = "get_schedule",
    params(("name" = String, Path)),
    responses(
        (status = 200, description = "The schedule", body = ref("#/components/schemas/Schedule"), content_type = "application/json", headers(("ETag" = String, description = "For `If-Match`; changes with every edit"))),
        (status = 404, description = "Unknown", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn get_schedule(State(edge): State<Edge>, caller: Caller, path: PathValues) -> Result<Response, Problem> {
    let schedule = edge.gateway.find_schedule(&caller.visibility(), &name(path)).await?;
    Ok(shown(&edge, StatusCode::OK, &schedule))
}

/// Write the whole schedule
///
/// Creates it when it is not there. `If-Match` with the `ETag` that was read refuses to overwrite somebody else's edit.
#[utoipa::path(
    put, path = "/v1/schedules/{name}", tag = "schedules", operation_id = "put_schedule",
    request_body(content = ref("#/components/schemas/ScheduleDocument"), content_type = "application/json"),
    params(
        ("name" = String, Path),
        ("If-Match" = Option<String>, Header, description = "The `ETag` that was read"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only create"),
    ),
    responses(
        (status = 200, description = "Changed", body = ref("#/components/schemas/Schedule"), content_type = "application/json"),
        (status = 201, description = "Created", body = ref("#/components/schemas/Schedule"), content_type = "application/json"),
        (status = 412, description = "Changed since it was read", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "Does not fit", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn put_schedule(
    State(edge): State<Edge>,
    caller: Caller,
    path: PathValues,
    Demand(precondition): Demand,
    JsonText(body): JsonText,
) -> Result<Response, Problem> {
    let written = edge.gateway.put_schedule(&caller.visibility(), &name(path), &body, &precondition).await?;
    Ok(shown(&edge, if written.created { StatusCode::CREATED } else { StatusCode::OK }, &written.schedule))
}

/// Change parts of a schedule
#[utoipa::path(
    patch, path = "/v1/schedules/{name}", tag = "schedules", operation_id = "patch_schedule",
    request_body(content = ref("#/components/schemas/SchedulePatch"), content_type = "application/json"),
    params(("name" = String, Path), ("If-Match" = Option<String>, Header, description = "The `ETag` that was read")),
    responses(
        (status = 200, description = "Changed", body = ref("#/components/schemas/Schedule"), content_type = "application/json"),
        (status = 404, description = "Unknown", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 412, description = "Changed since it was read", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "Does not fit", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn patch_schedule(
    State(edge): State<Edge>,
    caller: Caller,
    path: PathValues,
    Demand(precondition): Demand,
    JsonText(body): JsonText,
) -> Result<Response, Problem> {
    let schedule = edge.gateway.patch_schedule(&caller.visibility(), &name(path), &body, &precondition).await?;
    Ok(shown(&edge, StatusCode::OK, &schedule))
}

/// Delete a schedule and its runs
///
/// Tasks that it submitted stay. One that the configuration brought is not brought again.
#[utoipa::path(
    delete, path = "/v1/schedules/{name}", tag = "schedules", operation_id = "delete_schedule",
    params(("name" = String, Path), ("If-Match" = Option<String>, Header, description = "The `ETag` that was read")),
    responses(
        (status = 204, description = "Gone"),
        (status = 404, description = "Unknown", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 412, description = "Changed since it was read", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn delete_schedule(
    State(edge): State<Edge>,
    caller: Caller,
    path: PathValues,
    Demand(precondition): Demand,
    _: NoBody,
) -> Result<Response, Problem> {
    edge.gateway.delete_schedule(&caller.visibility(), &name(path), &precondition).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Pause a schedule
///
/// It does not tick until it is resumed; ticks in between are not missed, they do not exist.
#[utoipa::path(
    post, path = "/v1/schedules/{name}/pause", tag = "schedules", operation_id = "pause_schedule",
    params(("name" = String, Path)),
    responses(
        (status = 200, description = "Paused", body = ref("#/components/schemas/Schedule"), content_type = "application/json"),
        (status = 404, description = "Unknown", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn pause_schedule(
    State(edge): State<Edge>,
    caller: Caller,
    path: PathValues,
    Demand(precondition): Demand,
    _: NoBody,
) -> Result<Response, Problem> {
    let schedule = edge.gateway.pause_schedule(&caller.visibility(), &name(path), true, &precondition).await?;
    Ok(shown(&edge, StatusCode::OK, &schedule))
}

/// Resume a schedule
#[utoipa::path(
    post, path = "/v1/schedules/{name}/resume", tag = "schedules", operation_id = "resume_schedule",
    params(("name" = String, Path)),
    responses(
        (status = 200, description = "Ticks again", body = ref("#/components/schemas/Schedule"), content_type = "application/json"),
        (status = 404, description = "Unknown", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn resume_schedule(
    State(edge): State<Edge>,
    caller: Caller,
    path: PathValues,
    Demand(precondition): Demand,
    _: NoBody,
) -> Result<Response, Problem> {
    let schedule = edge.gateway.pause_schedule(&caller.visibility(), &name(path), false, &precondition).await?;
    Ok(shown(&edge, StatusCode::OK, &schedule))
}

/// Run a schedule now
///
/// Submits its call once, paused or not; its next tick stays.
#[utoipa::path(
    post, path = "/v1/schedules/{name}/run", tag = "schedules", operation_id = "run_schedule",
    params(("name" = String, Path)),
    responses(
        (status = 202, description = "Accepted", body = AcceptedView),
        (status = 404, description = "Unknown", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn run_schedule(
    State(edge): State<Edge>,
    path: PathValues,
    surroundings: Surroundings,
    _: NoBody,
) -> Result<Response, Problem> {
    let Surroundings { caller, prefer, repeatable, traceparent } = surroundings;
    let key = idempotency(&caller, repeatable, "", Shown::default());
    let outcome = match edge.gateway.run_schedule(&caller.visibility(), &name(path), traceparent.0, key).await {
        Ok(submitted) => Ok(submitted),
        Err(ScheduleError::Submit(error)) => Err(error),
        Err(error) => return Err(error.into()),
    };
    respond(&edge, outcome, prefer.wait, Shown::default()).await
}

/// The next ticks
#[utoipa::path(
    get, path = "/v1/schedules/{name}/preview", tag = "schedules", operation_id = "preview_schedule",
    params(("name" = String, Path), ("n" = Option<u16>, Query, description = "1 to 500, default 10")),
    responses(
        (status = 200, description = "Times with the zone's offset", body = PreviewView),
        (status = 404, description = "Unknown", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn preview_schedule(
    State(edge): State<Edge>,
    caller: Caller,
    path: PathValues,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Problem> {
    let count = count_query(&uri, DEFAULT_PREVIEW, MOST_PREVIEWED)?;
    let ticks = edge.gateway.preview_schedule(&caller.visibility(), &name(path), count).await?;
    Ok(json_response(StatusCode::OK, text(&PreviewView { ticks })))
}

/// What became of its ticks, newest first
#[utoipa::path(
    get, path = "/v1/schedules/{name}/runs", tag = "schedules", operation_id = "schedule_runs",
    params(
        ("name" = String, Path),
        ("limit" = Option<u16>, Query, description = "1 to 500, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "A page", body = RunListView),
        (status = 404, description = "Unknown", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn schedule_runs(
    State(edge): State<Edge>,
    caller: Caller,
    path: PathValues,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Problem> {
    let page = page_query(&uri)?;
    let (runs, next) = edge.gateway.schedule_runs(&caller.visibility(), &name(path), &page).await?;
    let next = next.map(cursor::write);
    let view = RunListView { runs: runs.iter().map(RunView::of).collect(), next: next.clone() };
    let mut response = json_response(StatusCode::OK, text(&view));
    super::tasks::link_next(&mut response, &uri, next.as_deref());
    Ok(response)
}

fn name(PathValues(values): PathValues) -> String {
    values.into_iter().find(|(name, _)| name == "name").map(|(_, value)| value).unwrap_or_default()
}

fn shown(edge: &Edge, status: StatusCode, schedule: &Schedule) -> Response {
    let mut response = json_response(status, schedule_text(schedule, &edge.catalog));
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&tag(schedule)) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let (StatusCode::CREATED, Ok(place)) =
        (status, HeaderValue::from_str(&base::path(&format!("/v1/schedules/{}", schedule.name))))
    {
        headers.insert(header::LOCATION, place);
    }
    response
}
