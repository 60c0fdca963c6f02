//! All checks before a handler: authentication, rate limit, origin, size of the head, and timeout.
//!
//! It is a single layer, because each layer of a router costs every request an allocation or two.

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

/// Refuses callers that may not call, and ends handlers that do not answer in time.
pub async fn guard(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    guarded(&edge, request, next).await
}

/// As [`guard`], below another layer's function.
pub async fn guarded(edge: &Edge, request: Request, next: Next) -> Response {
    if is_too_large(&request, edge.http.max_header) {
        return Problem::new(&slugs::HEADERS_TOO_LARGE).into_response();
    }
    if let Err(problem) = is_well_formed(&request) {
        return problem.into_response();
    }
    if let Some(refusal) = reader::refusal(edge, &request) {
        return refusal;
    }
    let Some(patience) = patience::of(edge, &request) else { return admit(edge, request, next).await };
    match tokio::time::timeout(patience, admit(edge, request, next)).await {
        Ok(response) => response,
        Err(_) => Problem::new(&slugs::OVERLOADED).retry_after(Duration::from_secs(1)).into_response(),
    }
}

/// Refuses ambiguous requests: with no host or two, or with a NUL, which ends a string for some readers and is a character for
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

/// Whether the head is too large, counted as in RFC 9113. For HTTP/1, hyper refuses it earlier.
fn is_too_large(request: &Request, most: usize) -> bool {
    let uri_bytes = request.uri().path_and_query().map_or(0, |text| text.as_str().len());
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
    request.version() == Version::HTTP_2 && uri_bytes + fields.sum::<usize>() > most
}

/// Ends a waiting request when its token is revoked, like a stream.
async fn while_valid(request: Request, next: Next) -> Response {
    let waits = wanted_wait(request.headers()).ok().flatten().is_some_and(|wait| !wait.is_zero());
    let identity = request.extensions().get::<Identity>().filter(|identity| waits && identity.id().is_some()).cloned();
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
            // A refused caller is recorded in the audit log; unknown callers are not, because their number is unbounded.
            return match identity.and_then(|identity| audit::act(edge, &request, &identity)) {
                Some(act) => Box::pin(audit::refused(edge, act, *problem)).await,
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
        // Boxed, because few requests are acts, and all of them would carry the memory.
        (Some(problem), Some(act)) => Box::pin(audit::refused(edge, act, problem)).await,
        (None, None) => while_valid(request, next).await,
        (None, Some(act)) => Box::pin(audit::carried_out(edge, act, request, next)).await,
    };
    if let Some(verdict) = verdict {
        throttle::announce(response.headers_mut(), &verdict);
    }
    response
}
