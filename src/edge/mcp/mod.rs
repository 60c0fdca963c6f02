//! `/mcp`: the gateway as a server of the Model Context Protocol (2026-07-28 and earlier), over Streamable HTTP.
//!
//! The official SDK, `rmcp`, speaks the protocol: messages, versions, errors, streams and the tasks extension of 2026-07-28. What it no
//! longer has, the tasks of 2025-11-25, is in `legacy` (ADR 78). There are no sessions, so any replica answers any message. Every tool
//! and resource is an operation of the HTTP contract, called through the same router with the caller's own credentials, so scopes,
//! limits to task names, rate limits, the audit log and all checks apply unchanged. A long call becomes an MCP task whose id is the
//! taskgate task's id, so it outlives connections and processes.

mod handler;
mod inner;
mod inputs;
mod legacy;
mod metadata;
mod own;
mod progress;
mod resources;
mod tasks;
mod tools;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use http_body_util::Full;
use rmcp::ErrorData;
use rmcp::model::{JsonRpcError, ProtocolVersion, RequestId};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::Value;

use self::handler::{Agent, Came, VERSIONS};
use super::extract::JsonText;
use super::problem::Problem;
use super::state::Edge;
use crate::config::Auth;
use crate::guard::tokens::Identity;

/// In the parameters of a request since 2026-07-28.
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// Maximum size of a message, in bytes: it is parsed twice, on the threads that answer requests.
const MAX_MESSAGE: usize = 1 << 20;
const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

type Server = StreamableHttpService<Agent, NeverSessionManager>;

/// The route of `/mcp`. `gateway` serves the operations behind tools and resources.
pub fn router(edge: &Edge, gateway: Router) -> Router<Edge> {
    let agent = Agent::new(edge.clone(), gateway);
    let server: Server =
        StreamableHttpService::new(move || Ok(agent.clone()), Arc::new(NeverSessionManager::default()), settings(edge));
    let handler = move |State(edge): State<Edge>, request: Request| {
        let server = server.clone();
        async move { Box::pin(receive(&edge, &server, request)).await }
    };
    Router::new().route("/mcp", post(handler)).merge(metadata::router())
}

fn settings(edge: &Edge) -> StreamableHttpServerConfig {
    StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_sse_keep_alive(Some(edge.http.sse_heartbeat))
        // The gateway has checked the host, the origin and the size.
        .disable_allowed_hosts()
        .with_max_request_body_bytes(usize::MAX)
}

async fn receive(edge: &Edge, server: &Server, request: Request) -> Result<Response, Problem> {
    let identity = identify(edge, request.headers()).await.map_err(|problem| metadata::challenged(edge, problem))?;
    let (mut head, body) = request.into_parts();
    let JsonText(mut text) = JsonText::from_request(Request::from_parts(head.clone(), body), edge).await?;
    if text.len() > MAX_MESSAGE {
        let detail =
            format!("the message has more than {MAX_MESSAGE} bytes: submit large arguments with POST /v1/tasks");
        return Ok(refused(None, ErrorData::invalid_request(detail, None)));
    }
    let Ok(mut message) = serde_json::from_str::<Value>(&text) else {
        return Ok(refused(None, ErrorData::parse_error("the body is not JSON", None)));
    };
    let is_legacy = message["params"]["_meta"][META_VERSION].is_null() && message["method"] != "server/discover";
    if let Some(version) = unknown_version(&head.headers).filter(|_| is_legacy) {
        return Ok(refused(id_of(&message), ErrorData::unsupported_protocol_version(version, &VERSIONS)));
    }
    let method = message["method"].as_str().filter(|_| is_legacy).unwrap_or_default().to_owned();
    if is_legacy && legacy::inward(&mut message) {
        text = message.to_string();
    }
    let takes_stream = text_of(&head.headers, "accept").is_some_and(|accept| accept.contains("text/event-stream"));
    head.extensions.insert(Came { identity, takes_stream });
    // A client that takes JSON only is served too, and the type of the body is checked.
    head.headers.insert(header::ACCEPT, BOTH);
    head.headers.insert(header::CONTENT_TYPE, JSON);
    let response = server.handle(Request::from_parts(head, Full::new(Bytes::from(text)))).await.map(Body::new);
    if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        return Ok(refused(id_of(&message), ErrorData::invalid_request("the body is no JSON-RPC message", None)));
    }
    Ok(legacy::outward(&method, response).await)
}

/// Accepts any valid token; each operation checks its scope.
async fn identify(edge: &Edge, headers: &HeaderMap) -> Result<Identity, Problem> {
    if edge.auth == Auth::None {
        return Ok(Identity::anybody());
    }
    let bearer = text_of(headers, header::AUTHORIZATION.as_str()).and_then(|text| text.split_once(' '));
    let token = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    let token =
        token.ok_or_else(|| Problem::new(&super::slugs::UNAUTHORIZED).detail("the request has no bearer token"))?;
    Ok(edge.authority.holder(token).await?)
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The version in the header, if it is none that is served.
fn unknown_version(headers: &HeaderMap) -> Option<ProtocolVersion> {
    let version = text_of(headers, "mcp-protocol-version")?;
    let is_known = VERSIONS.iter().any(|known| known.as_str() == version);
    if is_known { None } else { serde_json::from_value(Value::from(version)).ok() }
}

fn id_of(message: &Value) -> Option<RequestId> {
    serde_json::from_value(message["id"].clone()).ok()
}

fn refused(id: Option<RequestId>, error: ErrorData) -> Response {
    let body = serde_json::to_string(&JsonRpcError::new(id, error)).expect("an error is JSON");
    json_response(StatusCode::BAD_REQUEST, body)
}

fn json_response(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// Parameters that a method does not take.
fn wrong(message: impl Into<String>) -> ErrorData {
    ErrorData::invalid_params(message.into(), None)
}
