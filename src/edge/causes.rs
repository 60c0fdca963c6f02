//! Converts the errors of use cases and the ledger into problems.

use std::time::Duration;

use super::problem::{Place, Problem};
use super::slugs;
use crate::catalog;
use crate::live::commit::CommitError;
use crate::stores::StoreError;
use crate::usecase::bulk::BulkError;
use crate::usecase::incidents::IncidentError;
use crate::usecase::inspect::ControlError;
use crate::usecase::queues::QueueError;
use crate::usecase::resolve::ResolveError;
use crate::usecase::retry::RetryError;
use crate::usecase::revoke::RevokeError;
use crate::usecase::schedules::ScheduleError;
use crate::usecase::submit::SubmitError;
use crate::usecase::waits::WaitError;
use crate::usecase::webhooks::WebhookError;
use ledger::WaitState;

/// `Retry-After` while the ledger does not answer.
const LEDGER_PAUSE: Duration = Duration::from_secs(2);
/// How long to wait for a store of files that is away.
const STORE_PAUSE: Duration = Duration::from_secs(5);
/// `Retry-After` while Redis does not answer.
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
                let name = &wait.new.name;
                let detail = format!("{name} has ended: it was {} at {at}", wait.state.as_str());
                let answer = wait.answer.filter(|_| wait.state == WaitState::Answered);
                Self::new(&slugs::WAIT_OVER).detail(detail).answered(answer)
            }
            WaitError::Ledger(error) => error.into(),
        }
    }
}

impl From<IncidentError> for Problem {
    fn from(error: IncidentError) -> Self {
        match error {
            IncidentError::Unknown(_) => Self::new(&slugs::INCIDENT_NOT_FOUND).detail(error.to_string()),
            IncidentError::Ledger(error) => error.into(),
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
                let places = found.into_iter().map(|fault| Place { pointer: fault.pointer, detail: fault.detail });
                Self::misfit(places.collect())
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::new(&slugs::STORE_UNAVAILABLE).retry_after(STORE_PAUSE).caused_by(error)
    }
}

impl From<broker::Error> for Problem {
    /// What the broker said itself is told; other errors have addresses in them.
    fn from(error: broker::Error) -> Self {
        let is_told = matches!(error, broker::Error::Refused { .. } | broker::Error::Unexpected(_));
        let problem = Self::new(&slugs::REDIS_UNAVAILABLE).retry_after(REDIS_PAUSE);
        let problem = if is_told { problem.detail(error.to_string()) } else { problem };
        problem.caused_by(error)
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
