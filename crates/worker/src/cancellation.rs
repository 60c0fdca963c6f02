//! Tells a running task that it should end, and tells the worker whether the handler watches for that.
//!
//! Python raises an exception inside the task; Rust cannot. So a handler that called [`Context::cancellation`] is trusted to end
//! by itself (until its hard limit), and a handler that never called it is dropped at its next `await`.
//!
//! [`Context::cancellation`]: super::Context::cancellation

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Why a task should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its soft time limit passed.
    SoftTimeLimit,
    /// Its hard time limit passed: its result is ignored.
    TimeLimit,
    /// A client revoked it with `terminate`.
    Terminated,
    /// The worker stops without waiting for running tasks.
    Shutdown,
}

/// Tells one running task to end. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Cancellation(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    token: CancellationToken,
    cause: OnceLock<Cause>,
    watched: AtomicBool,
}

impl Cancellation {
    /// Cancels the run. Only the first cause is kept.
    pub(crate) fn cancel(&self, cause: Cause) {
        let _ = self.0.cause.set(cause);
        self.0.token.cancel();
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.0.token
    }

    /// Whether the handler watches it.
    pub(crate) fn is_watched(&self) -> bool {
        self.0.watched.load(Ordering::Acquire)
    }

    pub(crate) fn watch(&self) -> &Self {
        self.0.watched.store(true, Ordering::Release);
        self
    }

    /// Completes when the task should end.
    pub async fn cancelled(&self) -> Cause {
        self.0.token.cancelled().await;
        self.cause().expect("the cause is set before the token is cancelled")
    }

    /// For blocking handlers, which call it now and then.
    pub fn is_cancelled(&self) -> bool {
        self.0.token.is_cancelled()
    }

    /// Why the task should end; `None` while it may go on.
    pub fn cause(&self) -> Option<Cause> {
        self.0.cause.get().copied()
    }
}
