//! Passes committed events to the watchers of their tasks in this process.
//!
//! A watcher gets each event of its task once and in order, whatever the hub does: it checks `seq`, and when a number is missing
//! (a slow reader, another replica's commit, a reconnect) it reads the ledger from its last number on. So the hub may drop,
//! repeat and reorder events, and all its buffers are bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::broadcast;

use super::announcements::{Announcements, Announcing};
use celery::task::{GroupId, Phase, TaskId};
use ledger::{Event, Submission};

/// About one second of events of a busy task, for each watched task. A watcher that lags further reads the ledger instead.
const WATCH_CAPACITY: usize = 32;
/// About one second of a busy feed, for watchers of everything.
const FIREHOSE_CAPACITY: usize = 1_024;

/// A signal to a watcher.
#[derive(Debug, Clone)]
pub enum Signal {
    /// This event was committed.
    Event(Arc<Event>),
    /// Something may have been committed: read the ledger.
    Reread,
}

/// Why a task that waits in the ledger may go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// A worker has received a message, so its queue has room for another one.
    Received,
    /// A task has ended, or something that is not known has changed: limits and queues may have room.
    Ended,
}

impl Room {
    /// What these events make room for.
    fn of(events: &[Event]) -> Option<Self> {
        let has = |is: fn(Phase) -> bool| events.iter().any(|event| is(event.phase));
        if has(Phase::is_final) {
            return Some(Self::Ended);
        }
        has(Phase::is_at_worker).then_some(Self::Received)
    }
}

#[derive(Default)]
struct Topics {
    tasks: HashMap<TaskId, broadcast::Sender<Signal>>,
    groups: HashMap<GroupId, broadcast::Sender<Signal>>,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    topics: Arc<Mutex<Topics>>,
    firehose: broadcast::Sender<()>,
    /// For the relay, which must not be woken by its own publications.
    room: broadcast::Sender<Room>,
    /// Ends other than success, for services that decide about the tasks that follow.
    bad_ends: broadcast::Sender<Arc<Event>>,
    /// Events of redeliveries, for services that count them.
    redeliveries: broadcast::Sender<Arc<Event>>,
    announcements: Announcements,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            topics: Arc::default(),
            firehose: broadcast::channel(FIREHOSE_CAPACITY).0,
            room: broadcast::channel(FIREHOSE_CAPACITY).0,
            bad_ends: broadcast::channel(FIREHOSE_CAPACITY).0,
            redeliveries: broadcast::channel(FIREHOSE_CAPACITY).0,
            announcements: Announcements::default(),
        }
    }
}

impl Hub {
    /// Signals every event of this task from now on. Subscribe first, then read the ledger.
    pub fn watch_task(&self, id: &TaskId) -> broadcast::Receiver<Signal> {
        let mut topics = self.topics.lock().expect("nothing panics under this lock");
        let sender = topics.tasks.entry(id.clone()).or_insert_with(|| broadcast::channel(WATCH_CAPACITY).0);
        sender.subscribe()
    }

    /// Signals with every event of a member.
    pub fn watch_group(&self, id: &GroupId) -> broadcast::Receiver<Signal> {
        let mut topics = self.topics.lock().expect("nothing panics under this lock");
        let sender = topics.groups.entry(id.clone()).or_insert_with(|| broadcast::channel(WATCH_CAPACITY).0);
        sender.subscribe()
    }

    /// Wakes with every commit.
    pub fn watch_all(&self) -> broadcast::Receiver<()> {
        self.firehose.subscribe()
    }

    /// Wakes with every commit that may let a waiting task go.
    pub fn watch_room(&self) -> broadcast::Receiver<Room> {
        self.room.subscribe()
    }

    /// Every end committed by this process that is not a success.
    pub fn watch_bad_ends(&self) -> broadcast::Receiver<Arc<Event>> {
        self.bad_ends.subscribe()
    }

    /// Every event of a redelivery that this process has recorded.
    pub fn watch_redeliveries(&self) -> broadcast::Receiver<Arc<Event>> {
        self.redeliveries.subscribe()
    }

    /// To be called before a commit that may let tasks go; the result lives until the commit is announced, here or by a nudge.
    pub fn announcing(&self) -> Announcing {
        self.announcements.begin()
    }

    /// See [`Announcements::settled`].
    pub fn settled(&self) -> Option<u64> {
        self.announcements.settled()
    }

