//! How a running task learns that it should end, and the worker whether it will do so by itself.
//!
//! Python raises an exception inside the task; Rust cannot. So a handler that asks for [`Context::cancellation`] is trusted to end
//! by itself (until its hard limit), and one that never asked is dropped at its next `await`.
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
    /// Its hard time limit passed: what it still does counts for nothing.
    TimeLimit,
    /// Somebody revoked it with `terminate`.
    Terminated,
    /// The worker stops and waits for nobody any more.
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
    /// The first cause counts.
    pub(crate) fn cancel(&self, cause: Cause) {
        let _ = self.0.cause.set(cause);
        self.0.token.cancel();
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.0.token
    }

    /// Whether the handler looks at it.
    pub(crate) fn is_watched(&self) -> bool {
        self.0.watched.load(Ordering::Acquire)
    }

    pub(crate) fn watch(&self) -> &Self {
        self.0.watched.store(true, Ordering::Release);
        self
    }

    /// Ends when the task should.
    pub async fn cancelled(&self) -> Cause {
        self.0.token.cancelled().await;
        self.cause().expect("the cause is set before the token is cancelled")
    }

    /// For blocking handlers: ask now and then.
    pub fn is_cancelled(&self) -> bool {
        self.0.token.is_cancelled()
    }

    /// `None` while the task may go on.
    pub fn cause(&self) -> Option<Cause> {
        self.0.cause.get().copied()
    }
}
