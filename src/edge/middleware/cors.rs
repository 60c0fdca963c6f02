//! CORS: which other sites' pages may call the API from a browser, and which response headers they may read.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::config::Http;

/// How long a browser caches a preflight answer.
const REMEMBERED: Duration = Duration::from_mins(10);

const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

const SENT: [HeaderName; 12] = [
    header::ACCEPT,
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("prefer"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-request-id"),
    header::CACHE_CONTROL,
];

const READ: [HeaderName; 11] = [
    header::ETAG,
    header::LINK,
    header::LOCATION,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("idempotency-replayed"),
    HeaderName::from_static("preference-applied"),
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("taskgate-version"),
    HeaderName::from_static("x-request-id"),
];

/// `None` when no origin is configured. Pages send tokens in a header that they set themselves, so the browser's credentials are never
/// allowed.
pub fn layer(http: &Http) -> Option<CorsLayer> {
    if http.origins.is_empty() {
        return None;
    }
    let origins = if http.origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(http.origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    let layer = CorsLayer::new().allow_origin(origins).allow_methods(METHODS).allow_headers(SENT);
    Some(layer.expose_headers(READ).max_age(REMEMBERED))
}
