//! The paths of `[[hooks]]`: signed events of other systems become tasks, each event exactly one.
//!
//! The signature is verified before the body is parsed. The task's id is derived from the path and the id of the delivery, so a
//! repeated event finds its task as long as the ledger remembers it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http_body_util::{BodyExt, Limited};
use tracing::info;
use uuid::Uuid;

use super::submission::Shown;
use crate::catalog::{Catalog, Hook, Scheme, SignedEvent, Source, digest, inside};
use crate::edge::answer::{Accepted, Answer};
use crate::edge::extract::json_text;
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;
use crate::edge::view::AcceptedView;
use crate::usecase::submit::{SubmitError, SubmitRequest};
use celery::extended;
use celery::task::{Invalid, Json, Signature, Submission, TaskId, TaskSignature, json};
use runtime::clock;

/// The longest id of a delivery that is used unchanged.
const MAX_DELIVERY: usize = 255;

/// A route for each entry.
pub fn router(catalog: &Catalog) -> Router<Edge> {
    let mut router = Router::new();
    for hook in catalog.hooks() {
        let here = Arc::clone(hook);
        let handler =
            move |State(edge): State<Edge>, request: Request| async move { receive(&edge, &here, request).await };
        router = router.route(&hook.path, post(handler));
    }
    router
}

async fn receive(edge: &Edge, hook: &Hook, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let bytes = match tokio::time::timeout(edge.http.request_timeout, read(body, hook.max_body)).await {
        Ok(bytes) => bytes?,
        Err(_) => return Err(Problem::new(&slugs::REQUEST_TIMEOUT)),
    };
    let secrets: Vec<&str> = hook.secrets.iter().map(|secret| secret.reveal()).collect();
    let named = {
        let event = SignedEvent { header: &|name: &str| single_header(&head.headers, name), body: &bytes };
        let signed = hook.scheme.verify(&secrets, &event, clock::now(), hook.tolerance);
        signed.map_err(|why| Problem::new(&slugs::INVALID_SIGNATURE).detail(why.to_string()))?
    };
    let fingerprint = digest(&bytes);
    let body = json::verbatim(json_text(bytes, &edge.limits)?)
        .map_err(|error| Problem::new(&slugs::INVALID_JSON).detail(error.to_string()))?;
    if let Some(challenge) = challenge(hook.scheme, &body) {
        let body = format!("{{\"challenge\": {}}}", challenge.get());
        return Ok(Answer::<AcceptedView>::written(body).into_response());
    }
    let delivery = named.or_else(|| delivery(hook.scheme, &body)).filter(|id| (1..=MAX_DELIVERY).contains(&id.len()));
    let delivery = delivery.unwrap_or(fingerprint);
    let task = {
        let header = |name: &str| single_header(&head.headers, name);
        hook.call(&Source { header: &header, body: &body, delivery: &delivery })
    };
    refuse_unreadable(&task, edge.limits.json_types)?;
    submit(edge, hook, task, &delivery).await
}

/// A sender's data go into the arguments unchanged, so data that no worker could decode are refused here.
fn refuse_unreadable(task: &TaskSignature, json_types: &[&str]) -> Result<(), Problem> {
    let parts = [("/args", &task.args), ("/kwargs", &task.kwargs)];
    let refused = parts.into_iter().find_map(|(at, json)| Some((at, extended::refused(json.get(), json_types)?)));
    let Some((at, refused)) = refused else { return Ok(()) };
    let pointer = format!("{at}{}", refused.at());
    Err(Problem::invalid(vec![Invalid { pointer, detail: refused.why }]))
}

async fn submit(edge: &Edge, hook: &Hook, mut task: TaskSignature, delivery: &str) -> Result<Response, Problem> {
    let name = format!("{} {delivery}", hook.path);
    let id = TaskId::from(Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()));
    task.task_id = Some(id.clone());
    let mut request = SubmitRequest::new(Submission::of(Signature::Task(Box::new(task))));
    // The configuration names the task, but the rules of its catalog entry still apply.
    request.trusted = edge.catalog.entry(hook.task.as_str()).is_none();
    match edge.gateway.submit(request).await {
        // Its entry's unique key let it join another event's task.
        Ok(submitted) if submitted.joined => {
            let view = AcceptedView::new(&submitted, Shown::default());
            Ok(Answer::of(&view).with(header::LOCATION, &view.links.this).into_response())
        }
        Ok(submitted) => {
            let view = AcceptedView::new(&submitted, Shown::default());
            Ok(Accepted::of(&view).with(header::LOCATION, &view.links.this).into_response())
        }
        Err(SubmitError::IdTaken { .. }) => {
            info!(task.id = %id, "the event {delivery} of {} was received again", hook.path);
            let submitted = edge.gateway.known(&id).await?;
            let view = AcceptedView::new(&submitted, Shown::default());
            Ok(Answer::of(&view).with(header::LOCATION, &view.links.this).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

async fn read(body: Body, limit: usize) -> Result<Vec<u8>, Problem> {
    match Limited::new(body, limit).collect().await {
        Ok(whole) => Ok(whole.to_bytes().to_vec()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Problem::new(&slugs::PAYLOAD_TOO_LARGE).detail(format!("the limit of this path is {limit} bytes")))
        }
        Err(error) => Err(Problem::new(&slugs::MALFORMED_REQUEST).detail(format!("the body did not arrive: {error}"))),
    }
}

/// The header of this name. Two of them count as none, because it is unclear which one was signed.
fn single_header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let value = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(value)
}

/// The answer to Slack's URL verification.
fn challenge(scheme: Scheme, body: &Json) -> Option<Json> {
    let is_question = scheme == Scheme::Slack && inside(body, "type").and_then(json::text)? == "url_verification";
    inside(body, "challenge").filter(|_| is_question).map(ToOwned::to_owned)
}

/// The id of the delivery, if the body has it.
fn delivery(scheme: Scheme, body: &Json) -> Option<String> {
    match scheme {
        Scheme::Stripe => inside(body, "id").and_then(json::text),
        Scheme::Slack => inside(body, "event_id").and_then(json::text),
        Scheme::Standard | Scheme::GitHub => None,
    }
}
