//! Follows one task as it changes, for SSE and for clients that wait.
//!
//! A watch first subscribes and then reads the ledger, so it misses nothing. It checks `seq`: events that the hub repeats are
//! dropped, events that it skipped are read from the ledger. While the ledger is down a watch is silent, and continues afterwards. A
//! crash of the database may lose the last fraction of a second of intermediate events whose numbers were shown already: an end that
//! reuses such a number is still reported.

use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use futures_util::Stream;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::live::hub::{Hub, Signal};
use celery::task::{GroupId, TaskId};
use ledger::{Error, Event, Group, SharedLedger, Task};
use runtime::lifecycle::Backoff;

/// Events read from the ledger at a time, fewer if they are large ([`ledger::EVENTS_BYTES`]); this bounds the buffer for a slow
/// reader.
const PAGE: i64 = 500;
/// After this time without a signal a watch reads the ledger again: a lost signal delays events by at most this.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
const LEDGER_PAUSE: Duration = Duration::from_secs(2);

/// An item of a task's watch.
#[derive(Debug, Clone)]
pub enum Watched {
    /// The state at the beginning; events with a higher `seq` follow.
    Snapshot(Box<Task>),
    Event(Arc<Event>),
    /// The final change; nothing follows.
    End(Box<Task>),
}

/// An item of a group's watch.
#[derive(Debug, Clone)]
pub enum WatchedGroup {
    Snapshot(Arc<Group>),
    /// The number of members that have ended, which is also the event's id.
    Progress {
        completed: i32,
        total: i32,
    },
    End(Arc<Group>),
}

/// Reads the ledger and the hub for watchers. Cheap to clone.
#[derive(Clone)]
pub struct Watcher {
    ledger: SharedLedger,
    hub: Hub,
}

impl Watcher {
    pub fn new(ledger: SharedLedger, hub: Hub) -> Self {
        Self { ledger, hub }
    }

    /// Follows a task: from now on (`after` is `None`), or exactly the events with a `seq` above `after`.
    /// `Ok(None)` when the task is unknown; an empty stream when it ended at or before `after`.
    ///
    /// # Cancel safety
    /// A dropped stream leaves nothing behind.
    pub async fn task(
        &self,
        id: &TaskId,
        after: Option<i64>,
    ) -> Result<Option<impl Stream<Item = Watched> + use<>>, Error> {
        let signals = self.hub.watch_task(id);
        let Some(task) = self.ledger.task(id).await? else { return Ok(None) };
        let mut follower =
            Follower { ledger: self.ledger.clone(), id: id.clone(), signals, last: after.unwrap_or(task.seq) };
        Ok(Some(stream! {
            if after.is_none() {
                if task.phase.is_final() {
                    yield Watched::End(Box::new(task));
                    return;
                }
                yield Watched::Snapshot(Box::new(task));
            } else if task.phase.is_final() && task.seq <= follower.last {
                return;
            }
            loop {
                let events = follower.next().await;
                if events.is_empty() {
                    let task = follower.task().await;
                    if task.phase.is_final() && task.seq <= follower.last {
                        yield Watched::End(Box::new(task));
                        return;
                    }
                }
                for event in events {
                    if event.phase.is_final() {
                        let task = follower.task().await;
                        if task.seq == event.seq {
                            yield Watched::End(Box::new(task));
                            return;
                        }
                    }
                    yield Watched::Event(event);
                }
            }
        }))
    }

    /// Waits until a task has ended, at most for `patience`, and returns its state. `None` when it is unknown.
    pub async fn wait(&self, id: &TaskId, patience: Duration) -> Result<Option<Task>, Error> {
        let deadline = Instant::now() + patience;
        let mut signals = self.hub.watch_task(id);
        loop {
            let Some(task) = self.ledger.task(id).await? else { return Ok(None) };
            if task.phase.is_final() || Instant::now() >= deadline {
                return Ok(Some(task));
            }
            wait_for_end(&mut signals, deadline).await;
        }
    }

