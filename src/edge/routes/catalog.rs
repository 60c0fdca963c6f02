//! The catalog's endpoints: one route for each entry that has one.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::response::Response;
use axum::routing::post;

use super::submission::{Shown, fan_out, submit, surroundings};
use crate::catalog::{Catalog, Entry};
use crate::edge::extract::{JsonText, PathValues};
use crate::edge::problem::Problem;
use crate::edge::state::Edge;
use celery::task::signature::{Signature, TaskSignature};
use celery::task::submission::Submission;
use runtime::heavy;

/// Routes that no two entries share: the catalog has refused such at start.
pub fn router(catalog: &Catalog) -> Router<Edge> {
    let mut router = Router::new();
    for entry in catalog.entries() {
        if let Some(endpoint) = &entry.endpoint {
            let entry = Arc::clone(entry);
            let handler =
                move |State(edge): State<Edge>, request: Request| async move { call(&edge, &entry, request).await };
            router = router.route(&endpoint.path, post(handler));
        }
    }
    router
}

async fn call(edge: &Edge, entry: &Arc<Entry>, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let PathValues(path) = PathValues::from_request_parts(&mut parts, edge).await?;
    let (surroundings, request) = surroundings(edge, Request::from_parts(parts, body)).await?;
    let JsonText(body) = JsonText::from_request(request, edge).await?;
    let judge = Arc::clone(entry);
    let (call, body) = heavy::run(body.len(), move || (judge.resolve(&path, &body), body)).await;
    let call = call?;
    let shown = Shown { message: call.message, echo: call.echo };
    if let Some(many) = call.fan_out {
        return fan_out(edge, surroundings, many, call.limits, &body, shown).await;
    }
    let mut task = TaskSignature::new(entry.name.clone(), call.args, call.kwargs);
    task.queue = call.queue;
    let mut submission = Submission::of(Signature::Task(Box::new(task)));
    submission.limits = call.limits;
    submit(edge, surroundings, submission, &body, true, shown).await
}
