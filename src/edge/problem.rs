//! RFC 9457 problems: the only shape in which the edge refuses anything.
//!
//! The client sees a kind, a detail and the places in its request; never a cause. The cause travels with the response to the
//! one middleware that logs it.

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
use crate::catalog;
use crate::live::commit::CommitError;
use crate::usecase::bulk::BulkError;
use crate::usecase::inspect::ControlError;
use crate::usecase::queues::QueueError;
use crate::usecase::resolve::ResolveError;
use crate::usecase::retry::RetryError;
use crate::usecase::revoke::RevokeError;
use crate::usecase::schedules::ScheduleError;
use crate::usecase::submit::SubmitError;
use crate::usecase::waits::WaitError;
use crate::usecase::webhooks::WebhookError;
use celery::task::{Json, TaskId, invalid};
use ledger::WaitState;

/// What is wrong with one place of the request.
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
    /// Says which encodings of a body would be taken.
    tells_encodings: bool,
    /// What `WWW-Authenticate` says beside the realm.
    challenge: Option<Box<str>>,
    /// What an earlier request answered.
    answer: Option<Box<Json>>,
    /// For the log only.
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// The document (`application/problem+json`).
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
    /// What is wrong this time.
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
    /// The answer that counts, where an earlier one does.
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

    /// Says which encodings of a body would be taken (RFC 9110, 12.5.3).
    pub fn telling_encodings(mut self) -> Self {
        self.tells_encodings = true;
        self
    }

    /// A token was given, and it is worth nothing (RFC 6750).
    pub fn invalid_token(mut self) -> Self {
        self.challenge = Some("error=\"invalid_token\"".into());
        self
    }

    /// The token is valid and lacks this scope (RFC 6750).
    pub fn insufficient_scope(scope: &str, token: &str) -> Self {
        let mut problem = Self::new(&slugs::INSUFFICIENT_SCOPE)
            .detail(format!("the token {token:?} does not have the scope {scope}"));
        problem.challenge = Some(format!("error=\"insufficient_scope\", scope=\"{scope}\"").into());
        problem
    }

    /// What is wrong this time, if that was said.
    pub fn told(&self) -> Option<&str> {
        self.detail.as_deref()
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

    /// The document as JSON text, for a problem inside of an answer.
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

    /// The answer, with the path of the request it belongs to.
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
    /// The middleware that logs renders it again, with its request's path.
    fn into_response(self) -> Response {
        let mut response = self.render(None);
        response.extensions_mut().insert(self);
        response
    }
}

/// How long to wait for a ledger that is away.
const LEDGER_PAUSE: Duration = Duration::from_secs(2);
/// How long to wait for a Redis that is away.
const REDIS_PAUSE: Duration = Duration::from_secs(2);

impl From<ledger::Error> for Problem {
    fn from(error: ledger::Error) -> Self {
        if error.is_transient() {
            return Self::new(&slugs::LEDGER_UNAVAILABLE).retry_after(LEDGER_PAUSE).caused_by(error);
        }
        Self::new(&slugs::INTERNAL).caused_by(error)
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Unavailable | CommitError::TimedOut => {
                Self::new(&slugs::LEDGER_UNAVAILABLE).retry_after(LEDGER_PAUSE).caused_by(error)
            }
            CommitError::Refused => Self::new(&slugs::INTERNAL).caused_by(error),
        }
    }
}

