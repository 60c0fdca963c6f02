//! Calls operations of the contract with the credentials of the caller of `/mcp`.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, OriginalUri, Request};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use rmcp::ErrorData;
use serde_json::Value;
use tower::ServiceExt;

use super::handler::Came;
use crate::edge::extract::wanted_wait;
use crate::guard::tokens::Identity;

/// The largest answer that is passed on.
const MAX_ANSWER: usize = 8 << 20;
/// The longest that the progress of a call is told, whatever the caller prefers.
const LONGEST: Duration = Duration::from_hours(24);
/// The caller's headers that are passed on to operations.
const PASSED: [&str; 6] = ["authorization", "host", "origin", "traceparent", "tracestate", "x-forwarded-for"];

/// Calls operations through the router.
pub struct Inner {
    gateway: Router,
    headers: HeaderMap,
    extensions: Extensions,
    /// The caller's `Prefer: wait`.
    prefer: Option<axum::http::HeaderValue>,
    /// The longest wait without a request of the caller.
    most: Duration,
}

/// The answer of an operation.
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

impl Answer {
    /// The detail of a problem.
    pub fn complaint(&self) -> String {
        let detail = self.body["detail"].as_str().or_else(|| self.body["title"].as_str());
        detail.map_or_else(|| format!("the operation answered {}", self.status), str::to_owned)
    }
}

impl Inner {
    pub fn of(gateway: Router, head: &Parts, most: Duration) -> Self {
        let mut headers = HeaderMap::new();
        for name in PASSED {
            if let Some(value) = head.headers.get(name) {
                headers.insert(name, value.clone());
            }
        }
        let mut extensions = head.extensions.clone();
        extensions.remove::<Identity>();
        extensions.remove::<Came>();
        // The inner request must be matched to its own route.
        extensions.remove::<MatchedPath>();
        extensions.remove::<OriginalUri>();
        Self { gateway, headers, extensions, prefer: head.headers.get("prefer").cloned(), most }
    }

    pub async fn get(&self, path: &str) -> Result<Answer, ErrorData> {
        self.send(Method::GET, path, None, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer, ErrorData> {
        self.send(Method::POST, path, Some(body), None).await
    }

    pub async fn delete(&self, path: &str, body: &Value) -> Result<Answer, ErrorData> {
        self.send(Method::DELETE, path, Some(body), None).await
    }

    /// As [`Inner::get`] or [`Inner::post`], but waits for the end: as long as the caller prefers, else for `wait`.
    pub async fn waiting(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        wait: Duration,
    ) -> Result<Answer, ErrorData> {
        self.send(method, path, body, Some(wait)).await
    }

    /// A stream of events. A refusal is an answer.
    ///
    /// # Errors
    /// When the operation cannot be called.
    pub async fn events(&self, path: &str) -> Result<Result<Body, Answer>, ErrorData> {
        let mut request = self.request(Method::GET, path, Body::empty())?;
        request.headers_mut().insert(header::ACCEPT, axum::http::HeaderValue::from_static("text/event-stream"));
        let Ok(response) = self.gateway.clone().oneshot(request).await;
        if response.status().is_success() {
            return Ok(Ok(response.into_body()));
        }
        Ok(Err(read(response).await?))
    }

    /// How long the caller prefers to wait; this long where they do not say.
    pub fn patience(&self, usual: Duration) -> Duration {
        let said = self.prefer.clone().map(|value| HeaderMap::from_iter([(HeaderName::from_static("prefer"), value)]));
        said.and_then(|headers| wanted_wait(&headers).ok().flatten()).map_or(usual, |wait| wait.min(LONGEST))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        wait: Option<Duration>,
    ) -> Result<Answer, ErrorData> {
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let mut request = self.request(method, path, body)?;
        if let Some(wait) = wait {
            let said = format!("wait={}", wait.min(self.most).as_secs()).parse().expect("digits are a header");
            request.headers_mut().insert("prefer", self.prefer.clone().unwrap_or(said));
        }
        let Ok(response) = self.gateway.clone().oneshot(request).await;
        read(response).await
    }

    fn request(&self, method: Method, path: &str, body: Body) -> Result<Request, ErrorData> {
        let mut request = Request::builder().method(method).uri(path).body(body).map_err(|error| broken(&error))?;
        *request.headers_mut() = self.headers.clone();
        *request.extensions_mut() = self.extensions.clone();
        let json = axum::http::HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json.clone());
        request.headers_mut().insert(header::ACCEPT, json);
        Ok(request)
    }
}

async fn read(response: axum::response::Response) -> Result<Answer, ErrorData> {
    let status = response.status();
    let bytes = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| broken(&error))?;
    let body = serde_json::from_slice(&bytes.to_bytes()).unwrap_or(Value::Null);
    Ok(Answer { status, body })
}

pub(super) fn broken(error: &dyn std::fmt::Display) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}
