//! What all submitting handlers share: the request's surroundings, and the answer with its three shapes (202, 200 when it was
//! waited for, and the repetition of an earlier answer).

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::catalog::FanOut;
use crate::edge::extract::{Caller, Prefer, Repeatable, Traceparent, fingerprint};
use crate::edge::problem::Problem;
use crate::edge::state::Edge;
pub use crate::edge::view::Shown;
use crate::edge::view::{AcceptedView, GroupView, ResultView};
use crate::guard::namespace;
use crate::usecase::read::Found;
use crate::usecase::submit::{Answer, Idempotency, SubmitError, SubmitRequest, Submitted};
use celery::task::Invalid;
use celery::task::json;
use celery::task::signature::{Limits, Signature};
use celery::task::submission::{KeyLimit, Submission};
use runtime::heavy;

/// Seconds after which a client may ask for the result.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");
static REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The headers that a submission heeds.
pub struct Surroundings {
    pub(super) caller: Caller,
    pub(super) prefer: Prefer,
    pub(super) repeatable: Repeatable,
    pub(super) traceparent: Traceparent,
}

impl FromRequestParts<Edge> for Surroundings {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Problem> {
        let Ok(traceparent) = Traceparent::from_request_parts(parts, edge).await;
        Ok(Self {
            caller: Caller::from_request_parts(parts, edge).await?,
            prefer: Prefer::from_request_parts(parts, edge).await?,
            repeatable: Repeatable::from_request_parts(parts, edge).await?,
            traceparent,
        })
    }
}

/// An answer as the ledger keeps it for repetitions.
#[derive(Serialize, Deserialize)]
struct Kept {
    status: u16,
    location: String,
    body: Box<RawValue>,
}

/// Reads a body, large ones away from the threads that answer others. The text comes back for its fingerprint.
pub async fn parsed(
    edge: &Edge,
    body: String,
    read: fn(&str, Limits) -> Result<Submission, Vec<Invalid>>,
) -> Result<(Submission, String), Problem> {
    let limits = edge.gateway.signature_limits();
    let (found, body) = heavy::run(body.len(), move || (read(&body, limits), body)).await;
    Ok((found.map_err(Problem::invalid)?, body))
}

/// Submits and answers. `trusted` submissions come from the catalog.
pub async fn submit(
    edge: &Edge,
    surroundings: Surroundings,
    submission: Submission,
    body: &str,
    trusted: bool,
    shown: Shown,
) -> Result<Response, Problem> {
    let request = SubmitRequest { trusted, ..SubmitRequest::new(submission) };
    send(edge, surroundings, request, body, shown).await
}

/// As [`submit`], for a request that the catalog has made.
pub async fn send(
    edge: &Edge,
    surroundings: Surroundings,
    mut request: SubmitRequest,
    body: &str,
    shown: Shown,
) -> Result<Response, Problem> {
    let Surroundings { caller, prefer, repeatable, traceparent } = surroundings;
    if !request.trusted {
        namespace::enter(&mut request.submission, caller.namespace());
    }
    request.traceparent = traceparent.0;
    request.token = caller.id();
    request.visibility = caller.visibility();
    request.idempotency = idempotency(&caller, repeatable, body, shown.clone());
    respond(edge, edge.gateway.submit(request).await, prefer.wait, shown).await
}

/// As [`submit`], for one call that becomes many.
pub async fn fan_out(
    edge: &Edge,
    surroundings: Surroundings,
    call: FanOut,
    wishes: (Vec<KeyLimit>, Vec<(String, String)>),
    body: &str,
    shown: Shown,
) -> Result<Response, Problem> {
    let Surroundings { caller, prefer, repeatable, traceparent } = surroundings;
    let mut request = SubmitRequest::new(Submission::of(Signature::Group(Vec::new())));
    (request.submission.limits, request.submission.labels) = wishes;
    request.trusted = true;
    request.traceparent = traceparent.0;
    request.token = caller.id();
    request.visibility = caller.visibility();
    request.idempotency = idempotency(&caller, repeatable, body, shown.clone());
    respond(edge, edge.gateway.fan_out(call, request).await, prefer.wait, shown).await
}

