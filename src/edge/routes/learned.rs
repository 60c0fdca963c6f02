//! `POST /tasks/{name}`: an endpoint for each task in `learn` that a worker has reported. The body is an object of its arguments by name.

use axum::Router;
use axum::extract::{FromRequest, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use super::submission::{Shown, submit, surroundings};
use crate::edge::extract::{Caller, JsonText};
use crate::edge::problem::{Place, Problem};
use crate::edge::slugs;
use crate::edge::state::Edge;
use celery::task::signature::{Signature, TaskSignature};
use celery::task::submission::Submission;
use celery::task::{Invalid, TaskName, json};

pub const ROUTE: &str = "/tasks/{name}";

pub fn router() -> Router<Edge> {
    Router::new().route(ROUTE, post(call))
}

async fn call(
    State(edge): State<Edge>,
    caller: Caller,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let unknown =
        || Problem::new(&slugs::ROUTE_NOT_FOUND).detail(format!("no worker has told of a task {name} to learn"));
    // A foreign task is as unknown as one that does not exist.
    let known = edge.gateway.learned(&name).filter(|_| caller.visibility().sees(Some(&name))).ok_or_else(unknown)?;
    let task = TaskName::parse(&name).map_err(|_| unknown())?;
    let (surroundings, request) = surroundings(&edge, request).await?;
    let JsonText(body) = JsonText::from_request(request, &edge).await?;
    let text = if body.is_empty() { "{}".to_owned() } else { body.clone() };
    let kwargs = json::verbatim(text).map_err(|_| refused("is not JSON"))?;
    if !kwargs.get().trim_start().starts_with('{') {
        return Err(refused("must be an object of the task's arguments by name"));
    }
    let misfit = known.check_names(&kwargs).into_iter();
    let misfit: Vec<Place> = misfit.map(|fault| Place { pointer: fault.pointer, detail: fault.detail }).collect();
    if !misfit.is_empty() {
        return Err(of_the_body(Problem::misfit(misfit)));
    }
    let signature = TaskSignature::new(task, json::written("[]".to_owned()), kwargs);
    let submission = Submission::of(Signature::Task(Box::new(signature)));
    let answer = submit(&edge, surroundings, submission, &body, false, Shown::default()).await;
    Ok(answer.map_err(of_the_body)?.into_response())
}

/// The body is the call's `kwargs`, so a fault is reported with its place in the body.
fn of_the_body(problem: Problem) -> Problem {
    if problem.slug().name != slugs::INVALID_REQUEST.name {
        return problem;
    }
    let inside = |place: &Place| Place {
        pointer: place.pointer.strip_prefix("/kwargs").unwrap_or(&place.pointer).to_owned(),
        detail: place.detail.clone(),
    };
    Problem::misfit(problem.places().iter().map(inside).collect())
}

fn refused(detail: &str) -> Problem {
    Problem::invalid(vec![Invalid { pointer: String::new(), detail: detail.to_owned() }])
}
