//! Ends messages that have not run, and runs that have not finished: revoked, given back, killed.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use tracing::info;

use super::{Dispatcher, Entry, Input, Key, Stage};
use crate::execute::Kill;
use crate::finish::{Finish, Revocation};
use crate::request::Request;
use broker::Return;

impl Dispatcher {
    pub(super) fn settle_revoked(&mut self, key: Key, revocation: Revocation) {
        if let Some(entry) = self.entries.get_mut(&key)
            && !matches!(entry.stage, Stage::Settling)
        {
            entry.stage = Stage::Settling;
            self.settling += 1;
        }
        self.settle(key, move |finish| async move { finish.revoked(revocation).await });
    }

    /// Settles a message that does not run.
    pub(super) fn settle<F, W>(&mut self, key: Key, how: F)
    where
        F: FnOnce(Finish) -> W + Send + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let Some(entry) = self.entries.get(&key) else { return };
        let finish = Finish::new(Arc::clone(&self.shared), Arc::clone(&entry.request));
        let (request, shared, sink) = (Arc::clone(&entry.request), Arc::clone(&self.shared), self.sink.clone());
        self.tracker.spawn(async move {
            how(finish).await;
            shared.acks.ack(request.origin.tag.as_deref()).await;
            let _ = sink.send(Input::Settled { key, done: true }).await;
        });
    }

    /// Puts back a message that did not start.
    pub(super) fn give_back(&self, request: &Arc<Request>, place: Return) {
        let (shared, places, request) = (Arc::clone(&self.shared), Arc::clone(&self.places), Arc::clone(request));
        self.tracker.spawn(async move {
            shared.give_back(&request.origin, place).await;
            places.free(1);
        });
    }

    /// Drops what has not started of the messages that the broker took back: it delivers them again, here or elsewhere. What runs goes on.
    pub(super) fn lose(&mut self, tags: &[String]) {
        let lost: HashSet<&str> = tags.iter().map(String::as_str).collect();
        let waits = |entry: &Entry| matches!(entry.stage, Stage::Scheduled(_) | Stage::Reserved);
        let is_lost = |entry: &Entry| entry.request.origin.tag.as_deref().is_some_and(|tag| lost.contains(tag));
        let keys: Vec<Key> =
            self.entries.iter().filter(|(_, entry)| waits(entry) && is_lost(entry)).map(|(key, _)| *key).collect();
        let mut gone = Vec::with_capacity(keys.len());
        for key in keys {
            self.free_place(key);
            gone.extend(self.entries.remove(&key).and_then(|entry| entry.request.origin.tag.clone()));
        }
        self.forget_the_absent();
        self.shared.transport.forget(&gone);
        info!(messages = tags.len(), "the broker took {} messages back, {} had not started", tags.len(), gone.len());
    }

    /// Removes the keys of tasks that are not here any more from the lists of those that wait.
    fn forget_the_absent(&mut self) {
        let Self { entries, scheduled, limited, ready, .. } = self;
        scheduled.keep(|key| entries.contains_key(&key));
        limited.retain(|Reverse((_, key))| entries.contains_key(key));
        ready.retain(|key| entries.contains_key(key));
    }

    /// Puts waiting messages back, the newest first, so that the oldest is taken next. Called after the intake has ended, which would
    /// take them again.
    pub(super) fn drain(&mut self) {
        (self.stopping, self.drained) = (true, true);
        let waits = |entry: &Entry| matches!(entry.stage, Stage::Scheduled(_) | Stage::Reserved);
        let mut waiting: Vec<Key> =
            self.entries.iter().filter(|(_, entry)| waits(entry)).map(|(key, _)| *key).collect();
        waiting.sort_unstable_by_key(|key| Reverse(*key));
        let origins: Vec<_> =
            waiting.iter().filter_map(|key| self.entries.remove(key)).map(|entry| entry.request).collect();
        info!(
            returned = origins.len(),
            running = self.running,
            "stopping: {} messages go back, {} tasks run on",
            origins.len(),
            self.running
        );
        let shared = Arc::clone(&self.shared);
        self.tracker.spawn(async move {
            for request in origins {
                shared.give_back(&request.origin, Return::Next).await;
            }
        });
    }

    /// Ends every running task that `which` names. Returns their ids.
    pub fn kill(&self, how: Kill, which: impl Fn(&Request) -> bool) -> Vec<String> {
        let mut killed = Vec::new();
        for entry in self.entries.values().filter(|entry| which(&entry.request)) {
            if let Stage::Active { kill, .. } = &entry.stage {
                kill.send_replace(Some(how));
                killed.push(entry.request.id().to_owned());
            }
        }
        killed
    }

    /// Settles waiting tasks that were revoked meanwhile; running ones go on.
    pub fn settle_waiting_revoked(&mut self) {
        let waits = |entry: &Entry| matches!(entry.stage, Stage::Scheduled(_) | Stage::Reserved);
        let found =
            self.entries.iter().filter(|(_, entry)| waits(entry) && self.revoked.contains(&entry.request.message));
        let found: Vec<Key> = found.map(|(key, _)| *key).collect();
        found.into_iter().for_each(|key| self.settle_revoked(key, Revocation::Revoked));
    }
}
