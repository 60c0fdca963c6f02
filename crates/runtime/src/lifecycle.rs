//! Registers every spawned task, so that shutdown waits for it, together with what its end means for the process.
//!
//! A soft stop cancels the token; each task then finishes its current work. Tasks that have not ended at the deadline are aborted.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// What it means when a task ends without having been asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// The process cannot work without the task, so it stops.
    StopProcess,
    /// The task is meant to end.
    Nothing,
}

/// The tasks of one process. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    stop: CancellationToken,
    set: Arc<Mutex<JoinSet<&'static str>>>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new(CancellationToken::new())
    }
}

impl Tasks {
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop, set: Arc::default() }
    }

    /// The token that is cancelled when the process has to stop.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs `work` until it ends or the process stops. `work` gets the token and must end when it is cancelled.
    pub fn spawn<F, W>(&self, name: &'static str, on_exit: OnExit, work: W)
    where
        W: FnOnce(CancellationToken) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        let future = work(stop.clone());
        let guard = StopUnlessQuiet { name, stop, armed: on_exit == OnExit::StopProcess };
        let mut set = self.set.lock().expect("nothing panics under this lock");
        while set.try_join_next().is_some() {}
        set.spawn(async move {
            let _guard = guard;
            future.await;
            name
        });
    }

    /// Cancels the token and waits for all tasks, at most `deadline`; then aborts the rest.
    pub async fn shut_down(&self, deadline: Duration) {
        self.stop.cancel();
        let mut set = std::mem::take(&mut *self.set.lock().expect("nothing panics under this lock"));
        let all = async { while set.join_next().await.is_some() {} };
        if tokio::time::timeout(deadline, all).await.is_err() {
            warn!(left = set.len(), "stopping hard: {} tasks did not end in time", set.len());
            set.abort_all();
        }
    }
}

/// Stops the process when a task that it depends on returns or panics.
struct StopUnlessQuiet {
    name: &'static str,
    stop: CancellationToken,
    armed: bool,
}

impl Drop for StopUnlessQuiet {
    fn drop(&mut self) {
        if self.armed && !self.stop.is_cancelled() {
            error!(task = self.name, "{} ended unexpectedly, stopping the process", self.name);
            self.stop.cancel();
        }
    }
}

/// Completes on SIGTERM or SIGINT. The signal handlers are installed by the call, not by the first poll.
///
/// # Panics
/// When the handlers cannot be installed.
pub fn terminated() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).expect("a handler for SIGTERM can be installed");
    let mut int = signal(SignalKind::interrupt()).expect("a handler for SIGINT can be installed");
    async move {
        tokio::select! {
            _ = term.recv() => info!("SIGTERM: stopping"),
            _ = int.recv() => info!("SIGINT: stopping"),
        }
    }
}

/// Pauses between attempts: they grow from 100 ms to `cap`, with jitter, and are reset by a success.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    cap: Duration,
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);

impl Backoff {
    pub fn new(cap: Duration) -> Self {
        Self { next: FIRST_PAUSE, cap }
    }

    pub fn reset(&mut self) {
        self.next = FIRST_PAUSE;
    }

    /// Whether this is the first failure after a success. Only this failure is logged.
    pub fn is_fresh(&self) -> bool {
        self.next == FIRST_PAUSE
    }

    /// The next pause: half of the step is fixed and half is random, so that replicas do not all return at the same moment.
    pub fn pause(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.cap);
        step / 2 + step.mul_f64(rand::random::<f64>() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_needed_task_stops_the_process() {
        let tasks = Tasks::default();
        tasks.spawn("relay", OnExit::StopProcess, |_| async {});
        tasks.stop_token().cancelled().await;
    }

    #[tokio::test]
    async fn shutdown_waits_for_what_ends_and_aborts_what_does_not() {
        let tasks = Tasks::default();
        tasks.spawn("good", OnExit::Nothing, |stop| async move { stop.cancelled().await });
        tasks.spawn("deaf", OnExit::Nothing, |_| std::future::pending());
        tasks.shut_down(Duration::from_millis(50)).await;
    }

    #[test]
    fn a_backoff_grows_to_its_cap() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        for _ in 0..10 {
            assert!(backoff.pause() <= Duration::from_secs(1));
        }
        assert!(backoff.pause() >= Duration::from_millis(500));
        backoff.reset();
        assert!(backoff.pause() <= FIRST_PAUSE);
    }
}
