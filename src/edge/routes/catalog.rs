//! The catalog's routes: an endpoint for each entry that has one, and a stream for each entry whose tasks are followed by labels.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::response::Response;
use axum::routing::{get, post};

use super::events::{Follow, follow_newest};
use super::submission::{Shown, SubmissionAnswer, Surroundings, fan_out, send, submit, surroundings};
use super::upload::{Received, receive};
use crate::catalog::{Catalog, Entry};
use crate::edge::extract::{Caller, JsonText, PathValues, without_body};
use crate::edge::problem::Problem;
use crate::edge::state::Edge;
use crate::reconcile::uploads::LABEL;
use crate::usecase::submit::SubmitRequest;
use celery::task::signature::{Signature, TaskSignature};
use celery::task::submission::Submission;
use runtime::heavy;

/// The routes. No two entries share a route; the catalog refuses that at start.
pub fn router(catalog: &Catalog) -> Router<Edge> {
    let mut router = Router::new();
    for entry in catalog.entries() {
        if let Some(endpoint) = &entry.endpoint {
            let entry = Arc::clone(entry);
            let handler =
                move |State(edge): State<Edge>, request: Request| async move { call(&edge, &entry, request).await };
            router = router.route(&endpoint.path, post(handler));
        }
        if let Some(stream) = &entry.stream {
            let entry = Arc::clone(entry);
            let handler =
                move |State(edge): State<Edge>, request: Request| async move { follow(&edge, &entry, request).await };
            router = router.route(&stream.at.path, get(handler));
        }
    }
    router
}

async fn call(edge: &Edge, entry: &Arc<Entry>, request: Request) -> Result<SubmissionAnswer, Problem> {
    let (mut parts, body) = request.into_parts();
    let PathValues(path) = PathValues::from_request_parts(&mut parts, edge).await?;
    let (surroundings, request) = surroundings(edge, Request::from_parts(parts, body)).await?;
    if entry.upload.is_some() {
        return call_with_file(edge, entry, path, surroundings, request).await;
    }
    let refused = |problem| if entry.body.is_some() { problem } else { without_body(problem) };
    let JsonText(body) = JsonText::from_request(request, edge).await.map_err(refused)?;
    resolved(edge, entry, surroundings, Said { path, body, ..Said::default() }).await
}

/// Refuses whatever can be refused without the file, before it is read.
async fn call_with_file(
    edge: &Edge,
    entry: &Arc<Entry>,
    path: Vec<(String, String)>,
    surroundings: Surroundings,
    request: Request,
) -> Result<SubmissionAnswer, Problem> {
    let upload = entry.upload.as_ref().expect("the caller has looked");
    entry.check_path(&path)?;
    edge.gateway.check_caller(entry, &surroundings.caller.visibility())?;
    let is_repeatable = surroundings.repeatable.key.is_some();
    let Received { body, told, digest, file } = receive(edge, entry, upload, request, is_repeatable).await?;
    let said = Said { path, body, told, digest, upload: Some(file.id().to_owned()) };
    let outcome = resolved(edge, entry, surroundings, said).await;
    // A repeated request has sent its file a second time. After an error of the ledger its task may be committed: the sweep decides.
    let is_refused = |problem: &Problem| problem.status().is_client_error();
    if outcome.as_ref().map_or_else(is_refused, SubmissionAnswer::is_replay) {
        file.discard().await;
    }
    outcome
}

/// The data of a request, from JSON or from a form.
#[derive(Default)]
struct Said {
    path: Vec<(String, String)>,
    body: String,
    told: Vec<(String, String)>,
    digest: String,
    /// The id of the file's upload.
    upload: Option<String>,
}

async fn resolved(
    edge: &Edge,
    entry: &Arc<Entry>,
    surroundings: Surroundings,
    said: Said,
) -> Result<SubmissionAnswer, Problem> {
    let Said { path, body, told, digest, upload } = said;
    let judge = Arc::clone(entry);
    let (call, body) = heavy::run(body.len(), move || (judge.resolve_with(&path, &body, &told), body)).await;
    let (mut call, body) = (call?, body + &digest);
    call.labels.extend(upload.map(|id| (LABEL.to_owned(), id)));
    let shown = Shown { message: call.message, echo: call.echo, answer: call.answer };
    if let Some(many) = call.fan_out {
        return fan_out(edge, surroundings, many, (call.limits, call.fair, call.labels), &body, shown).await;
    }
    if let Some(canvas) = call.canvas {
        let mut submission = Submission { labels: call.labels, limits: call.limits, ..Submission::of(canvas) };
        submission.unique = call.unique;
        let request = SubmitRequest {
            trusted: true,
            whole: true,
            on_failure: entry.defaults.on_failure.clone(),
            ..SubmitRequest::new(submission)
        };
        return send(edge, surroundings, request, &body, shown).await;
    }
    let mut task = TaskSignature::new(entry.name.clone(), call.args, call.kwargs);
    (task.link, task.link_error) = (call.links.after_success, call.links.after_failure);
    (task.queue, task.labels) = (call.queue, call.labels);
    let mut submission = Submission::of(Signature::Task(Box::new(task)));
    (submission.limits, submission.fair, submission.unique) = (call.limits, call.fair, call.unique);
    submit(edge, surroundings, submission, &body, true, shown).await
}

async fn follow(edge: &Edge, entry: &Entry, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let PathValues(path) = PathValues::from_request_parts(&mut parts, edge).await?;
    let caller = Caller::from_request_parts(&mut parts, edge).await?;
    let labels = entry.stream.as_ref().map(|stream| stream.labels(&path)).unwrap_or_default();
    follow_newest(edge, &caller, labels, Follow::of(&parts.headers)?).await
}
