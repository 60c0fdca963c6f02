//! The inboxes that this gateway drains: the ledger's own and those of `[[inboxes]]`. Shared by the role that drains them and by readers,
//! to whom a committed call must be a task at once.
//!
//! An inbox whose database is away answers nobody, and nobody waits for it: readers pass it over until it was drained again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;

use ledger::inbox::{Call, Inbox};

/// How long a reader waits for one inbox.
const PATIENCE: Duration = Duration::from_secs(1);

/// One inbox.
pub struct Source {
    /// For people: its address without a password.
    pub name: String,
    pub inbox: Inbox,
    /// How often it is looked at when nothing is heard of it.
    pub poll: Duration,
    wake: Notify,
    away: AtomicBool,
}

impl Source {
    pub fn new(name: String, inbox: Inbox, poll: Duration) -> Self {
        Self { name, inbox, poll, wake: Notify::new(), away: AtomicBool::new(false) }
    }

    /// Says that a call may be waiting. A lost word costs one period.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Notes whether it answers; true when that is news.
    pub fn note_away(&self, away: bool) -> bool {
        self.away.swap(away, Ordering::AcqRel) != away
    }

    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }

    async fn find(&self, id: &str) -> Option<Call> {
        let found = tokio::time::timeout(PATIENCE, self.inbox.find(id)).await;
        let call = found.ok()?.ok()??;
        self.wake();
        Some(call)
    }
}

/// All of them. Cheap to clone.
#[derive(Clone)]
pub struct Inboxes(Arc<[Source]>);

impl Inboxes {
    pub fn new(sources: Vec<Source>) -> Self {
        Self(sources.into())
    }

    pub fn sources(&self) -> &[Source] {
        &self.0
    }

    /// The committed call of this id that is not a task yet. Its inbox is drained next.
    pub async fn find(&self, id: &str) -> Option<Call> {
        let asked = self.0.iter().filter(|source| !source.is_away()).map(|source| source.find(id));
        let mut answers: FuturesUnordered<_> = asked.collect();
        while let Some(answer) = answers.next().await {
            if answer.is_some() {
                return answer;
            }
        }
        None
    }
}
