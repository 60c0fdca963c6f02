//! The problems that a handler may answer with, derived from its error types: each error type declares its problems once.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use axum::response::{IntoResponse, Response};
use utoipa::IntoResponses;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response as Documented, ResponseBuilder};

use crate::catalog::ResolveError;
use crate::edge::problem::Problem;
use crate::edge::slugs::{self, Slug};
use crate::live::commit::CommitError;
use crate::usecase::bulk::BulkError;
use crate::usecase::incidents::IncidentError;
use crate::usecase::inspect::ControlError;
use crate::usecase::queues::QueueError;
use crate::usecase::resolve;
use crate::usecase::retry::RetryError;
use crate::usecase::revoke::RevokeError;
use crate::usecase::schedules::ScheduleError;
use crate::usecase::submit::SubmitError;
use crate::usecase::waits::WaitError;
use crate::usecase::webhooks::WebhookError;

/// A refusal caused by `E`: an error type, a part of the request, or a tuple of these.
pub struct Refused<E> {
    problem: Problem,
    from: PhantomData<fn() -> E>,
}

/// The problems that an error type or a part of the request can cause.
pub trait Refusals {
    fn kinds() -> Vec<&'static Slug>;
}

impl<E> From<Problem> for Refused<E> {
    fn from(problem: Problem) -> Self {
        Self { problem, from: PhantomData }
    }
}

impl<E> IntoResponse for Refused<E> {
    fn into_response(self) -> Response {
        self.problem.into_response()
    }
}

impl<E: Refusals> IntoResponses for Refused<E> {
    /// Kinds of the same status share a response.
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        let mut titles: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for kind in E::kinds() {
            let titles = titles.entry(kind.status.as_u16()).or_default();
            if !titles.contains(&kind.title) {
                titles.push(kind.title);
            }
        }
        titles.into_iter().map(|(status, titles)| (status.to_string(), documented(&titles).into())).collect()
    }
}

fn documented(titles: &[&str]) -> Documented {
    let content = ContentBuilder::new().schema(Some(RefOr::Ref(Ref::from_schema_name("Problem"))));
    ResponseBuilder::new()
        .description(titles.join("; or: "))
        .content("application/problem+json", content.build())
        .build()
}

/// The path names a task: its id is invalid, or this ledger never saw it, or the caller may not see it.
pub struct OfTask;
/// As [`OfTask`], where a pruned task answers 410.
pub struct OfResult;
/// The body: it must be JSON of the operation's schema, within the limits.
pub struct Body;
/// The query's parameters.
pub struct Query;

macro_rules! refusals {
    ($($error:ty => [$($kind:ident),*] $(and $($more:ty),+)?;)*) => {$(
        impl Refusals for $error {
            fn kinds() -> Vec<&'static Slug> {
                #[allow(unused_mut, reason = "not every error has others inside")]
                let mut kinds: Vec<&'static Slug> = vec![$(&slugs::$kind),*];
                $($(kinds.extend(<$more>::kinds());)+)?
                kinds
            }
        }
    )*};
}

refusals! {
    () => [];
    OfTask => [INVALID_PATH, TASK_NOT_FOUND];
    OfResult => [TASK_PRUNED] and OfTask;
    Body => [INVALID_JSON, PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST];
    Query => [INVALID_QUERY, INVALID_CURSOR];
    ledger::Error => [LEDGER_UNAVAILABLE];
    broker::Error => [REDIS_UNAVAILABLE];
    CommitError => [LEDGER_UNAVAILABLE];
    BulkError => [INVALID_REQUEST, BULK_NOT_FOUND, BULK_ENDED, IDEMPOTENCY_KEY_REUSED] and ledger::Error;
    ResolveError => [UNKNOWN_VALUE, INVALID_REQUEST];
    SubmitError => [INVALID_REQUEST, TASK_NOT_ALLOWED, ID_TAKEN, IDEMPOTENCY_KEY_REUSED, BACKLOG_FULL, LIMIT_REACHED] and ledger::Error;
    ScheduleError => [INVALID_REQUEST, SCHEDULE_NOT_FOUND, NAME_TAKEN, PRECONDITION_FAILED] and SubmitError;
    WebhookError => [INVALID_REQUEST, WEBHOOK_NOT_FOUND, DELIVERY_NOT_FOUND, WEBHOOK_BUILT_IN, TOO_MANY_WEBHOOKS, IDEMPOTENCY_KEY_REUSED, OVERLOADED] and ledger::Error;
    IncidentError => [INVALID_PATH, INCIDENT_NOT_FOUND] and ledger::Error;
    WaitError => [WAIT_NOT_FOUND, WAIT_OVER, INVALID_REQUEST] and ledger::Error;
    RevokeError => [TASK_NOT_FOUND] and broker::Error, ledger::Error;
    resolve::ResolveError => [TASK_NOT_FOUND, ALREADY_ENDED, STILL_HELD, NOT_REPLAYABLE] and broker::Error, ledger::Error;
    RetryError => [TASK_NOT_FOUND, NOT_REPLAYABLE, NOT_A_DEAD_LETTER] and RevokeError, SubmitError;
    ControlError => [UNKNOWN_COMMAND, INVALID_REQUEST] and broker::Error, ledger::Error;
    QueueError => [UNABLE] and broker::Error, ledger::Error;
}

macro_rules! into_refused {
    ($($error:ty),* $(,)?) => {$(
        impl<E> From<$error> for Refused<E> {
            fn from(error: $error) -> Self {
                Problem::from(error).into()
            }
        }
    )*};
}

into_refused!(
    BulkError,
    ledger::Error,
    broker::Error,
    CommitError,
    ResolveError,
    SubmitError,
    ScheduleError,
    IncidentError,
    WaitError,
    WebhookError,
    RevokeError,
    resolve::ResolveError,
    RetryError,
    ControlError,
    QueueError,
);

macro_rules! together {
    ($($name:ident)+) => {
        impl<$($name: Refusals),+> Refusals for ($($name,)+) {
            fn kinds() -> Vec<&'static Slug> {
                let mut kinds = Vec::new();
                $(kinds.extend($name::kinds());)+
                kinds
            }
        }
    };
}

together!(A B);
together!(A B C);
together!(A B C D);
