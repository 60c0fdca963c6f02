//! Shared by all handlers that submit: the request's headers, and the answer in its three forms (202, 200 when the client waited for
//! the end, and a repeated earlier answer).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::openapi::schema::{AnyOfBuilder, Schema};
use utoipa::openapi::{Ref, RefOr, Response as Documented};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use crate::catalog::FanOut;
use crate::edge::answer::{Accepted, Answer as Done, IsAccepted, Kind, Typed, text};
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
use celery::task::limit::{Fair, KeyLimit};
use celery::task::signature::{Limits, Signature};
use celery::task::submission::Submission;
use runtime::heavy;

/// Seconds after which a client may ask for the result.
const RETRY_AFTER: &str = "1";
static REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
static APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The headers that a submission uses.
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

/// An answer in the form that the ledger keeps for repeated requests.
#[derive(Serialize, Deserialize)]
struct Kept {
    status: u16,
    location: String,
    body: Box<RawValue>,
}

/// Parses a body, a large one off the threads that answer other requests. Returns the text too, for its fingerprint.
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
) -> Result<SubmissionAnswer, Problem> {
    let request = SubmitRequest { trusted, ..SubmitRequest::new(submission) };
    send(edge, surroundings, request, body, shown).await
}

/// As [`submit`], for a request that the catalog has built.
pub async fn send(
    edge: &Edge,
    surroundings: Surroundings,
    mut request: SubmitRequest,
    body: &str,
    shown: Shown,
) -> Result<SubmissionAnswer, Problem> {
    let Surroundings { caller, prefer, repeatable, traceparent } = surroundings;
    if !request.trusted {
        namespace::enter(&mut request.submission, caller.namespace());
    }
    request.traceparent = traceparent.0;
    request.token = caller.id();
    request.visibility = caller.visibility();
    request.idempotency = idempotency(&caller, repeatable, body, shown.clone());
    let outcome = edge.gateway.submit(request).await.map_err(|error| caller.in_own_words(error));
    respond(edge, outcome, prefer.wait, shown).await
}

/// As [`submit`], for a fan-out.
pub async fn fan_out(
    edge: &Edge,
    surroundings: Surroundings,
    call: FanOut,
    wishes: (Vec<KeyLimit>, Option<Fair>, Vec<(String, String)>),
    body: &str,
    shown: Shown,
) -> Result<SubmissionAnswer, Problem> {
    let Surroundings { caller, prefer, repeatable, traceparent } = surroundings;
    let mut request = SubmitRequest::new(Submission::of(Signature::Group(Vec::new())));
    (request.submission.limits, request.submission.fair, request.submission.labels) = wishes;
    request.trusted = true;
    request.traceparent = traceparent.0;
    request.token = caller.id();
    request.visibility = caller.visibility();
    request.idempotency = idempotency(&caller, repeatable, body, shown.clone());
    respond(edge, edge.gateway.fan_out(call, request).await, prefer.wait, shown).await
}

