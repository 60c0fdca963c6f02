//! Runs one task to its end within its limits. `finish` handles the outcome.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::warn;

use super::cancellation::{Cancellation, Cause};
use super::command;
use super::context::Context;
use super::error::{Failure, TaskError};
use super::logs::CURRENT;
use super::registry::Run;
use super::request::{Limits, Outcome, Request};
use super::storage::Storage;
use celery::task::Json;

/// How a run is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kill {
    /// Revoked with `terminate`; child processes get this signal.
    Terminate { signal: i32 },
    /// A cold shutdown.
    Shutdown,
}

/// One run, and everything that may end it.
pub(crate) struct Execution {
    pub context: Context,
    pub cancellation: Cancellation,
    pub limits: Limits,
    pub kill: tokio::sync::watch::Receiver<Option<Kill>>,
}

impl Execution {
    /// Runs the task in this process, or a command in its own process.
    ///
    /// # Cancel safety
    /// A dropped run drops its handler; threads go on, commands are killed.
    pub async fn run_here(self) -> Outcome {
        let request = Arc::clone(&self.context.run().request);
        let Some(storage) = request.task.options.storage.clone() else { return self.run_whole().await };
        match storage.arguments(&request.message.args, &request.message.kwargs).await {
            Ok(Some(arguments)) => drop(self.context.run().arguments.set(arguments)),
            Ok(None) => {}
            Err(reason) => return Outcome::Error(Failure::new("taskgate", "StorageError", &reason).into()),
        }
        match self.run_whole().await {
            Outcome::Returned(result) if !request.is_followed() => {
                Outcome::Returned(kept(&*storage, &request, result).await)
            }
            outcome => outcome,
        }
    }

    /// Runs it with the arguments that its context has.
    async fn run_whole(mut self) -> Outcome {
        let task = Arc::clone(&self.context.run().request.task);
        match &task.run {
            Run::Async(handler) => {
                let handler = handler(self.context.clone());
                let handler = CURRENT.scope(self.context.clone(), handler);
                self.supervise(handler).await
            }
            Run::Blocking(handler) => {
                let (handler, context) = (Arc::clone(handler), self.context.clone());
                let thread =
                    tokio::task::spawn_blocking(move || CURRENT.sync_scope(context.clone(), || handler(context)));
                self.supervise(async move { thread.await.unwrap_or_else(|error| Err(panicked(error.into_panic()))) })
                    .await
            }
            Run::Command(command) => command::run(command, &mut self).await,
        }
    }

    /// Runs a handler in this process.
    async fn supervise(&mut self, handler: impl Future<Output = Result<Json, TaskError>>) -> Outcome {
        let mut work = pin!(AssertUnwindSafe(handler).catch_unwind());
        if self.limits == Limits::default() {
            return tokio::select! {
                biased;
                ended = &mut work => outcome(ended),
                kill = killed(&mut self.kill) => self.end(kill),
            };
        }
        let started = Instant::now();
        let (mut soft, hard) = (self.limits.soft, self.limits.hard);
        loop {
            tokio::select! {
                biased;
                ended = &mut work => return outcome(ended),
                kill = killed(&mut self.kill) => return self.end(kill),
                limit = passed(started, hard) => {
                    self.cancellation.cancel(Cause::TimeLimit);
                    return Outcome::TimeLimit(limit);
                }
                _ = passed(started, soft) => {
                    soft = None;
                    self.cancellation.cancel(Cause::SoftTimeLimit);
                    if !self.cancellation.is_watched() {
                        return Outcome::SoftTimeLimit;
                    }
                }
            }
        }
    }

    fn end(&self, kill: Kill) -> Outcome {
        match kill {
            Kill::Terminate { signal } => {
                self.cancellation.cancel(Cause::Terminated);
                Outcome::Terminated { signal }
            }
            Kill::Shutdown => {
                self.cancellation.cancel(Cause::Shutdown);
                Outcome::Cancelled
            }
        }
    }
}

/// What is written down for a result.
async fn kept(storage: &dyn Storage, request: &Request, result: Json) -> Json {
    match storage.result(&request.message.id, &result).await {
        Ok(reference) => reference.unwrap_or(result),
        Err(reason) => {
            let id = request.id();
            warn!(task.id = %id, error = reason, "the result of {id} could not be put into its store and is written down as it is");
            result
        }
    }
}

/// Completes when the run is killed; never if the sender is gone.
pub(crate) async fn killed(kill: &mut tokio::sync::watch::Receiver<Option<Kill>>) -> Kill {
    let how = kill.wait_for(Option::is_some).await.ok().and_then(|how| *how);
    match how {
        Some(how) => how,
        None => std::future::pending().await,
    }
}

/// Completes when `limit` has passed, and returns it; never without a limit.
pub(crate) async fn passed(started: Instant, limit: Option<Duration>) -> Duration {
    let Some(limit) = limit else { return std::future::pending().await };
    tokio::time::sleep_until(started + limit).await;
    limit
}

fn outcome(ended: std::thread::Result<Result<Json, TaskError>>) -> Outcome {
    match ended {
        Ok(Ok(value)) => Outcome::Returned(value),
        Ok(Err(error)) => Outcome::Error(error),
        Err(panic) => Outcome::Error(panicked(panic)),
    }
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> TaskError {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    let text = text.unwrap_or_else(|| "the handler panicked".to_owned());
    Failure::new("taskgate", "Panic", &text).traceback(format!("the handler panicked: {text}")).into()
}