impl From<WaitError> for Problem {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::Unknown => Self::new(&slugs::WAIT_NOT_FOUND),
            WaitError::Invalid(found) => Self::invalid(found),
            WaitError::Over(wait) => {
                let at = wait.ended_at.unwrap_or(wait.new.expires_at).rfc3339();
                let mut problem = Self::new(&slugs::WAIT_OVER).detail(format!(
                    "{} has ended: it was {} at {at}",
                    wait.new.name,
                    wait.state.as_str()
                ));
                problem.answer = wait.answer.filter(|_| wait.state == WaitState::Answered).map(Box::new);
                problem
            }
            WaitError::Ledger(error) => error.into(),
        }
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Invalid(found) => Self::invalid(found),
            SubmitError::NotAllowed { ref name, ref nearest } => {
                let hint = nearest.as_ref().map_or_else(String::new, |near| format!("; did you mean {near}?"));
                let detail = format!("{name} is neither in the catalog nor allowed{hint}");
                Self::new(&slugs::TASK_NOT_ALLOWED).error("/task", detail.clone()).detail(detail)
            }
            SubmitError::NotYours { ref name, ref patterns } => {
                let detail = format!("the token may not submit {name}, only {}", patterns.join(", "));
                Self::new(&slugs::TASK_NOT_ALLOWED).error("/task", detail.clone()).detail(detail)
            }
            SubmitError::IdTaken { id, pointer } => {
                Self::new(&slugs::ID_TAKEN).error(pointer, "is already used").detail(format!("{id} is already used"))
            }
            SubmitError::KeyReused | SubmitError::Replay(_) => Self::new(&slugs::IDEMPOTENCY_KEY_REUSED),
            SubmitError::Limited { ref key, retry_after } => {
                let detail = format!("no task of {key} may start now, and this one was not to wait");
                Self::new(&slugs::LIMIT_REACHED).retry_after(retry_after).detail(detail)
            }
            SubmitError::Backlog { retry_after, .. } => {
                Self::new(&slugs::BACKLOG_FULL).retry_after(retry_after).detail(error.to_string())
            }
            SubmitError::KeyHeld { ref holder, fought, .. } => {
                let detail = error.to_string();
                let more = if fought { ", and could not be replaced" } else { "" };
                Self::new(&slugs::KEY_HELD).error("/unique", format!("is held by {holder}{more}")).detail(detail + more)
            }
            SubmitError::Revoke(error) => error.into(),
            SubmitError::NobodyRunsIt(detail) => Self::new(&slugs::NOBODY_RUNS_IT).detail(detail),
            SubmitError::Ledger(error) => error.into(),
            SubmitError::Read(error) => error.into(),
        }
    }
}

impl From<BulkError> for Problem {
    fn from(error: BulkError) -> Self {
        match error {
            BulkError::Nothing { pointer, detail } => Self::misfit(vec![Place { pointer: pointer.to_owned(), detail }]),
            BulkError::Unknown(_) => Self::new(&slugs::BULK_NOT_FOUND).detail(error.to_string()),
            BulkError::Ended(_) => Self::new(&slugs::BULK_ENDED).detail(error.to_string()),
            BulkError::KeyReused => Self::new(&slugs::IDEMPOTENCY_KEY_REUSED),
            BulkError::Ledger(error) => error.into(),
        }
    }
}

impl From<ScheduleError> for Problem {
    fn from(error: ScheduleError) -> Self {
        match error {
            ScheduleError::Invalid(found) => Self::invalid(found),
            ScheduleError::Unknown(name) => {
                Self::new(&slugs::SCHEDULE_NOT_FOUND).detail(format!("there is no schedule {name}"))
            }
            ScheduleError::NameTaken(name) => Self::new(&slugs::NAME_TAKEN)
                .detail(format!("there is a schedule {name} already"))
                .error("/name", "is taken"),
            ScheduleError::Changed => Self::new(&slugs::PRECONDITION_FAILED),
            ScheduleError::KeyReused => Self::new(&slugs::IDEMPOTENCY_KEY_REUSED),
            ScheduleError::Submit(error) => error.into(),
            ScheduleError::Ledger(error) => error.into(),
        }
    }
}

impl From<WebhookError> for Problem {
    fn from(error: WebhookError) -> Self {
        match error {
            WebhookError::Invalid(found) => Self::invalid(found),
            WebhookError::Unknown(_) => Self::new(&slugs::WEBHOOK_NOT_FOUND).detail(error.to_string()),
            WebhookError::UnknownDelivery(_) => Self::new(&slugs::DELIVERY_NOT_FOUND).detail(error.to_string()),
            WebhookError::BuiltIn(_) => Self::new(&slugs::WEBHOOK_BUILT_IN).detail(error.to_string()),
            WebhookError::TooMany => Self::new(&slugs::TOO_MANY_WEBHOOKS),
            WebhookError::KeyReused => Self::new(&slugs::IDEMPOTENCY_KEY_REUSED),
            WebhookError::Busy => Self::new(&slugs::OVERLOADED).retry_after(Duration::from_secs(1)),
            WebhookError::Ledger(error) => error.into(),
        }
    }
}