    /// Waits until every member of a group has ended.
    pub async fn wait_for_group(&self, id: &GroupId, patience: Duration) -> Result<Option<Group>, Error> {
        let deadline = Instant::now() + patience;
        let mut signals = self.hub.watch_group(id);
        loop {
            let Some(group) = self.ledger.group(id).await? else { return Ok(None) };
            if group.completed() >= group.total || Instant::now() >= deadline {
                return Ok(Some(group));
            }
            wait_for_end(&mut signals, deadline).await;
        }
    }

    /// Follows a group: each member's end is an item. With `after` only items above it.
    pub async fn group(
        &self,
        id: &GroupId,
        after: Option<i32>,
    ) -> Result<Option<impl Stream<Item = WatchedGroup> + use<>>, Error> {
        let mut signals = self.hub.watch_group(id);
        let Some(group) = self.ledger.group(id).await? else { return Ok(None) };
        let (watcher, id) = (self.clone(), id.clone());
        Ok(Some(stream! {
            let mut group = Arc::new(group);
            let mut last = after.unwrap_or_else(|| group.completed());
            if group.completed() >= group.total && after.is_some_and(|after| after >= group.total) {
                return;
            }
            if after.is_none() && group.completed() < group.total {
                yield WatchedGroup::Snapshot(Arc::clone(&group));
            }
            loop {
                let completed = group.completed();
                for completed in last + 1..=completed.min(group.total - 1) {
                    yield WatchedGroup::Progress { completed, total: group.total };
                }
                last = last.max(completed);
                if completed >= group.total {
                    yield WatchedGroup::End(group);
                    return;
                }
                wait_for_end(&mut signals, Instant::now() + LOOK_AGAIN).await;
                if let Ok(Some(now)) = watcher.ledger.group(&id).await {
                    group = Arc::new(now);
                }
            }
        }))
    }
}

/// Returns at a final event, at a hint that something was missed, or at the deadline.
async fn wait_for_end(signals: &mut broadcast::Receiver<Signal>, deadline: Instant) {
    let until = deadline.min(Instant::now() + LOOK_AGAIN);
    while let Ok(Ok(Signal::Event(event))) = tokio::time::timeout_at(until, signals.recv()).await {
        if event.phase.is_final() {
            return;
        }
    }
}

/// The state of a watch.
struct Follower {
    ledger: SharedLedger,
    id: TaskId,
    signals: broadcast::Receiver<Signal>,
    /// The `seq` of the last event that was passed on.
    last: i64,
}

impl Follower {
    /// The next events, in order and without a gap. Empty when there was a signal but no new event: the task may have ended with a
    /// number that was shown before.
    async fn next(&mut self) -> Vec<Arc<Event>> {
        let mut backoff = Backoff::new(LEDGER_PAUSE);
        let (mut must_read, mut signalled) = (true, false);
        loop {
            if must_read {
                match self.ledger.events(&self.id, self.last, PAGE).await {
                    Ok(events) if !events.is_empty() => {
                        return self.hand_on(events.into_iter().map(Arc::new).collect());
                    }
                    Ok(_) if signalled => return Vec::new(),
                    Ok(_) => {}
                    Err(_) => {
                        tokio::time::sleep(backoff.pause()).await;
                        continue;
                    }
                }
            }
            signalled = true;
            match tokio::time::timeout(LOOK_AGAIN, self.signals.recv()).await {
                Ok(Ok(Signal::Event(event))) if event.seq == self.last + 1 => return self.hand_on(vec![event]),
                Ok(Ok(Signal::Event(event))) => must_read = event.seq > self.last || event.phase.is_final(),
                Ok(Ok(Signal::Reread) | Err(broadcast::error::RecvError::Lagged(_))) | Err(_) => must_read = true,
                Ok(Err(broadcast::error::RecvError::Closed)) => std::future::pending().await,
            }
        }
    }

    fn hand_on(&mut self, events: Vec<Arc<Event>>) -> Vec<Arc<Event>> {
        self.last = events.last().map_or(self.last, |event| event.seq);
        events
    }

    /// The task's present state. It was found before, so it exists unless it is pruned meanwhile.
    async fn task(&self) -> Task {
        let mut backoff = Backoff::new(LEDGER_PAUSE);
        loop {
            match self.ledger.task(&self.id).await {
                Ok(Some(task)) => return task,
                Ok(None) | Err(_) => tokio::time::sleep(backoff.pause()).await,
            }
        }
    }
}
