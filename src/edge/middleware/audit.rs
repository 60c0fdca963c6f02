//! Writes a row into the audit log for every control call: who, what, from where, with which verdict.
//!
//! An act on the ledger opens its row in its own commit; for an act elsewhere (a broadcast to workers, a message taken out of the
//! broker) the row is opened before. Either way there is no act without a row, and the act is refused if the row cannot be written.
//! The verdict is written before the answer is sent; the row of an aborted call stays open until [`crate::guard::audit`] seals it.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::warn;

use super::forwarded::Client;
use crate::edge::access::{Asked, Need};
use crate::edge::problem::Problem;
use crate::edge::state::Edge;
use crate::guard::tokens::Identity;
use crate::usecase::audit;
use ledger::{NewAct, Scope, Seal};
use runtime::clock;

/// Maximum length of a path with its query, and of a detail.
const MOST_CHARS: usize = 500;

/// Acts that are not on the ledger alone: their rows are opened before the act.
const OPENED_BEFORE: [&str; 11] = [
    "retry_task",
    "resume_dag",
    "requeue_dead_letter",
    "requeue_dead_letters",
    "purge_queue",
    "control_workers",
    "resend_delivery",
    "resolve_task",
    "complete_task",
    "put_limit",
    "reset_limit",
];

/// Whether the row of an act is written before it. Flower's routes are not operations of the contract, so their names are paths; their
/// commands go to workers.
fn is_opened_before(what: &str) -> bool {
    OPENED_BEFORE.contains(&what) || what.contains('/')
}

/// What a handler adds to its call's row.
#[derive(Debug, Clone, Default)]
pub struct Remark {
    /// The verdict, instead of `done`.
    pub verdict: Option<String>,
    pub detail: Option<String>,
}

/// The act that a request performs, if any.
pub fn act(edge: &Edge, request: &Request, identity: &Identity) -> Option<NewAct> {
    let route = request.extensions().get::<MatchedPath>()?.as_str();
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return None;
    }
    let Asked::This(Need::Token { scope: Scope::Control | Scope::Admin, .. }) = edge.access.of(request.method(), route)
    else {
        return None;
    };
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let client = request.extensions().get::<Client>().and_then(|client| client.address);
    Some(NewAct {
        id: clock::new_id().to_string(),
        at: clock::now(),
        who: identity.shown(),
        who_id: identity.id().map(str::to_owned),
        what: operation(request.method(), route),
        target: target.chars().take(MOST_CHARS).collect(),
        origin: client.map(|address| address.to_string()),
    })
}

/// Runs the request as this act.
pub async fn carried_out(edge: &Edge, act: NewAct, request: Request, next: Next) -> Response {
    if is_opened_before(&act.what)
        && let Err(error) = edge.gateway.open_act(&act).await
    {
        return Problem::from(error).into_response();
    }
    let response = audit::within(act.clone(), next.run(request)).await;
    let seal = verdict(&response);
    sealed(edge, &act, &seal).await;
    response
}

/// Records an act that was refused before the handler.
pub async fn refused(edge: &Edge, act: NewAct, problem: Problem) -> Response {
    let response = problem.into_response();
    let seal = verdict(&response);
    sealed(edge, &act, &seal).await;
    response
}

async fn sealed(edge: &Edge, act: &NewAct, seal: &Seal) {
    if let Err(error) = edge.gateway.seal_act(act, seal).await {
        warn!(%error, act.what = %act.what, act.who = %act.who, "the verdict of {} ({}) could not be written", act.what, seal.verdict);
    }
}

/// The verdict of a response: done, or the reason of the refusal.
fn verdict(response: &Response) -> Seal {
    let remark = response.extensions().get::<Remark>().cloned().unwrap_or_default();
    let problem = response.extensions().get::<Problem>();
    let status = response.status();
    let usual = || match problem {
        Some(problem) => problem.slug().name.to_owned(),
        None if status.is_client_error() || status.is_server_error() => "refused".to_owned(),
        None => "done".to_owned(),
    };
    let detail = remark.detail.or_else(|| problem.and_then(Problem::told).map(str::to_owned));
    Seal {
        at: clock::now(),
        status: Some(i32::from(status.as_u16())),
        verdict: remark.verdict.unwrap_or_else(usual),
        detail: detail.map(|detail| detail.chars().take(MOST_CHARS).collect()),
    }
}

/// The operation's id in the contract.
fn operation(method: &Method, route: &str) -> String {
    static NAMES: LazyLock<HashMap<(String, String), String>> = LazyLock::new(|| {
        let document = serde_json::to_value(crate::edge::router::documented().into_openapi()).unwrap_or_default();
        let paths = document["paths"].as_object().into_iter().flatten();
        let operations = paths.flat_map(|(path, methods)| {
            let methods = methods.as_object().into_iter().flatten();
            methods.filter_map(move |(method, operation)| {
                let name = operation["operationId"].as_str()?.to_owned();
                Some(((method.to_ascii_uppercase(), path.clone()), name))
            })
        });
        operations.collect()
    });
    let named = NAMES.get(&(method.as_str().to_owned(), route.to_owned()));
    named.cloned().unwrap_or_else(|| format!("{method} {route}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_of_the_list_is_an_operation() {
        let document = serde_json::to_value(crate::edge::router::documented().into_openapi()).unwrap();
        let methods =
            document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
        let known: BTreeSet<&str> = methods.filter_map(|operation| operation["operationId"].as_str()).collect();
        for name in OPENED_BEFORE {
            assert!(known.contains(name), "{name}");
        }
    }

    #[test]
    fn acts_of_flower_and_of_other_stores_have_their_row_before() {
        let shutdown = operation(&Method::POST, "/flower/api/worker/shutdown/{worker}");
        assert!(is_opened_before(&shutdown), "{shutdown}");
        assert!(is_opened_before(&operation(&Method::POST, "/v1/tasks/{id}/complete")));
        assert!(!is_opened_before(&operation(&Method::POST, "/v1/schedules")));
    }
}
