//! A gateway with `--role read`, on a replica of the ledger: what it serves, and where it refers other requests.
//!
//! It serves operations that only read the ledger. Every answer says how far the replica lagged behind when last measured.

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};

use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;

static LAG: HeaderName = HeaderName::from_static("taskgate-lag");
static WRITER: HeaderName = HeaderName::from_static("taskgate-writer");

/// Routes that need only the ledger. `GET` includes `HEAD`.
const SERVED: &[&str] = &[
    "/result/{id}",
    "/v1/tasks",
    "/v1/tasks/{id}",
    "/v1/tasks/{id}/message",
    "/v1/tasks/{id}/graph",
    "/v1/tasks/{id}/events",
    "/v1/dead-letters",
    "/v1/schedules",
    "/v1/schedules/{name}",
    "/v1/schedules/{name}/preview",
    "/v1/schedules/{name}/runs",
    "/v1/stats/throughput",
    "/v1/stats/latency",
    "/v1/stats/errors",
    "/v1/stats/outcomes",
    "/v1/session",
    "/v1/capabilities",
    "/metrics",
    "/readyz",
    "/livez",
    "/healthz",
    "/openapi.json",
    "/problems",
    "/problems/",
    "/problems/{slug}",
    "/",
    "/dashboard",
    "/dashboard/",
    "/dashboard/{*path}",
    "/docs",
    "/swagger-ui",
    "/swagger-ui/",
    "/swagger-ui/{*rest}",
];

/// The refusal of a route that this gateway does not serve. Unknown paths are left to the router.
pub fn refusal(edge: &Edge, request: &Request) -> Option<Response> {
    if !edge.reads_only {
        return None;
    }
    let route = request.extensions().get::<MatchedPath>()?;
    let is_served = SERVED.contains(&route.as_str());
    if is_served && matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let detail = match &edge.http.writer {
        Some(writer) => format!("this gateway only reads; send it to {writer}"),
        None => "this gateway only reads; send it to one that was started without `--role read`".to_owned(),
    };
    let mut response = Problem::new(&slugs::READ_ONLY).detail(detail).into_response();
    let allowed = if is_served { "GET, HEAD" } else { "" };
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    let writer = edge.http.writer.as_deref().and_then(|writer| HeaderValue::from_str(writer).ok());
    if let Some(writer) = writer {
        response.headers_mut().insert(&WRITER, writer);
    }
    Some(response)
}

/// Adds a header that says how old an answer may be.
pub fn announce_lag(edge: &Edge, headers: &mut HeaderMap) {
    if edge.reads_only {
        let seconds = format!("{:.3}", edge.health.lag().as_secs_f64());
        headers.insert(&LAG, HeaderValue::from_str(&seconds).expect("digits are a header value"));
    }
}
