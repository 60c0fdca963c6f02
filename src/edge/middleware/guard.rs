//! What stands before every handler: who may call, how often, from where, with how much, and for how long.
//!
//! One layer for all of it: each layer of a router costs every request an allocation or two.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::Version;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{authenticate, origin, patience, throttle};
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;

/// Refuses who may not, and gives up on handlers that do not answer.
pub async fn guard(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    if is_too_large(&request, edge.http.max_header) {
        return Problem::new(&slugs::HEADERS_TOO_LARGE).into_response();
    }
    let Some(patience) = patience::of(&edge, &request) else { return admit(&edge, request, next).await };
    match tokio::time::timeout(patience, admit(&edge, request, next)).await {
        Ok(response) => response,
        Err(_) => Problem::new(&slugs::OVERLOADED).retry_after(Duration::from_secs(1)).into_response(),
    }
}

/// Of HTTP/1 hyper refuses it, before there is a request. Counted as RFC 9113 counts a list of headers.
fn is_too_large(request: &Request, most: usize) -> bool {
    let uri_bytes = request.uri().path_and_query().map_or(0, |text| text.as_str().len());
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
    request.version() == Version::HTTP_2 && uri_bytes + fields.sum::<usize>() > most
}

async fn admit(edge: &Edge, mut request: Request, next: Next) -> Response {
    let identity = match authenticate::identify(edge, &mut request).await {
        Ok(identity) => identity,
        Err(problem) => return problem.into_response(),
    };
    let verdict = throttle::count(edge, &identity).await;
    request.extensions_mut().insert(identity);
    let refusal = verdict.as_ref().and_then(throttle::refusal).or_else(|| origin::check_request(edge, &request).err());
    let mut response = match refusal {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    };
    if let Some(verdict) = verdict {
        throttle::announce(response.headers_mut(), &verdict);
    }
    response
}
