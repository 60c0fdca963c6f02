//! What all parts of one worker share: settings, connections, events, acknowledgements, and retries while Redis is down.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::request::Origin;

use super::acks::Acks;
use super::children::Children;
use super::events::Events;
use super::logs::LogSink;
use super::results::Results;
use super::settings::Settings;
use broker::backend::{Backend, Stored, Unless};
use broker::{Error, Lists, Return};
use runtime::lifecycle::Backoff;

/// The longest pause between attempts while Redis is down.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Attempts at a call that Redis refuses (as opposed to not answering): a server out of memory may recover, a wrong type will not.
const REFUSALS: u32 = 8;

pub(crate) struct Shared {
    pub settings: Settings,
    pub broker: Lists,
    pub backend: Backend,
    pub events: Events,
    pub logs: LogSink,
    pub acks: Acks,
    pub children: Arc<Children>,
    pub results: Results,
    /// Tasks running now, and tasks started so far.
    pub active: AtomicUsize,
    pub processed: AtomicU64,
    /// Cancelled when the worker stops waiting for anything.
    pub hard_stop: CancellationToken,
}

impl Shared {
    /// Repeats `call` until it succeeds, because results must be stored. `None` when the worker stops hard, or Redis keeps
    /// refusing. `call` must be safe to repeat.
    pub async fn patiently<T, F, W>(&self, what: &'static str, call: F) -> Option<T>
    where
        F: Fn() -> W,
        W: Future<Output = Result<T, Error>>,
    {
        let mut backoff = Backoff::new(LONGEST_PAUSE);
        let mut refusals = 0;
        loop {
            let problem = tokio::select! {
                biased;
                done = call() => match done {
                    Ok(value) => {
                        if !backoff.is_fresh() {
                            info!("{what}: done, Redis is back");
                        }
                        return Some(value);
                    }
                    Err(problem) => problem,
                },
                () = self.hard_stop.cancelled() => return None,
            };
            refusals += u32::from(problem.is_refusal());
            if refusals > REFUSALS {
                error!(error = %problem, "{what}: given up, Redis refuses: {problem}");
                return None;
            }
            if backoff.is_fresh() {
                warn!(error = %problem, "{what}: Redis failed, trying again: {problem}");
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

impl Shared {
    /// Stores a task's record unless a SUCCESS exists, in a batch with others if there are any.
    pub async fn store(&self, task_id: &str, record: String) {
        let Some(Stored::Refused(why)) = self.results.store(task_id, record.clone()).await else { return };
        warn!(task.id = task_id, "the result of {task_id} was refused, trying again: {why}");
        let store = || self.backend.store(task_id, &record, self.settings.result_expires, Unless::Succeeded);
        self.patiently("storing a result", store).await;
    }

    /// Puts a message back into its queue.
    pub async fn give_back(&self, origin: &Origin, place: Return) {
        let Some(tag) = &origin.tag else { return };
        let requeue = || self.broker.requeue(tag, &origin.queue, origin.priority, &origin.raw, place);
        self.patiently("returning a message", requeue).await;
    }
}

pub(crate) type SharedRef = Arc<Shared>;
