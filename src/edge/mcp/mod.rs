//! `/mcp`: the gateway as a server of the Model Context Protocol (2025-11-25), over Streamable HTTP.
//!
//! A client posts one JSON-RPC message and gets one answer; there are no sessions, so any replica answers any message. The answer is
//! JSON, or a stream where the client wants to hear of a call's progress. Every tool
//! and resource is an operation of the HTTP contract, called through the same router with the caller's own credentials, so scopes,
//! limits to task names, rate limits, the audit log and all checks apply unchanged. A long call becomes an MCP task whose id is the
//! taskgate task's id, so it outlives connections and processes.

mod inner;
mod metadata;
mod progress;
mod resources;
mod tasks;
mod tools;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};

use self::inner::Inner;
use super::extract::JsonText;
use super::problem::Problem;
use super::state::Edge;
use crate::config::Auth;
use crate::guard::tokens::Identity;

/// Supported versions, newest first. The first is offered to a client that asks for an unknown version.
const VERSIONS: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];
const PARSE: i64 = -32_700;
const INVALID_REQUEST: i64 = -32_600;
const METHOD_NOT_FOUND: i64 = -32_601;
const INVALID_PARAMS: i64 = -32_602;
const INTERNAL: i64 = -32_603;
/// Of the protocol: with the versions that are served.
const UNSUPPORTED_VERSION: i64 = -32_022;

/// A JSON-RPC error.
#[derive(Debug)]
pub(super) struct Fault {
    code: i64,
    message: String,
}

impl Fault {
    fn params(message: impl Into<String>) -> Self {
        Self { code: INVALID_PARAMS, message: message.into() }
    }
}

/// A caller, and the means to call operations with its credentials.
pub(super) struct Call<'a> {
    edge: &'a Edge,
    identity: &'a Identity,
    inner: Inner,
}

/// The route of `/mcp`. `gateway` serves the operations behind tools and resources.
pub fn router(gateway: Router) -> Router<Edge> {
    let handler = move |State(edge): State<Edge>, request: Request| {
        let gateway = gateway.clone();
        async move { receive(&edge, gateway, request).await }
    };
    Router::new().route("/mcp", post(handler)).merge(metadata::router())
}

async fn receive(edge: &Edge, gateway: Router, request: Request) -> Result<Response, Problem> {
    let identity = identify(edge, request.headers()).await.map_err(|problem| metadata::challenged(edge, problem))?;
    let version = text_of(request.headers(), "mcp-protocol-version").filter(|version| !VERSIONS.contains(version));
    let version = version.map(str::to_owned);
    let takes_stream = text_of(request.headers(), "accept").is_some_and(|accept| accept.contains("text/event-stream"));
    let inner = Inner::of(gateway, &request, edge.limits.wait.min(edge.http.request_timeout));
    let JsonText(body) = JsonText::from_request(request, edge).await?;
    let Ok(message) = serde_json::from_str::<Value>(&body) else {
        return Ok(json_response(StatusCode::BAD_REQUEST, failed(&Value::Null, PARSE, "the body is not JSON")));
    };
    let (id, method) = (message.get("id"), message.get("method").and_then(Value::as_str));
    if let Some(version) = version {
        return Ok(json_response(StatusCode::BAD_REQUEST, unsupported(id.unwrap_or(&Value::Null), &version)));
    }
    let (Some(id), Some(method)) = (id, method) else {
        // A notification, or a response to a request; the gateway never sends requests.
        let is_known = method.is_some() || message.get("result").is_some() || message.get("error").is_some();
        let refusal =
            || json_response(StatusCode::BAD_REQUEST, failed(&Value::Null, INVALID_REQUEST, "no JSON-RPC message"));
        return Ok(if is_known { StatusCode::ACCEPTED.into_response() } else { refusal() });
    };
    let call = Call { edge, identity: &identity, inner };
    let params = message.get("params").cloned().unwrap_or_else(|| json!({}));
    if method == "tools/call" && takes_stream {
        match call.with_progress(id, &params).await {
            Ok(Some(stream)) => return Ok(stream),
            Ok(None) => {}
            Err(fault) => return Ok(json_response(StatusCode::OK, failed(id, fault.code, &fault.message))),
        }
    }
    let answer = match call.dispatch(method, &params).await {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string(),
        Err(fault) => failed(id, fault.code, &fault.message),
    };
    Ok(json_response(StatusCode::OK, answer))
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

/// In the words of the protocol, so that a client takes one that is served.
fn unsupported(id: &Value, version: &str) -> String {
    let message = format!("the protocol version {version} is not served: use one of {}", VERSIONS.join(", "));
    let data = json!({"supported": VERSIONS, "requested": version});
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": UNSUPPORTED_VERSION, "message": message, "data": data}})
        .to_string()
}

fn failed(id: &Value, code: i64, message: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}).to_string()
}

impl Call<'_> {
    async fn dispatch(&self, method: &str, params: &Value) -> Result<Value, Fault> {
        match method {
            "initialize" => Ok(initialize(params)),
            "ping" => Ok(json!({})),
            "tools/list" => Ok(json!({"tools": self.tools()})),
            "tools/call" => self.call_tool(params).await,
            "resources/list" => Ok(resources::list()),
            "resources/templates/list" => Ok(resources::templates()),
            "resources/read" => self.read_resource(params).await,
            "tasks/get" => self.get_task(params).await,
            "tasks/list" => self.list_tasks(params).await,
            "tasks/result" => self.task_result(params).await,
            "tasks/cancel" => self.cancel_task(params).await,
            _ => Err(Fault { code: METHOD_NOT_FOUND, message: format!("{method} is not served") }),
        }
    }
}

fn initialize(params: &Value) -> Value {
    let asked = params["protocolVersion"].as_str().unwrap_or_default();
    let version = VERSIONS.into_iter().find(|known| *known == asked).unwrap_or(VERSIONS[0]);
    json!({
        "protocolVersion": version,
        "capabilities": {
            "tools": {"listChanged": false},
            "resources": {"listChanged": false, "subscribe": false},
            "tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}},
        },
        "serverInfo": {"name": "taskgate", "title": "taskgate", "version": env!("CARGO_PKG_VERSION")},
        "instructions": "Each tool that is not named taskgate_… submits one task to the fleet. A call that takes long answers with the \
            id of the task: ask taskgate_get_task for it, or call as a task of the protocol.",
    })
}

/// A required string among the parameters.
fn text<'a>(params: &'a Value, name: &str) -> Result<&'a str, Fault> {
    params[name].as_str().ok_or_else(|| Fault::params(format!("{name} is required, a string")))
}

fn json_response(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, axum::http::HeaderValue::from_static("application/json"));
    response
}