/// Answers to a submission, however it was made.
pub async fn respond(
    edge: &Edge,
    outcome: Result<Submitted, SubmitError>,
    wait: Duration,
    shown: Shown,
) -> Result<Response, Problem> {
    match outcome {
        Ok(submitted) => accepted(edge, submitted, wait, shown).await,
        Err(SubmitError::Replay(answer)) => replay(&answer),
        Err(error) => Err(error.into()),
    }
}

pub fn idempotency(caller: &Caller, repeatable: Repeatable, body: &str, shown: Shown) -> Option<Idempotency> {
    let Repeatable { key, method, path } = repeatable;
    key.map(|key| Idempotency {
        scope: caller.keys(""),
        key,
        fingerprint: fingerprint(&method, &path, body),
        answer: Answer::new(move |submitted| {
            let view = AcceptedView::new(submitted, shown);
            let kept = Kept { status: 202, location: view.links.this.clone(), body: json::written(text(&view)) };
            json::written(text(&kept))
        }),
    })
}

/// Waits for the end if the client wants to; answers 202 when it does not come in time.
async fn accepted(edge: &Edge, mut submitted: Submitted, wait: Duration, shown: Shown) -> Result<Response, Problem> {
    let id = match (&submitted.task_id, &submitted.group_id) {
        (Some(id), _) => id.to_string(),
        (None, Some(id)) => id.to_string(),
        (None, None) => String::new(),
    };
    if !wait.is_zero() {
        match edge.gateway.find(&id, wait).await {
            Ok(Found::Task(task)) if task.phase.is_final() => {
                return Ok(waited(StatusCode::OK, text(&ResultView::of(&task)), wait));
            }
            Ok(Found::Group(group)) if group.completed() >= group.total => {
                return Ok(waited(StatusCode::OK, text(&GroupView::of(&group)), wait));
            }
            Ok(Found::Task(task)) => {
                submitted.phase = task.phase;
                submitted.status.clone_from(&task.status);
            }
            // It is accepted: whatever is wrong with reading now does not undo that.
            Ok(_) | Err(_) => {}
        }
    }
    let status = if submitted.joined { StatusCode::OK } else { StatusCode::ACCEPTED };
    let view = AcceptedView::new(&submitted, shown);
    let mut response = answer(status, text(&view), &view.links.this);
    if !wait.is_zero() {
        applied(&mut response, wait);
    }
    Ok(response)
}

pub(super) fn replay(kept: &RawValue) -> Result<Response, Problem> {
    let kept: Kept = serde_json::from_str(kept.get())
        .map_err(|error| Problem::new(&crate::edge::slugs::INTERNAL).caused_by(error))?;
    let status = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::ACCEPTED);
    let mut response = answer(status, kept.body.get().to_owned(), &kept.location);
    response.headers_mut().insert(&REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

pub(super) fn answer(status: StatusCode, body: String, location: &str) -> Response {
    let mut response = json_response(status, body);
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(location) {
        headers.insert(header::LOCATION, location);
    }
    if status == StatusCode::ACCEPTED {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

fn waited(status: StatusCode, body: String, wait: Duration) -> Response {
    let mut response = json_response(status, body);
    applied(&mut response, wait);
    response
}

/// `Preference-Applied`, so that a client sees how long was really waited.
fn applied(response: &mut Response, wait: Duration) {
    let value = format!("wait={}", wait.as_secs());
    if let Ok(value) = HeaderValue::from_str(&value) {
        response.headers_mut().insert("preference-applied", value);
    }
}

pub fn json_response(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub fn text(view: &impl Serialize) -> String {
    serde_json::to_string(view).expect("a view is JSON")
}

/// Splits a request into the headers that a submission heeds and the rest, which has the body.
pub async fn surroundings(edge: &Edge, request: Request) -> Result<(Surroundings, Request), Problem> {
    let (mut parts, body) = request.into_parts();
    let surroundings = Surroundings::from_request_parts(&mut parts, edge).await?;
    Ok((surroundings, Request::from_parts(parts, body)))
}
