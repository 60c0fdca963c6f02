//! `/v1/bulk`: operations on many tasks.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, header};
use serde_json::value::RawValue;

use crate::config::Quota;
use crate::edge::answer::{Accepted, Answer, Body, Either, Refused};
use crate::edge::extract::{Caller, JsonText, PathValues, Repeatable, body_filter, fingerprint, path_value, wishes};
use crate::edge::middleware::audit::Remark;
use crate::edge::problem::Problem;
use crate::edge::state::Edge;
use crate::edge::view::{BulkListView, BulkView, PreviewBulkView};
use crate::usecase::bulk::{Asker, BulkError, BulkKey, BulkRequest};
use celery::task::invalid::Problems;
use celery::task::json::{self, Fields};
use ledger::{BulkAction, BulkState, Filter};

const MEMBERS: [&str; 7] = ["filter", "action", "dry_run", "rate", "include_succeeded", "terminate", "reason"];
/// Bounds of the rate in tasks per second: one a day, and so many that the pause between them is zero.
const SLOWEST: f64 = 1.0 / 86_400.0;
const FASTEST: f64 = 1_000_000.0;
const MAX_REASON: usize = 1_000;

/// Do something with many tasks
///
/// `retry` submits each message again as a new task; without a phase or status in the filter it applies to failed and lost tasks,
/// and to succeeded ones only with `include_succeeded`. `revoke` applies to tasks that have not ended. `requeue` and `dismiss` apply
/// to dead letters. Tasks that are submitted later are not included. The gateway works in steps, newest task first, and continues
/// after a restart; the operation can be watched, paused and cancelled. With `dry_run` the tasks are only counted.
#[utoipa::path(
    post, path = "/v1/bulk", tag = "control", operation_id = "create_bulk",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition harmless: it gets the first operation")),
    request_body(content = inline(serde_json::Value), content_type = "application/json",
        description = "`filter` (members as the query of `GET /v1/tasks`; `{}` is all tasks), `action` (`retry`, `revoke`, `requeue`, `dismiss`), `dry_run`, \
            `rate` (tasks a second, or a text as `100/m`), `include_succeeded` (retry), `terminate` and `reason` (revoke)",
        example = json!({"filter": {"task": ["tasks.add"]}, "action": "retry", "rate": 10, "dry_run": true})),
)]
pub async fn create_bulk(
    State(edge): State<Edge>,
    caller: Caller,
    repeatable: Repeatable,
    JsonText(body): JsonText,
) -> Result<Either<Accepted<BulkView>, Answer<PreviewBulkView>>, Refused<(Body, BulkError)>> {
    let (request, dry_run) = wishes(&body, &MEMBERS, request)?;
    let request = BulkRequest { filter: caller.narrow(request.filter), ..request };
    let action = request.action.as_str();
    if dry_run {
        let preview = edge.gateway.preview_bulk(&request).await?;
        let answer = Answer::of(&PreviewBulkView::of(request.action, &preview));
        return Ok(Either::Other(answer.noting(Remark { verdict: Some("counted".to_owned()), detail: None })));
    }
    let key = repeatable.key.map(|key| {
        let hash = fingerprint(&repeatable.method, &repeatable.path, &body);
        let hash = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        BulkKey { key: format!("{} {key}", caller.keys("bulk")), fingerprint: hash }
    });
    let asker = Asker { who: caller.shown(), id: caller.id(), patterns: caller.visibility().patterns() };
    let given = request.given.get().to_owned();
    let (bulk, is_new) = edge.gateway.create_bulk(request, asker, key).await?;
    let view = BulkView::of(&bulk);
    let remark =
        Remark { verdict: Some("accepted".to_owned()), detail: Some(format!("{action} {given}: {}", bulk.id)) };
    let answer = Accepted::of(&view).with(header::LOCATION, &view.links.this).noting(remark);
    Ok(Either::One(if is_new { answer } else { answer.with(&REPLAYED, "true") }))
}

/// The newest operations on many tasks
#[utoipa::path(get, path = "/v1/bulk", tag = "control", operation_id = "list_bulks")]
pub async fn list_bulks(State(edge): State<Edge>, caller: Caller) -> Result<Answer<BulkListView>, Refused<BulkError>> {
    let bulks = edge.gateway.bulks(limited(&caller).as_deref()).await?;
    let bulks = bulks.iter().map(BulkView::of).collect();
    Ok(Answer::of(&BulkListView { bulks }))
}

/// The progress of an operation
#[utoipa::path(
    get, path = "/v1/bulk/{id}", tag = "control", operation_id = "get_bulk",
    params(("id" = String, Path, description = "The operation")),
)]
pub async fn get_bulk(
    State(edge): State<Edge>,
    caller: Caller,
    values: PathValues,
) -> Result<Answer<BulkView>, Refused<BulkError>> {
    let bulk = edge.gateway.bulk(&id(&values)?, limited(&caller).as_deref()).await?;
    Ok(Answer::of(&BulkView::of(&bulk)))
}

/// Pause an operation
///
/// It stops after the current step.
#[utoipa::path(
    post, path = "/v1/bulk/{id}/pause", tag = "control", operation_id = "pause_bulk",
    params(("id" = String, Path, description = "The operation")),
)]
pub async fn pause_bulk(
    State(edge): State<Edge>,
    caller: Caller,
    values: PathValues,
    JsonText(body): JsonText,
) -> Result<Answer<BulkView>, Refused<(Body, BulkError)>> {
    change(&edge, &caller, &values, &body, BulkState::Paused).await
}