/// The answer to a submission of any kind.
pub async fn respond(
    edge: &Edge,
    outcome: Result<Submitted, SubmitError>,
    wait: Duration,
    shown: Shown,
) -> Result<SubmissionAnswer, Problem> {
    match outcome {
        Ok(submitted) => accepted(edge, submitted, wait, shown).await,
        Err(SubmitError::Replay(answer)) => Ok(replay::<IsAccepted, AcceptedView>(&answer)?.into()),
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

/// Waits for the end if the client asked for it; answers 202 if it does not come in time.
async fn accepted(
    edge: &Edge,
    mut submitted: Submitted,
    wait: Duration,
    shown: Shown,
) -> Result<SubmissionAnswer, Problem> {
    let id = match (&submitted.task_id, &submitted.group_id) {
        (Some(id), _) => id.to_string(),
        (None, Some(id)) => id.to_string(),
        (None, None) => String::new(),
    };
    if !wait.is_zero() {
        // Boxed, because most submissions do not wait.
        match Box::pin(edge.gateway.find(&id, wait)).await {
            Ok(Found::Task(task)) if task.phase.is_final() => {
                return Ok(applied(Done::<ResultView<'static>>::lent(&ResultView::of(&task)), wait).into());
            }
            Ok(Found::Group(group)) if group.completed() >= group.total => {
                return Ok(applied(Done::<GroupView<'static>>::lent(&GroupView::of(&group)), wait).into());
            }
            Ok(Found::Task(task)) => {
                submitted.phase = task.phase;
                submitted.status.clone_from(&task.status);
            }
            // The task is accepted; an error while reading does not change that.
            Ok(_) | Err(_) => {}
        }
    }
    let view = AcceptedView::new(&submitted, shown);
    if submitted.joined {
        return Ok(applied(Done::of(&view).with(header::LOCATION, &view.links.this), wait).into());
    }
    Ok(applied(accepted_task(&view, &view.links.this), wait).into())
}

/// The 202 answer with the task's location.
pub fn accepted_task<T: Serialize>(view: &T, place: &str) -> Accepted<T> {
    Accepted::of(view).with(header::LOCATION, place).with(header::RETRY_AFTER, RETRY_AFTER)
}

/// The answer to a submission: 202; 200 when it finished while its caller waited, or `unique` joined it to another task.
pub struct SubmissionAnswer(Response);

impl SubmissionAnswer {
    /// Whether an earlier request was answered with this.
    pub fn is_replay(&self) -> bool {
        self.0.headers().contains_key(&REPLAYED)
    }
}

impl IntoResponse for SubmissionAnswer {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<K, T> From<Typed<K, T>> for SubmissionAnswer {
    fn from(answer: Typed<K, T>) -> Self {
        Self(answer.into_response())
    }
}

impl IntoResponses for SubmissionAnswer {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        let mut responses = Accepted::<AcceptedView>::responses();
        responses.extend(Done::<SubmissionEnd>::responses());
        responses
    }
}

/// The 200 answer to a submission: the end, or the task that it joined, which may be of another kind than the submission.
struct SubmissionEnd;

impl PartialSchema for SubmissionEnd {
    fn schema() -> RefOr<Schema> {
        let shapes = [ResultView::name(), GroupView::name(), AcceptedView::name()];
        let shapes = shapes.into_iter().fold(AnyOfBuilder::new(), |all, shape| all.item(Ref::from_schema_name(shape)));
        shapes.description(Some("Finished while its caller waited, or joined by `unique`")).into()
    }
}

impl ToSchema for SubmissionEnd {
    fn name() -> Cow<'static, str> {
        "SubmissionEnd".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        ResultView::schemas(schemas);
        GroupView::schemas(schemas);
        AcceptedView::schemas(schemas);
    }
}

/// The first answer, repeated.
pub(super) fn replay<K: Kind, T>(kept: &RawValue) -> Result<Typed<K, T>, Problem> {
    let kept: Kept = serde_json::from_str(kept.get())
        .map_err(|error| Problem::new(&crate::edge::slugs::INTERNAL).caused_by(error))?;
    let answer = Typed::written(kept.body.get().to_owned());
    Ok(answer.with(header::LOCATION, &kept.location).with(header::RETRY_AFTER, RETRY_AFTER).with(&REPLAYED, "true"))
}

/// Adds `Preference-Applied`, so that a client sees which wait was applied.
fn applied<K: Kind, T>(answer: Typed<K, T>, wait: Duration) -> Typed<K, T> {
    if wait.is_zero() { answer } else { answer.with(&APPLIED, &format!("wait={}", wait.as_secs())) }
}

/// Splits a request into the headers that a submission uses and the rest with the body.
pub async fn surroundings(edge: &Edge, request: Request) -> Result<(Surroundings, Request), Problem> {
    let (mut parts, body) = request.into_parts();
    let surroundings = Surroundings::from_request_parts(&mut parts, edge).await?;
    Ok((surroundings, Request::from_parts(parts, body)))
}
