//! The base path under which a proxy publishes the gateway: requests may have it or not, all links have it.
//!
//! It is global to the process, like its address: the first edge sets it once.

use std::sync::OnceLock;

use axum::Router;
use axum::extract::{OriginalUri, Request};
use axum::http::{HeaderValue, Uri, header, uri::PathAndQuery};
use axum::middleware::Next;
use axum::response::Response;

static BASE: OnceLock<String> = OnceLock::new();

/// Sets the base path, without a trailing slash; empty for none.
pub(super) fn set(base: &str) {
    BASE.get_or_init(|| base.to_owned());
}

fn base() -> &'static str {
    BASE.get().map_or("", String::as_str)
}

/// A path of this gateway as clients see it, with the base path.
pub fn path(path: &str) -> String {
    format!("{}{path}", base())
}

/// As [`path`], for a path in pieces.
pub fn joined<const N: usize>(pieces: [&str; N]) -> String {
    let mut path = String::with_capacity(base().len() + pieces.iter().map(|piece| piece.len()).sum::<usize>());
    path.push_str(base());
    pieces.iter().for_each(|piece| path.push_str(piece));
    path
}

/// The router below the base path, and also without it, for proxies that strip the path.
pub(super) fn mounted(router: Router) -> Router {
    if base().is_empty() {
        return router;
    }
    // A router's layers run after routing: the outer router has no routes, so the inner one routes by the shortened path.
    Router::new().fallback_service(router).layer(axum::middleware::from_fn(shorten))
}

async fn shorten(mut request: Request, next: Next) -> Response {
    let (inner, original) = split(request.uri());
    *request.uri_mut() = inner;
    request.extensions_mut().insert(OriginalUri(original));
    let mut response = next.run(request).await;
    if response.status().is_redirection()
        && let Some(place) = response.headers().get(header::LOCATION).and_then(|place| place.to_str().ok())
        && place.starts_with('/')
        && !place.starts_with(base())
        && let Ok(place) = HeaderValue::from_str(&path(place))
    {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

/// The URI without the base path for routing, and the one that clients see.
fn split(uri: &Uri) -> (Uri, Uri) {
    let whole = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let rest = whole.strip_prefix(base()).filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    let inner = match rest {
        Some(rest) if rest.starts_with('/') => rest.to_owned(),
        Some(rest) => format!("/{rest}"),
        None => whole.to_owned(),
    };
    (replaced(uri, &inner), replaced(uri, &path(&inner)))
}

fn replaced(uri: &Uri, path_and_query: &str) -> Uri {
    let mut parts = uri.clone().into_parts();
    let Ok(path_and_query) = path_and_query.parse() else { return uri.clone() };
    parts.path_and_query = Some(path_and_query);
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}
