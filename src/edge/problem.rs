//! RFC 9457 problems: the form of every refusal of the edge.
//!
//! The client sees a kind, a detail and the places in its request; never a cause. The cause is passed along with the response to
//! the middleware that logs it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::base;
use super::extract::KNOWN_ENCODINGS;
use super::slugs::{self, Slug};
use celery::task::{Json, TaskId, invalid};

/// A mistake at one place of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Place {
    /// JSON Pointer into the body, or the name of a parameter or header.
    #[schema(example = "/args/0")]
    pub pointer: String,
    #[schema(example = "must be a number, not a string")]
    pub detail: String,
}

/// A refusal.
#[derive(Debug, Clone)]
pub struct Problem {
    slug: &'static Slug,
    detail: Option<Cow<'static, str>>,
    errors: Vec<Place>,
    retry_after: Option<Duration>,
    /// Whether to add `Accept-Encoding` with the supported encodings.
    tells_encodings: bool,
    /// Parameters of `WWW-Authenticate` beside the realm.
    challenge: Option<Box<str>>,
    /// The answer of an earlier request.
    answer: Option<Box<Json>>,
    /// The cause, for the log only.
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// A refusal (`application/problem+json`).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDocument<'a> {
    /// The kind, and the page that explains it.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "/problems/invalid-request")]
    pub kind: String,
    #[schema(value_type = String, example = "The request does not fit")]
    pub title: &'a str,
    #[schema(example = 422)]
    pub status: u16,
    /// What is wrong with this request.
    #[schema(value_type = String, example = "/y: is required")]
    pub detail: &'a str,
    /// The path of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "/v1/tasks")]
    pub instance: Option<&'a str>,
    /// The places in the request.
    #[serde(skip_serializing_if = "<[Place]>::is_empty")]
    #[schema(value_type = Vec<Place>)]
    pub errors: &'a [Place],
    /// The earlier answer that counts, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub answer: Option<&'a Json>,
}

impl Problem {
    pub fn new(slug: &'static Slug) -> Self {
        Self {
            slug,
            detail: None,
            errors: Vec::new(),
            retry_after: None,
            tells_encodings: false,
            challenge: None,
            answer: None,
            cause: None,
        }
    }

    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn error(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.errors.push(Place { pointer: pointer.into(), detail: detail.into() });
        self
    }

    pub fn errors(mut self, errors: Vec<Place>) -> Self {
        self.errors = errors;
        self
    }

    /// Whole seconds, at least one.
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// Adds `Accept-Encoding` with the supported encodings (RFC 9110, 12.5.3).
    pub fn telling_encodings(mut self) -> Self {
        self.tells_encodings = true;
        self
    }

    /// The request has an invalid token (RFC 6750).
    pub fn invalid_token(mut self) -> Self {
        self.challenge = Some("error=\"invalid_token\"".into());
        self
    }

    /// Where it is said who gives out tokens (RFC 9728). Of other refusals nothing.
    pub fn described_at(mut self, address: &str) -> Self {
        if self.slug.status == StatusCode::UNAUTHORIZED {
            let before = self.challenge.as_ref().map_or_else(String::new, |text| format!("{text}, "));
            self.challenge = Some(format!("{before}resource_metadata=\"{address}\"").into());
        }
        self
    }

    /// The token is valid but lacks this scope (RFC 6750).
    pub fn insufficient_scope(scope: &str, token: &str) -> Self {
        let mut problem = Self::new(&slugs::INSUFFICIENT_SCOPE)
            .detail(format!("the token {token:?} does not have the scope {scope}"));
        problem.challenge = Some(format!("error=\"insufficient_scope\", scope=\"{scope}\"").into());
        problem
    }

    /// The detail, if there is one.
    pub fn told(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The first answer, where a second one is refused.
    pub fn answered(mut self, answer: Option<Json>) -> Self {
        self.answer = answer.map(Box::new);
        self
    }

    pub fn caused_by(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }

    pub fn status(&self) -> StatusCode {
        self.slug.status
    }

    pub fn slug(&self) -> &'static Slug {
        self.slug
    }

    /// The places in the request.
    pub fn places(&self) -> &[Place] {
        &self.errors
    }

    /// The chain of causes, for the log.
    pub fn cause(&self) -> Option<String> {
        let first = self.cause.as_ref()?;
        let mut text = first.to_string();
        let mut next = first.source();
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        Some(text)
    }

    /// The document as JSON text, for a problem inside an answer.
    pub fn document(&self) -> String {
        self.document_at(None)
    }

    fn document_at(&self, instance: Option<&str>) -> String {
        let document = ProblemDocument {
            kind: base::path(&format!("/problems/{}", self.slug.name)),
            title: self.slug.title,
            status: self.slug.status.as_u16(),
            detail: self.detail.as_deref().unwrap_or(self.slug.cause),
            instance,
            errors: &self.errors,
            answer: self.answer.as_deref(),
        };
        serde_json::to_string(&document).expect("a problem is JSON")
    }

    /// The response, with the path of its request.
    pub fn render(&self, instance: Option<&str>) -> Response {
        let body = self.document_at(instance);
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.slug.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(pause) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(pause.as_secs().max(1)));
        }
        if self.tells_encodings {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(KNOWN_ENCODINGS));
        }
        if self.slug.status == StatusCode::UNAUTHORIZED || self.challenge.is_some() {
            let more = self.challenge.as_ref().map_or_else(String::new, |more| format!(", {more}"));
            let value = HeaderValue::from_str(&format!("Bearer realm=\"taskgate\"{more}"));
            headers.extend(value.ok().map(|value| (header::WWW_AUTHENTICATE, value)));
        }
        response
    }
}

impl IntoResponse for Problem {
    /// The logging middleware renders it again, with the request's path.
    fn into_response(self) -> Response {
        let mut response = self.render(None);
        response.extensions_mut().insert(self);
        response
    }
}

impl Problem {
    pub fn unknown(id: &TaskId) -> Self {
        Self::new(&slugs::TASK_NOT_FOUND).detail(format!("this ledger never saw {id}"))
    }

    /// A problem with the mistakes that a reader found.
    pub fn invalid(found: Vec<invalid::Invalid>) -> Self {
        Self::misfit(found.into_iter().map(|fault| Place { pointer: fault.pointer, detail: fault.detail }).collect())
    }

    pub(super) fn misfit(errors: Vec<Place>) -> Self {
        let detail = match errors.as_slice() {
            [only] if only.pointer.is_empty() => format!("the body {}", only.detail),
            [only] => format!("{}: {}", only.pointer, only.detail),
            many => format!("{} places do not fit", many.len()),
        };
        Self::new(&slugs::INVALID_REQUEST).detail(detail).errors(errors)
    }
}
