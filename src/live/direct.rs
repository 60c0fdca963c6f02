//! The direct way from a commit to the relay of the same process: a bounded channel in memory.
//!
//! A task that is refused here is only delayed, never lost: the ledger knows that it is accepted and not published, and the next pass
//! over the outbox takes it in. A caller with many tasks waits here
//! until there is room.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use celery::task::TaskId;
use ledger::Outgoing;

/// Messages in one pass of the relay, direct or from the outbox.
pub const BATCH: usize = 1_000;
/// The deadline of a direct push after its commit, by Redis's clock.
pub const DIRECT_DEADLINE: Duration = Duration::from_secs(30);
/// Tasks on the direct way, in memory: a few seconds at the highest submission rate. When it is full, passes over the outbox take over.
const DIRECT_CAPACITY: usize = 32_768;
/// Maximum number of offers on the direct path. Each holds the tasks of one commit.
const DIRECT_OFFERS: usize = 4_096;
/// Remembered tasks that were not pushed. Only those of the first seconds after a failure matter.
const UNPUSHED: usize = 20_000;

/// State shared by the handle and the relay.
#[derive(Default)]
pub struct Shared {
    /// Whether the direct path is open.
    pub direct: AtomicBool,
    /// Number of tasks on the direct path now.
    pub offered: AtomicUsize,
    /// Whether the last pass over the outbox failed.
    pub is_stuck: AtomicBool,
    pub wake: Notify,
    /// Signals that some offered tasks were published.
    pub room: Notify,
    /// Accepted tasks that wait to be published, when last counted.
    pub backlog: AtomicI64,
    /// Outbox rows published per second in the last passes, times 1,000.
    pub drain_rate: AtomicI64,
    pub unpushed: Unpushed,
}

/// Tasks that this process accepted and certainly did not push: a pass that finds them knows that no message of theirs was lost. The first
/// ones since the direct path was closed.
#[derive(Default)]
pub struct Unpushed(Mutex<HashSet<TaskId>>);

impl Unpushed {
    pub fn note(&self, rows: &[Outgoing]) {
        let mut ids = self.0.lock().expect("nothing panics under this lock");
        let room = UNPUSHED.saturating_sub(ids.len());
        ids.extend(rows.iter().take(room).map(|row| row.id.clone()));
    }

    pub fn remove_from(&self, rows: &mut Vec<&Outgoing>) {
        let ids = self.0.lock().expect("nothing panics under this lock");
        rows.retain(|row| !ids.contains(&row.id));
    }

    /// Everything that was accepted until now is published.
    pub fn clear(&self) {
        self.0.lock().expect("nothing panics under this lock").clear();
    }
}

impl Shared {
    /// Whether a caller with many tasks should wait. A closed direct path reopens when the outbox is nearly empty.
    fn is_full(&self) -> bool {
        if self.direct.load(Ordering::Acquire) {
            self.offered.load(Ordering::Acquire) > DIRECT_CAPACITY / 2
        } else {
            !self.is_stuck.load(Ordering::Acquire) && self.backlog.load(Ordering::Relaxed) > BATCH as i64
        }
    }
}

/// The caller's handle to the relay. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    direct: mpsc::Sender<Vec<Outgoing>>,
    pub shared: Arc<Shared>,
}

impl Handle {
    /// Returns the handle and the receiving end. The direct path starts closed.
    pub fn open() -> (Self, mpsc::Receiver<Vec<Outgoing>>) {
        let (direct, offers) = mpsc::channel(DIRECT_OFFERS);
        (Self { direct, shared: Arc::default() }, offers)
    }

    /// Offers tasks that were just committed. A refused offer only delays them: the next pass finds them in the ledger.
    pub fn offer(&self, batch: Vec<Outgoing>) {
        if batch.is_empty() {
            return;
        }
        if !self.shared.direct.load(Ordering::Acquire) {
            self.shared.unpushed.note(&batch);
            // They wait for a pass. Counting them here keeps the backlog limit between two counts in the ledger.
            self.shared.backlog.fetch_add(i64::try_from(batch.len()).unwrap_or(0), Ordering::Relaxed);
            return;
        }
        let tasks = batch.len();
        let offered = self.shared.offered.fetch_add(tasks, Ordering::AcqRel) + tasks;
        let refused = match offered > DIRECT_CAPACITY {
            true => Some(batch),
            false => self.direct.try_send(batch).err().map(mpsc::error::TrySendError::into_inner),
        };
        if let Some(batch) = refused {
            self.shared.unpushed.note(&batch);
            self.shared.offered.fetch_sub(tasks, Ordering::AcqRel);
            self.shared.direct.store(false, Ordering::Release);
            self.shared.wake.notify_one();
        }
    }

