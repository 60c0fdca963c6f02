//! The options of one task, which apply to every run unless its message says otherwise. Defaults are Celery's.

use std::sync::Arc;
use std::time::Duration;

use super::rate::Rate;
use super::storage::Storage;
use celery::task::RetryPolicy;

/// The settings of one registered task. Each method returns the settings, so that calls can be chained.
#[derive(Debug, Clone, Default)]
pub struct TaskOptions {
    pub(crate) acks_late: Option<bool>,
    pub(crate) reject_on_worker_lost: bool,
    pub(crate) acks_on_failure_or_timeout: Option<bool>,
    pub(crate) ignore_result: bool,
    pub(crate) track_started: Option<bool>,
    pub(crate) soft_time_limit: Option<Duration>,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) rate_limit: Option<Rate>,
    pub(crate) retry: RetryPolicy,
    pub(crate) retry_failures: bool,
    pub(crate) child: bool,
    pub(crate) storage: Option<Arc<dyn Storage>>,
}

impl TaskOptions {
    /// Acknowledges the message after the task, not before it: a worker that dies does not lose it, but the task may run twice.
    pub fn acks_late(&mut self, yes: bool) -> &mut Self {
        self.acks_late = Some(yes);
        self
    }

    /// With `acks_late`: the task runs again when the child process that ran it died. Default: it fails with `WorkerLostError`.
    pub fn reject_on_worker_lost(&mut self, yes: bool) -> &mut Self {
        self.reject_on_worker_lost = yes;
        self
    }

    /// With `acks_late`: `false` leaves the message of a failed or timed-out task in its queue. Default `true`.
    pub fn acks_on_failure_or_timeout(&mut self, yes: bool) -> &mut Self {
        self.acks_on_failure_or_timeout = Some(yes);
        self
    }

    /// Runs in a child process: a handler that leaks, crashes or never yields harms one run only, and the hard time limit always kills it.
    /// Default: as the worker's pool says. A command has a process of its own anyway.
    pub fn child(&mut self, yes: bool) -> &mut Self {
        self.child = yes;
        self
    }

    /// Where arguments and results go that are too large for a message. A result that another task reads stays as it is.
    pub fn storage(&mut self, storage: Arc<dyn Storage>) -> &mut Self {
        self.storage = Some(storage);
        self
    }

    /// Stores no result unless the message asks for it.
    pub fn ignore_result(&mut self, yes: bool) -> &mut Self {
        self.ignore_result = yes;
        self
    }

    /// Stores a STARTED record. Default: the worker's setting, which is `false` by default.
    pub fn track_started(&mut self, yes: bool) -> &mut Self {
        self.track_started = Some(yes);
        self
    }

    /// After this time the handler is cancelled, or dropped if it does not watch its cancellation. Default none.
    pub fn soft_time_limit(&mut self, limit: Duration) -> &mut Self {
        self.soft_time_limit = Some(limit);
        self
    }

    /// After this time the task fails, whatever it does. Default none.
    pub fn time_limit(&mut self, limit: Duration) -> &mut Self {
        self.time_limit = Some(limit);
        self
    }

    /// The most starts per time in this worker, in Celery's notation: `"100/m"`, `"10/s"`, `"2/h"`, `"5"`.
    ///
    /// # Panics
    /// When the text is not a rate.
    pub fn rate_limit(&mut self, rate: &str) -> &mut Self {
        self.rate_limit = Rate::parse(rate).expect("a rate limit is a number with /s, /m or /h");
        self
    }

    /// When and how often a retry runs that does not say so itself.
    pub fn retry(&mut self, policy: RetryPolicy) -> &mut Self {
        self.retry = policy;
        self
    }

    /// Retries every failure, as `autoretry_for=(Exception,)` does in Python.
    pub fn retry_failures(&mut self, policy: RetryPolicy) -> &mut Self {
        self.retry_failures = true;
        self.retry(policy)
    }
}