impl From<catalog::ResolveError> for Problem {
    fn from(error: catalog::ResolveError) -> Self {
        match error {
            catalog::ResolveError::UnknownValue { .. } => Self::new(&slugs::UNKNOWN_VALUE).detail(error.to_string()),
            catalog::ResolveError::Invalid(found) => {
                let places = found.into_iter().map(|one| Place { pointer: one.pointer, detail: one.detail });
                Self::misfit(places.collect())
            }
        }
    }
}

impl From<broker::Error> for Problem {
    fn from(error: broker::Error) -> Self {
        Self::new(&slugs::REDIS_UNAVAILABLE).retry_after(REDIS_PAUSE).caused_by(error)
    }
}

impl From<RevokeError> for Problem {
    fn from(error: RevokeError) -> Self {
        match error {
            RevokeError::Unknown(id) => Self::unknown(&id),
            RevokeError::Redis(error) => error.into(),
            RevokeError::Ledger(error) => error.into(),
        }
    }
}

impl From<RetryError> for Problem {
    fn from(error: RetryError) -> Self {
        match error {
            RetryError::Unknown(id) => Self::unknown(&id),
            RetryError::NotReplayable { .. } => Self::new(&slugs::NOT_REPLAYABLE).detail(error.to_string()),
            RetryError::NotDead(_) => Self::new(&slugs::NOT_A_DEAD_LETTER).detail(error.to_string()),
            RetryError::Revoke(error) => error.into(),
            RetryError::Submit(error) => error.into(),
            RetryError::Ledger(error) => error.into(),
            RetryError::Commit(error) => error.into(),
        }
    }
}

impl From<ResolveError> for Problem {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Unknown(id) => Self::unknown(&id),
            ResolveError::Ended { .. } => Self::new(&slugs::ALREADY_ENDED).detail(error.to_string()),
            ResolveError::Held { .. } => Self::new(&slugs::STILL_HELD).detail(error.to_string()),
            ResolveError::NotReplayable { .. } => Self::new(&slugs::NOT_REPLAYABLE).detail(error.to_string()),
            ResolveError::Redis(error) => error.into(),
            ResolveError::Ledger(error) => error.into(),
        }
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::UnknownCommand { ref nearest, .. } => {
                let hint = nearest.as_ref().map_or_else(String::new, |near| format!("; did you mean {near}?"));
                Self::new(&slugs::UNKNOWN_COMMAND).detail(format!("{error}{hint}"))
            }
            ControlError::Invalid(found) => Self::invalid(found),
            ControlError::Redis(error) => error.into(),
            ControlError::Ledger(error) => error.into(),
        }
    }
}

impl From<QueueError> for Problem {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Unable(_) => Self::new(&slugs::UNABLE).detail(error.to_string()),
            QueueError::Redis(error) => error.into(),
            QueueError::Ledger(error) => error.into(),
        }
    }
}

impl Problem {
    pub fn unknown(id: &TaskId) -> Self {
        Self::new(&slugs::TASK_NOT_FOUND).detail(format!("this ledger never saw {id}"))
    }

    /// What a reader of signatures found.
    pub fn invalid(found: Vec<invalid::Invalid>) -> Self {
        Self::misfit(found.into_iter().map(|one| Place { pointer: one.pointer, detail: one.detail }).collect())
    }

    fn misfit(errors: Vec<Place>) -> Self {
        let detail = match errors.as_slice() {
            [one] if one.pointer.is_empty() => format!("the body {}", one.detail),
            [one] => format!("{}: {}", one.pointer, one.detail),
            many => format!("{} places do not fit", many.len()),
        };
        Self::new(&slugs::INVALID_REQUEST).detail(detail).errors(errors)
    }
}