    /// For callers with many tasks: waits until little is on its way, at most 30 s without progress. While Redis is away it does
    /// not wait, and the tasks stay in the ledger, up to the limit of the backlog.
    pub async fn room(&self) {
        let until = Instant::now() + DIRECT_DEADLINE;
        loop {
            let gone = self.shared.room.notified();
            if !self.shared.is_full() || tokio::time::timeout_at(until, gone).await.is_err() {
                return;
            }
        }
    }

    /// Whether the relay has taken everything offered so far, so that more may be offered without piling up.
    pub fn is_idle(&self) -> bool {
        self.direct.capacity() == self.direct.max_capacity()
    }

    /// Wakes the relay because something may have become due. A lost nudge costs one period.
    pub fn nudge(&self) {
        self.shared.wake.notify_one();
    }

    /// What waits to be published when last counted, plus what was accepted since then while Redis was away.
    pub fn backlog(&self) -> i64 {
        self.shared.backlog.load(Ordering::Relaxed)
    }

    /// Estimated time to publish the backlog at the present rate, 1 to 300 s.
    pub fn drain_time(&self) -> Duration {
        let rate = self.shared.drain_rate.load(Ordering::Relaxed).max(1);
        let secs = self.backlog().saturating_mul(1_000) / rate;
        Duration::from_secs(u64::try_from(secs.clamp(1, 300)).unwrap_or(1))
    }
}

#[cfg(test)]
pub(crate) fn sample(id: &str) -> Outgoing {
    use celery::task::{Priority, QueueName, TaskId, TaskName};
    Outgoing {
        no: 1,
        id: TaskId::parse(id).unwrap(),
        name: TaskName::parse("a").unwrap(),
        queue: QueueName::parse("celery").unwrap(),
        spread: None,
        priority: Priority::default(),
        delivery: 1,
        headers: String::new(),
        body: String::new(),
        accepted_at: runtime::clock::Time(0),
        direct: true,
        expires_at: None,
        groups: Arc::default(),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    fn tasks(count: usize) -> Vec<Outgoing> {
        vec![sample("t"); count]
    }

    fn open() -> (Handle, mpsc::Receiver<Vec<Outgoing>>) {
        let (handle, offers) = Handle::open();
        handle.shared.direct.store(true, Ordering::Release);
        (handle, offers)
    }

    #[test]
    fn the_direct_way_holds_so_many_tasks_in_however_many_offers() {
        let (handle, mut offers) = open();
        handle.offer(tasks(DIRECT_CAPACITY));
        handle.offer(tasks(1));
        assert!(!handle.shared.direct.load(Ordering::Acquire), "one too many shuts it");
        assert_eq!(offers.try_recv().map(|offer| offer.len()), Ok(DIRECT_CAPACITY));
        assert!(offers.try_recv().is_err(), "the other one is left to the outbox");
        assert_eq!(handle.shared.offered.load(Ordering::Acquire), DIRECT_CAPACITY, "and does not count");
    }

    #[test]
    fn what_is_not_taken_is_known_as_unpushed_until_the_outbox_is_empty() {
        let (closed, _offers) = Handle::open();
        closed.offer(tasks(2));
        let (pushed, unpushed) = (sample("pushed"), sample("t"));
        let mut rows = vec![&pushed, &unpushed];
        closed.shared.unpushed.remove_from(&mut rows);
        assert_eq!(rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["pushed"]);
        closed.shared.unpushed.clear();
        let mut rows = vec![&unpushed];
        closed.shared.unpushed.remove_from(&mut rows);
        assert_eq!(rows.len(), 1);
        let (open, _offers) = open();
        open.offer(tasks(DIRECT_CAPACITY + 1));
        open.shared.unpushed.remove_from(&mut rows);
        assert_eq!(rows.len(), 0);
    }

    #[tokio::test]
    async fn who_has_much_waits_until_half_is_gone() {
        let (handle, _offers) = open();
        handle.offer(tasks(DIRECT_CAPACITY / 2));
        handle.room().await;
        handle.offer(tasks(1));
        let mut waiting = std::pin::pin!(handle.room());
        assert!(poll!(waiting.as_mut()).is_pending());
        handle.shared.offered.fetch_sub(1, Ordering::AcqRel);
        handle.shared.room.notify_waiters();
        waiting.await;
    }

    #[tokio::test]
    async fn what_waits_in_the_outbox_is_waited_for_only_while_it_moves() {
        let (handle, _offers) = Handle::open();
        handle.shared.backlog.store(i64::try_from(DIRECT_CAPACITY).unwrap(), Ordering::Relaxed);
        let mut waiting = std::pin::pin!(handle.room());
        assert!(poll!(waiting.as_mut()).is_pending());
        handle.shared.is_stuck.store(true, Ordering::Release);
        handle.shared.room.notify_waiters();
        waiting.await;
    }
}
