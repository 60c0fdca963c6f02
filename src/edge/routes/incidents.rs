//! `/v1/incidents`: open and closed incidents, acknowledged and muted by people.

use std::time::Duration;

use axum::extract::{OriginalUri, State};
use serde::Deserialize;
use utoipa::ToSchema;

use super::tasks::linked;
use crate::edge::answer::{Answer, Body, Page, Query, Refused};
use crate::edge::cursor;
use crate::edge::extract::{Caller, JsonText, NoBody, PathValues, page_query, path_value, wishes};
use crate::edge::middleware::audit::Remark;
use crate::edge::problem::Problem;
use crate::edge::state::Edge;
use crate::edge::view::{IncidentHistoryView, IncidentListView, IncidentView};
use crate::usecase::incidents::{IncidentError, LONGEST_MUTE};
use celery::task::invalid::Problems;
use celery::task::json::Fields;
use celery::task::submission::member;
use ledger::{Cursor, KeptIncident};
use runtime::clock::{self, Time};

/// How long the list waits for the ledger: open incidents must also be shown while the ledger is down.
const LEDGER_PATIENCE: Duration = Duration::from_secs(1);

/// How long an incident is muted: one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = IncidentMute)]
#[expect(dead_code, reason = "only the contract reads it: the body is read with its places")]
pub struct MuteBody {
    /// At most 30 days from now.
    #[schema(format = DateTime, example = "2030-01-01T08:00:00Z")]
    until: Option<String>,
    /// From now: 1 to 2,592,000 (30 days).
    #[schema(minimum = 1, maximum = 2_592_000, example = 3600)]
    seconds: Option<f64>,
}

/// Open incidents
///
/// Workers that are alive and take nothing, queues that no worker serves, tasks over their budget, an outbox that does not drain. A
/// closed incident is in the history.
#[utoipa::path(get, path = "/v1/incidents", tag = "operation", operation_id = "list_incidents")]
pub async fn list_incidents(State(edge): State<Edge>) -> Answer<IncidentListView> {
    let kept = tokio::time::timeout(LEDGER_PATIENCE, edge.gateway.open_incidents()).await;
    let kept = kept.ok().and_then(Result::ok).unwrap_or_default();
    let now = clock::now();
    // A gateway that only reads detects nothing itself.
    let incidents = if edge.reads_only {
        kept.into_iter().map(|incident| IncidentView::of(incident, now)).collect()
    } else {
        edge.incidents.all().into_iter().map(|incident| IncidentView::found(incident, &kept, now)).collect()
    };
    Answer::of(&IncidentListView { incidents })
}

/// Closed incidents
///
/// Closed incidents, newest first, with who acknowledged them. They are kept for 90 days.
#[utoipa::path(
    get, path = "/v1/incidents/history", tag = "operation", operation_id = "incident_history",
    params(
        ("limit" = Option<u16>, Query, description = "1 to 500, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
)]
pub async fn incident_history(
    State(edge): State<Edge>,
    OriginalUri(uri): OriginalUri,
) -> Result<Page<IncidentHistoryView>, Refused<(Query, ledger::Error)>> {
    let page = page_query(&uri)?;
    let (past, next) = edge.gateway.past_incidents(page.after.map(|Cursor(no)| no), page.limit).await?;
    let now = clock::now();
    let next = next.map(|no| cursor::write(Cursor(no)));
    let incidents = past.into_iter().map(|incident| IncidentView::of(incident, now)).collect();
    let view = IncidentHistoryView { incidents, next };
    Ok(linked(Page::of(&view), &uri, view.next.as_deref()))
}

/// Acknowledge an incident
///
/// Records the caller as the person who looks after it, in place of an earlier one. It stays open until its cause is gone.
#[utoipa::path(
    post, path = "/v1/incidents/{id}/ack", tag = "control", operation_id = "acknowledge_incident",
    params(("id" = String, Path, description = "The incident's id")),
)]
pub async fn acknowledge_incident(
    State(edge): State<Edge>,
    caller: Caller,
    path: PathValues,
    JsonText(body): JsonText,
) -> Result<Answer<IncidentView>, Refused<(Body, IncidentError)>> {
    wishes(&body, &[], |_, _| ())?;
    let id = id(&path)?;
    Ok(noted(edge.gateway.acknowledge_incident(&id, caller.shown(), is_found(&edge, &id)).await?))
}

/// Mute an incident
///
/// For a while no notices of this kind and subject are sent (`[[notify]]`, webhooks with `incident`), neither of its end nor of a new
/// beginning. It stays on the list.
#[utoipa::path(
    post, path = "/v1/incidents/{id}/mute", tag = "control", operation_id = "mute_incident",
    params(("id" = String, Path, description = "The incident's id")),
    request_body(content = MuteBody, content_type = "application/json"),
)]
pub async fn mute_incident(
    State(edge): State<Edge>,
    path: PathValues,
    JsonText(body): JsonText,
) -> Result<Answer<IncidentView>, Refused<(Body, IncidentError)>> {
    let id = id(&path)?;
    let now = clock::now();
    let until = wishes(&body, &["until", "seconds"], |problems, fields| end_of_silence(problems, fields, now))?;
    Ok(noted(edge.gateway.mute_incident(&id, until, is_found(&edge, &id)).await?))
}

/// Unmute an incident
///
/// Notices are sent again. An incident that is not muted stays as it is.
#[utoipa::path(
    delete, path = "/v1/incidents/{id}/mute", tag = "control", operation_id = "unmute_incident",
    params(("id" = String, Path, description = "The incident's id")),
)]
pub async fn unmute_incident(
    State(edge): State<Edge>,
    path: PathValues,
    _: NoBody,
) -> Result<Answer<IncidentView>, Refused<IncidentError>> {
    let id = id(&path)?;
    Ok(noted(edge.gateway.mute_incident(&id, None, is_found(&edge, &id)).await?))
}

fn id(path: &PathValues) -> Result<String, Problem> {
    let is_id =
        |text: &str| !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    path_value(path, "id", |text| is_id(text).then(|| text.to_owned()).ok_or("is no id of an incident"))
}

fn is_found(edge: &Edge, id: &str) -> bool {
    edge.incidents.all().iter().any(|incident| incident.id() == id)
}

/// The answer, with the incident's name in the audit.
fn noted(kept: KeptIncident) -> Answer<IncidentView> {
    let detail = format!("{} of {}", kept.found.kind, kept.found.subject);
    Answer::of(&IncidentView::of(kept, clock::now())).noting(Remark { verdict: None, detail: Some(detail) })
}

fn end_of_silence(problems: &mut Problems, fields: &Fields<'_>, now: Time) -> Option<Time> {
    let longest = now.plus(LONGEST_MUTE);
    let until = member(problems, fields, "until", |problems, value| {
        let at = problems.text(value).and_then(|text| Time::parse_rfc3339(&text).ok());
        let fits = at.filter(|at| *at > now && *at <= longest);
        if fits.is_none() {
            problems.add("must be a time with a zone, as 2030-01-01T08:00:00Z, within the next 30 days");
        }
        fits
    });
    let seconds = member(problems, fields, "seconds", |problems, value| {
        let span = problems.number(value, 1.0).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        if span.is_some_and(|span| span > LONGEST_MUTE) {
            problems.add("must be at most 2592000 (30 days)");
        }
        span
    });
    if fields.get("until").is_some() == fields.get("seconds").is_some() {
        problems.add("must say until or seconds, one of the two");
    }
    until.or(seconds.map(|span| now.plus(span.min(LONGEST_MUTE))))
}
