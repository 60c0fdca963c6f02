//! The inboxes that this gateway drains: the ledger's own and those of `[[inboxes]]`. Shared by the role that drains them and by
//! readers, who must see a committed call as a task at once.
//!
//! Readers skip an inbox whose database is down, until it has been drained again, so that no request waits for it.

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
    /// Name for display: its address without the password.
    pub name: String,
    pub inbox: Inbox,
    /// How often it is polled when no notification arrives.
    pub poll: Duration,
    wake: Notify,
    away: AtomicBool,
}

impl Source {
    pub fn new(name: String, inbox: Inbox, poll: Duration) -> Self {
        Self { name, inbox, poll, wake: Notify::new(), away: AtomicBool::new(false) }
    }

    /// Wakes the drain because a call may be waiting. A lost wake-up costs one period.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Records whether it answers; returns true when that has changed.
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

/// All inboxes. Cheap to clone.
#[derive(Clone)]
pub struct Inboxes(Arc<[Source]>);

impl Inboxes {
    pub fn new(sources: Vec<Source>) -> Self {
        Self(sources.into())
    }

    pub fn sources(&self) -> &[Source] {
        &self.0
    }

    /// The committed call of this id that is not a task yet. Also wakes the drain of its inbox.
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
