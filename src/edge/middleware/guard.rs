//! What stands before every handler: who may call, how often, from where, with how much, and for how long.
//!
//! One layer for all of it: each layer of a router costs every request an allocation or two.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::authenticate::{self, Denied};
use super::{audit, origin, patience, reader, throttle};
use crate::edge::extract::wanted_wait;
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;
use crate::guard::tokens::{Identity, Refusal};
use runtime::clock;

/// Refuses who may not, and gives up on handlers that do not answer.
pub async fn guard(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    if is_too_large(&request, edge.http.max_header) {
        return Problem::new(&slugs::HEADERS_TOO_LARGE).into_response();
    }
    if let Err(problem) = is_well_formed(&request) {
        return problem.into_response();
    }
    if let Some(refusal) = reader::refusal(&edge, &request) {
        return refusal;
    }
    let Some(patience) = patience::of(&edge, &request) else { return admit(&edge, request, next).await };
    match tokio::time::timeout(patience, admit(&edge, request, next)).await {
        Ok(response) => response,
        Err(_) => Problem::new(&slugs::OVERLOADED).retry_after(Duration::from_secs(1)).into_response(),
    }
}

/// What no reader behind this could make sense of: no host, or two; and a NUL, which is the end of a text to some and a character to
/// others.
fn is_well_formed(request: &Request) -> Result<(), Problem> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let least = usize::from(request.version() == Version::HTTP_11);
    if !(least..=1).contains(&hosts) {
        return Err(Problem::new(&slugs::MALFORMED_REQUEST).detail("a request names its host once"));
    }
    let text = request.uri().path_and_query().map_or("", |text| text.as_str());
    if text.contains("%00") {
        return Err(Problem::new(&slugs::MALFORMED_REQUEST).detail("the path or the query has a NUL character (%00)"));
    }
    Ok(())
}

/// Of HTTP/1 hyper refuses it, before there is a request. Counted as RFC 9113 counts a list of headers.
fn is_too_large(request: &Request, most: usize) -> bool {
    let uri_bytes = request.uri().path_and_query().map_or(0, |text| text.as_str().len());
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
    request.version() == Version::HTTP_2 && uri_bytes + fields.sum::<usize>() > most
}

/// An answer that is waited for ends with its token, as streams do.
async fn while_valid(request: Request, next: Next) -> Response {
    let waits = wanted_wait(request.headers()).ok().flatten().is_some_and(|wait| !wait.is_zero());
    let identity = request.extensions().get::<Identity>().cloned().filter(|identity| waits && identity.id().is_some());
    let Some(identity) = identity else { return next.run(request).await };
    let expiry = identity.expires_at().map(|at| at.since(clock::now()));
    let ended = identity.ended();
    let over = async {
        match expiry {
            Some(left) => tokio::select! { () = ended.cancelled() => {} () = tokio::time::sleep(left) => {} },
            None => ended.cancelled().await,
        }
    };
    tokio::select! {
        biased;
        response = next.run(request) => response,
        () = over => {
            Problem::from(Refusal::Unknown).into_response()
        }
    }
}

async fn admit(edge: &Edge, mut request: Request, next: Next) -> Response {
    let identity = match authenticate::identify(edge, &mut request).await {
        Ok(identity) => identity,
        Err(Denied { problem, identity }) => {
            // Who may not do something is in the audit too; a stranger is not, because there is no end of strangers.
            return match identity.and_then(|identity| audit::act(edge, &request, &identity)) {
                Some(act) => audit::refused(edge, act, *problem).await,
                None => problem.into_response(),
            };
        }
    };
    let act = audit::act(edge, &request, &identity);
    let verdict = throttle::count(edge, &identity).await;
    request.extensions_mut().insert(identity);
    let refusal = verdict.as_ref().and_then(throttle::refusal).or_else(|| origin::check_request(edge, &request).err());
    let mut response = match (refusal, act) {
        (Some(problem), None) => problem.into_response(),
        (Some(problem), Some(act)) => audit::refused(edge, act, problem).await,
        (None, None) => while_valid(request, next).await,
        (None, Some(act)) => audit::carried_out(edge, act, request, next).await,
    };
    if let Some(verdict) = verdict {
        throttle::announce(response.headers_mut(), &verdict);
    }
    response
}