/// Resume an operation
///
/// It continues where it stopped.
#[utoipa::path(
    post, path = "/v1/bulk/{id}/resume", tag = "control", operation_id = "resume_bulk",
    params(("id" = String, Path, description = "The operation")),
)]
pub async fn resume_bulk(
    State(edge): State<Edge>,
    caller: Caller,
    values: PathValues,
    JsonText(body): JsonText,
) -> Result<Answer<BulkView>, Refused<(Body, BulkError)>> {
    change(&edge, &caller, &values, &body, BulkState::Running).await
}

/// Cancel an operation
///
/// It ends after the current step. What was done is not undone.
#[utoipa::path(
    post, path = "/v1/bulk/{id}/cancel", tag = "control", operation_id = "cancel_bulk",
    params(("id" = String, Path, description = "The operation")),
)]
pub async fn cancel_bulk(
    State(edge): State<Edge>,
    caller: Caller,
    values: PathValues,
    JsonText(body): JsonText,
) -> Result<Answer<BulkView>, Refused<(Body, BulkError)>> {
    change(&edge, &caller, &values, &body, BulkState::Cancelled).await
}

async fn change(
    edge: &Edge,
    caller: &Caller,
    values: &PathValues,
    body: &str,
    state: BulkState,
) -> Result<Answer<BulkView>, Refused<(Body, BulkError)>> {
    wishes(body, &[], |_, _| ())?;
    let bulk = edge.gateway.change_bulk(&id(values)?, limited(caller).as_deref(), state).await?;
    Ok(Answer::of(&BulkView::of(&bulk)))
}

static REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

fn id(values: &PathValues) -> Result<String, Problem> {
    path_value(values, "id", |text| {
        text.parse::<uuid::Uuid>().map(|id| id.to_string()).map_err(|_| "is no UUID".to_owned())
    })
}

/// The owner filter: a token that is limited to some task names sees only its own operations.
fn limited(caller: &Caller) -> Option<String> {
    caller.visibility().is_limited().then(|| caller.id().unwrap_or_default())
}

fn request(problems: &mut Problems, fields: &Fields<'_>) -> (BulkRequest, bool) {
    let mut is_said = |name: &str| {
        let value = fields.get(name)?;
        problems.within(name, |problems| problems.boolean(value))
    };
    let (dry_run, include_succeeded, terminate) =
        (is_said("dry_run"), is_said("include_succeeded"), is_said("terminate"));
    let action = fields.get("action").and_then(json::text).and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let known = BulkAction::ALL.map(BulkAction::as_str).join(", ");
        problems.add_at("action", format!("must be one of {known}"));
        BulkAction::Dismiss
    });
    for (name, is_given, of) in [
        ("include_succeeded", include_succeeded.is_some(), BulkAction::Retry),
        ("terminate", terminate.is_some(), BulkAction::Revoke),
        ("reason", fields.get("reason").is_some(), BulkAction::Revoke),
    ] {
        if is_given && action != of {
            problems.add_at(name, format!("belongs to the action {}", of.as_str()));
        }
    }
    let request = BulkRequest {
        action,
        filter: filter(problems, fields),
        include_succeeded: include_succeeded.unwrap_or(false),
        terminate: terminate.unwrap_or(false),
        reason: fields.get("reason").and_then(|value| reason(problems, value)),
        interval: fields.get("rate").and_then(|value| problems.within("rate", |problems| interval(problems, value))),
        given: given(fields),
    };
    (request, dry_run.unwrap_or(false))
}

fn filter(problems: &mut Problems, fields: &Fields<'_>) -> Filter {
    let Some(value) = fields.get("filter") else {
        problems.add_at("filter", "is required: write {} for all tasks");
        return Filter::default();
    };
    let read = problems.within("filter", |problems| {
        let fields = problems.object(value)?;
        Some(body_filter(problems, &fields))
    });
    read.unwrap_or_default()
}

fn reason(problems: &mut Problems, value: &RawValue) -> Option<String> {
    problems.within("reason", |problems| {
        let text = problems.text(value)?;
        let fits = text.chars().count() <= MAX_REASON && !text.contains('\0');
        if !fits {
            problems.add(format!("must have at most {MAX_REASON} characters, without NUL"));
        }
        fits.then_some(text)
    })
}

/// Reads a rate: a number of tasks per second, or a text with a unit.
fn interval(problems: &mut Problems, value: &RawValue) -> Option<Duration> {
    if let Some(text) = json::text(value).filter(|_| value.get().starts_with('"')) {
        return Quota::parse(&text).map(|quota| quota.interval()).map_err(|wrong| problems.add(wrong)).ok();
    }
    let rate = problems.number(value, SLOWEST)?.min(FASTEST);
    Duration::try_from_secs_f64(1.0 / rate).ok()
}

/// The request as the client wrote it.
fn given(fields: &Fields<'_>) -> Box<RawValue> {
    let member = |name: &str| Some((name.to_owned(), fields.get(name)?));
    let kept: std::collections::BTreeMap<String, &RawValue> =
        ["filter", "rate", "include_succeeded", "terminate", "reason"].into_iter().filter_map(member).collect();
    serde_json::value::to_raw_value(&kept).expect("parts of JSON are JSON")
}
