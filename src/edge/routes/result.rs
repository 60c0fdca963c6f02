//! `GET /result/{id}`: what became of a task or a group.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use sha2::{Digest, Sha256};

use super::submission::{json_response, text};
use crate::edge::extract::{Caller, IdPath, IfNoneMatch, Prefer};
use crate::edge::problem::{Problem, ProblemDocument};
use crate::edge::slugs;
use crate::edge::state::Edge;
use crate::edge::view::{GroupView, ResultView};
use crate::usecase::read::Found;
use runtime::clock::Time;

/// The result of a task or group
///
/// 200 when it is finished, 202 while it is not. With `Prefer: wait=N` the answer waits up to N seconds for the end.
#[utoipa::path(
    get, path = "/result/{id}", tag = "results", operation_id = "get_result",
    params(
        ("id" = String, Path, description = "A task's or a group's id"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds (at most 60) for the end", example = "wait=10"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` of an earlier answer"),
    ),
    responses(
        (status = 200, description = "Finished", body = ResultView, headers(("ETag" = String, description = "Changes with every change of the task"))),
        (status = 202, description = "Not yet", body = ResultView, headers(("Retry-After" = u64, description = "Seconds"))),
        (status = 304, description = "As you have it"),
        (status = 400, description = "The id cannot be one", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "This ledger never saw the id", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 410, description = "Pruned", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn get_result(
    State(edge): State<Edge>,
    caller: Caller,
    IdPath(id): IdPath,
    prefer: Prefer,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    match edge.gateway.find_for(&caller.visibility(), id.as_str(), prefer.wait).await? {
        Found::Task(task) => {
            let etag = format!("\"{}\"", task.seq);
            if known.has(&etag) {
                return Ok(not_modified(&etag));
            }
            Ok(found(task.phase.is_final(), text(&ResultView::of(&task)), &etag))
        }
        Found::Group(group) => {
            let body = text(&GroupView::of(&group));
            let etag = etag_of(&body);
            if known.has(&etag) {
                return Ok(not_modified(&etag));
            }
            Ok(found(group.completed() >= group.total, body, &etag))
        }
        Found::Pruned(at) => Err(pruned(id.as_str(), at)),
        Found::Unknown => Err(unknown(id.as_str())),
    }
}

fn found(ready: bool, body: String, etag: &str) -> Response {
    let status = if ready { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = with_etag(json_response(status, body), etag);
    if !ready {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(Duration::from_secs(1).as_secs()));
    }
    response
}

pub fn with_etag(mut response: Response, etag: &str) -> Response {
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(etag) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response
}

pub fn not_modified(etag: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    with_etag(response, etag)
}

/// For answers whose parts change without a common number.
pub fn etag_of(body: &str) -> String {
    let hash = Sha256::digest(body);
    let hex: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

pub fn unknown(id: &str) -> Problem {
    Problem::new(&slugs::TASK_NOT_FOUND).detail(format!("this ledger never saw {id}"))
}

pub fn pruned(id: &str, finished_at: Time) -> Problem {
    let at = finished_at.rfc3339();
    Problem::new(&slugs::TASK_PRUNED).detail(format!("{id} was finished at {at} and is pruned since"))
}