    /// Sends these committed events to their watchers.
    pub fn publish(&self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        for event in events.iter().filter(|event| event.phase.is_final() && event.phase != Phase::Succeeded) {
            let _ = self.bad_ends.send(Arc::new(event.clone()));
        }
        for event in events.iter().filter(|event| event.delivery > 1 && !event.phase.is_final()) {
            let _ = self.redeliveries.send(Arc::new(event.clone()));
        }
        for (sender, event) in self.targets(events) {
            let _ = sender.send(Signal::Event(event));
        }
        if let Some(room) = Room::of(events) {
            let _ = self.room.send(room);
        }
        let _ = self.firehose.send(());
    }

    /// Announces a submission that was just committed. Few tasks are watched yet, so events are built only for those.
    pub fn accepted(&self, submission: &Submission, task_nos: &[i64]) {
        if !self.is_watched() {
            let _ = self.firehose.send(());
            return;
        }
        let tasks = submission.tasks.iter().zip(task_nos);
        let events: Vec<Event> = tasks.map(|(task, &no)| Event::accepted(no, task, submission.at)).collect();
        self.publish(&events);
    }

    fn is_watched(&self) -> bool {
        let topics = self.topics.lock().expect("nothing panics under this lock");
        !topics.tasks.is_empty() || !topics.groups.is_empty()
    }

    /// Whether anyone in this process watches one of these tasks.
    pub fn watches<'a>(&self, ids: impl IntoIterator<Item = &'a TaskId>) -> bool {
        let topics = self.topics.lock().expect("nothing panics under this lock");
        !topics.tasks.is_empty() && ids.into_iter().any(|id| topics.tasks.contains_key(id))
    }

    /// Another replica changed these tasks.
    pub fn signal_changed(&self, ids: &[TaskId]) {
        let senders: Vec<_> = {
            let topics = self.topics.lock().expect("nothing panics under this lock");
            let tasks = ids.iter().filter_map(|id| topics.tasks.get(id)).cloned();
            // The message does not name their groups, so all watched groups are signalled.
            tasks.chain(topics.groups.values().cloned()).collect()
        };
        for sender in senders {
            let _ = sender.send(Signal::Reread);
        }
        let _ = self.room.send(Room::Ended);
        let _ = self.firehose.send(());
    }

    /// Anything may have changed.
    pub fn look_everywhere(&self) {
        let senders: Vec<_> = {
            let topics = self.topics.lock().expect("nothing panics under this lock");
            topics.tasks.values().chain(topics.groups.values()).cloned().collect()
        };
        for sender in senders {
            let _ = sender.send(Signal::Reread);
        }
        let _ = self.room.send(Room::Ended);
        let _ = self.firehose.send(());
    }

    /// Drops topics without watchers. They cost only memory, so an occasional call is enough.
    pub fn sweep(&self) {
        let mut topics = self.topics.lock().expect("nothing panics under this lock");
        topics.tasks.retain(|_, sender| sender.receiver_count() > 0);
        topics.groups.retain(|_, sender| sender.receiver_count() > 0);
        topics.tasks.shrink_to_fit();
    }

    /// Collects the senders under the lock, to use them after it, so that no watcher is woken while the lock is held.
    fn targets(&self, events: &[Event]) -> Vec<(broadcast::Sender<Signal>, Arc<Event>)> {
        let topics = self.topics.lock().expect("nothing panics under this lock");
        if topics.tasks.is_empty() && topics.groups.is_empty() {
            return Vec::new();
        }
        let mut targets = Vec::new();
        for event in events {
            let task = topics.tasks.get(&event.task_id);
            let group = event.group_id.as_ref().and_then(|id| topics.groups.get(id));
            if task.is_none() && group.is_none() {
                continue;
            }
            let event = Arc::new(event.clone());
            targets.extend(task.into_iter().chain(group).map(|sender| (sender.clone(), Arc::clone(&event))));
        }
        targets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::clock::Time;

    fn event(phase: Phase) -> Event {
        Event::of(&ledger::sample_task("t", phase, Time(1)), Time(1))
    }

    #[test]
    fn receptions_and_ends_make_room_and_publications_do_not() {
        let of = |phases: &[Phase]| Room::of(&phases.iter().map(|phase| event(*phase)).collect::<Vec<_>>());
        assert_eq!(of(&[Phase::Accepted, Phase::Held, Phase::Queued]), None);
        assert_eq!(of(&[Phase::Queued, Phase::Running]), Some(Room::Received));
        assert_eq!(of(&[Phase::Received, Phase::Revoked]), Some(Room::Ended));
    }
}
