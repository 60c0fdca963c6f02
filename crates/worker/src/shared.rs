//! What all parts of one worker share: settings, connections, events, acknowledgements, and retries while a server is down.

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
use super::records::RecordsRef;
use super::results::Results;
use super::settings::Settings;
use super::transport::TransportRef;
use broker::backend::{Record, Reply, Stored, Unless};
use broker::{Error, Return};
use runtime::lifecycle::Backoff;

/// The longest pause between attempts while a server is down.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Attempts at a call that is refused (as opposed to not answered): a server out of memory may recover, a wrong type will not.
const REFUSALS: u32 = 8;

pub(crate) struct Shared {
    pub settings: Settings,
    pub transport: TransportRef,
    pub records: RecordsRef,
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

/// Why a call is not repeated any more.
pub(crate) enum GivenUp {
    /// The worker stops hard.
    Stopping,
    /// It was refused again and again.
    Refused(Error),
}

impl Shared {
    /// Repeats `call` until it succeeds, because results must be stored. `None` when the worker stops hard, or the call is
    /// refused again and again. `call` must be safe to repeat.
    pub async fn patiently<T, F, W>(&self, what: &'static str, call: F) -> Option<T>
    where
        F: Fn() -> W,
        W: Future<Output = Result<T, Error>>,
    {
        self.attempt(what, call).await.ok()
    }

    /// As [`Shared::patiently`], for callers that must know why the call was given up.
    pub async fn attempt<T, F, W>(&self, what: &'static str, call: F) -> Result<T, GivenUp>
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
                            info!("{what}: done, the server is back");
                        }
                        return Ok(value);
                    }
                    Err(problem) => problem,
                },
                () = self.hard_stop.cancelled() => return Err(GivenUp::Stopping),
            };
            refusals += u32::from(problem.is_refusal());
            if refusals > REFUSALS {
                error!(error = %problem, "{what}: given up, it is refused: {problem}");
                return Err(GivenUp::Refused(problem));
            }
            if backoff.is_fresh() {
                warn!(error = %problem, "{what}: failed, trying again: {problem}");
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

impl Shared {
    /// Stores a task's record unless a SUCCESS exists, in a batch with others if there are any. `reply` is where it goes when results
    /// come back over the broker.
    pub async fn store(&self, task_id: &str, reply: Option<&Reply>, text: String) {
        let record = Record { task_id: task_id.to_owned(), text, reply: reply.cloned() };
        let Some(Stored::Refused(why)) = self.results.store(record.clone()).await else { return };
        warn!(task.id = task_id, "the result of {task_id} was refused, trying again: {why}");
        let store = || self.records.store(&record, self.settings.result_expires, Unless::Succeeded);
        self.patiently("storing a result", store).await;
    }

    /// Puts a message back into its queue.
    pub async fn give_back(&self, origin: &Origin, place: Return) {
        self.patiently("returning a message", || self.transport.give_back(origin, place)).await;
    }

    /// Ends a message that its task rejected.
    pub async fn reject(&self, origin: &Origin) {
        let Some(tag) = &origin.tag else { return };
        self.patiently("rejecting a message", || self.transport.reject(tag)).await;
    }

    /// Deals with the message of a task that failed and must not be acknowledged.
    pub async fn leave(&self, origin: &Origin) {
        let Some(tag) = &origin.tag else { return };
        self.patiently("rejecting a message", || self.transport.leave(tag)).await;
    }
}

pub(crate) type SharedRef = Arc<Shared>;
