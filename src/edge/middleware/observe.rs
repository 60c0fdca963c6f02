//! For each request: a log line, a measurement, a request id, and a problem document for every refusal.
//!
//! This is the outermost layer: it also turns panics of handlers, and refusals of the framework without a document, into problems.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::{error, info, warn};

use super::compress;
use super::forwarded::{self, Client};
use super::meters::word;
use super::{reader, shield, unread};
use crate::edge::base;
use crate::edge::flower::AsItIs;
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;
use crate::tell::traces::RequestSpan;
use runtime::clock;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header by which clients check that they match this gateway's version.
static VERSION: HeaderName = HeaderName::from_static("taskgate-version");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const MAX_ID: usize = 128;
const PROBLEM: &str = "application/problem+json";

/// Wraps a request.
pub async fn observe(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    observed(&edge, request, |request| next.run(request)).await
}

/// Wraps a request that `answered` answers.
pub async fn observed<F: Future<Output = Response>>(
    edge: &Edge,
    mut request: Request,
    answered: impl FnOnce(Request) -> F,
) -> Response {
    let started = Instant::now();
    forwarded::note(edge, &mut request);
    let id = request_id(&request);
    request.headers_mut().insert(&REQUEST_ID, id.clone());
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let client = request.extensions().get::<Client>().and_then(|client| client.address);
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("none", MatchedPath::as_str);
    let encodings = request.headers().get(header::ACCEPT_ENCODING).cloned();
    let span = begin(edge, route, &mut request);
    let (request, left) = unread::watch(edge, request);
    let outcome = AssertUnwindSafe(answered(request)).catch_unwind().await;
    let response = outcome.unwrap_or_else(|panic| broken(&panic));
    let (mut response, cause) = settled(response, &uri);
    response.headers_mut().insert(&REQUEST_ID, id.clone());
    response.headers_mut().insert(&VERSION, HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    shield::cover(route, response.headers_mut());
    reader::announce_lag(edge, response.headers_mut());
    unread::announce(left, &mut response);
    let seconds = started.elapsed().as_secs_f64();
    if let Some(span) = span {
        end(edge, span, &method, route, response.status());
    }
    edge.meters.note(&method, route, response.status(), seconds);
    let asked = Asked { method: &method, uri: &uri, client, id: id.to_str().unwrap_or_default() };
    log(edge, &asked, response.status().as_u16(), cause, seconds);
    // Compression comes last, because problems are rewritten above.
    if edge.http.compression { compress::compressed(encodings, response).await } else { response }
}

/// Routes of probes and pages, which are not traced.
const UNTRACED: [&str; 7] = ["none", "/livez", "/healthz", "/readyz", "/metrics", "/dashboard/", "/dashboard/{*path}"];

/// Begins the request's span. Messages get its `traceparent`, so that everything the request causes is traced below it.
fn begin(edge: &Edge, route: &str, request: &mut Request) -> Option<RequestSpan> {
    if UNTRACED.contains(&route) {
        return None;
    }
    let given = request.headers().get(&TRACEPARENT).and_then(|value| value.to_str().ok());
    let span = edge.traces.begin(given)?;
    let own = HeaderValue::from_str(&span.traceparent()).expect("digits and dashes are a header value");
    request.headers_mut().insert(&TRACEPARENT, own);
    Some(span)
}

fn end(edge: &Edge, span: RequestSpan, method: &Method, route: &str, status: StatusCode) {
    let attributes = vec![
        ("http.request.method", word(method).into()),
        ("http.route", route.into()),
        ("http.response.status_code", i64::from(status.as_u16()).into()),
    ];
    edge.traces.end(span, format!("{} {route}", word(method)), attributes, status.is_server_error());
}

fn request_id(request: &Request) -> HeaderValue {
    let given = request.headers().get(&REQUEST_ID);
    let fits = |id: &&HeaderValue| (1..=MAX_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    match given.filter(fits) {
        Some(id) => id.clone(),
        None => HeaderValue::from_str(&clock::new_id().to_string()).expect("a UUID is a header value"),
    }
}

fn broken(panic: &(dyn std::any::Any + Send)) -> Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    error!(panic = %text, "a handler panicked: {text}");
    Problem::new(&slugs::INTERNAL).into_response()
}

/// Turns every refusal into a document with the request's path, and returns the cause for the log.
fn settled(response: Response, uri: &Uri) -> (Response, Option<String>) {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return (response, None);
    }
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_document = kind.starts_with("application/json");
    let problem = match response.extensions().get::<Problem>() {
        Some(problem) => problem.clone(),
        None if is_document || kind.starts_with(PROBLEM) || response.extensions().get::<AsItIs>().is_some() => {
            return (response, None);
        }
        None => Problem::new(slugs::of_status(status)),
    };
    let mut rendered = problem.render(Some(&base::path(uri.path())));
    for (name, value) in response.headers() {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH && !rendered.headers().contains_key(name) {
            rendered.headers_mut().insert(name.clone(), value.clone());
        }
    }
    (rendered, problem.cause())
}

/// The fields of a request's log line.
struct Asked<'a> {
    method: &'a Method,
    uri: &'a Uri,
    client: Option<IpAddr>,
    id: &'a str,
}

fn log(edge: &Edge, asked: &Asked<'_>, status: u16, cause: Option<String>, seconds: f64) {
    // A probe asks whether the gateway is ready: "not yet" is no error, and what is missing has its own log line.
    let is_fault = status >= 500 && !asked.uri.path().ends_with("/readyz");
    if !is_fault && !edge.http.access_log {
        return;
    }
    let duration_ms = (seconds * 1e6).round() / 1e3;
    let Asked { method, uri, client, id } = asked;
    let path = base::path(uri.path());
    let client = client.map(|address| address.to_string()).unwrap_or_default();
    if is_fault {
        let cause = cause.unwrap_or_default();
        warn!(request.id = %id, http.status = status, client.address = %client, duration_ms, cause, "{method} {path} was answered {status}: {cause}");
    } else {
        info!(request.id = %id, http.status = status, client.address = %client, duration_ms, "{method} {path} was answered {status}");
    }
}
