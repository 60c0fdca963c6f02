//! Stores results in batches: each batch has all results that arrived while the previous one was being stored.
//!
//! One call stores a batch; a record that is refused fails alone. A batch is retried until it is stored or the worker stops
//! hard, so callers continue only when their result is stored. Only a result whose reply queue is full waits without its caller.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::late::{self, Late};
use super::records::RecordsRef;
use broker::backend::{Record, Stored};
use runtime::lifecycle::Backoff;

/// Most results queued; each caller waits for its own.
const QUEUED: usize = 1_024;
const BATCH: usize = 128;
/// A script that moves more than this would block Redis's other clients.
const BATCH_BYTES: usize = 1 << 20;

/// The sending side: accepts results to store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Results {
    sink: mpsc::Sender<Item>,
}

struct Item {
    record: Record,
    done: oneshot::Sender<Stored>,
}

pub(crate) struct Writer {
    source: mpsc::Receiver<Item>,
    records: RecordsRef,
    expires: Duration,
    hard_stop: CancellationToken,
    late: Late,
    /// When the late ones are tried again.
    late_again: Instant,
}

impl Results {
    pub fn new(records: RecordsRef, expires: Duration, hard_stop: CancellationToken) -> (Self, Writer) {
        let (sink, source) = mpsc::channel(QUEUED);
        let late_again = Instant::now();
        (Self { sink }, Writer { source, records, expires, hard_stop, late: Late::default(), late_again })
    }

    /// Waits until the record is stored, or is left out because a SUCCESS exists, or waits for its full reply queue. `None` when the worker stops hard.
    pub async fn store(&self, record: Record) -> Option<Stored> {
        let (done, stored) = oneshot::channel();
        self.sink.send(Item { record, done }).await.ok()?;
        stored.await.ok()
    }
}

impl Writer {
    /// Runs until all [`Results`] are gone.
    pub async fn run(mut self) {
        let mut items = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.late_again), if !self.late.is_empty() => {
                    self.late.send(&self.records, self.expires).await;
                    self.late_again = Instant::now() + late::PERIOD;
                    continue;
                }
                count = self.source.recv_many(&mut items, BATCH) => if count == 0 { break },
            }
            while !items.is_empty() {
                let batch: Vec<Item> = items.drain(..fitting(&items)).collect();
                let batch = self.keep_those_behind(batch);
                if self.store(batch).await.is_none() {
                    return;
                }
            }
        }
        self.late.give_up();
    }

    /// Keeps results for queues that earlier ones wait for; returns the others.
    fn keep_those_behind(&mut self, batch: Vec<Item>) -> Vec<Item> {
        let (behind, others): (Vec<Item>, Vec<Item>) =
            batch.into_iter().partition(|item| self.late.is_behind(&item.record));
        for item in behind {
            self.keep(item, "earlier results wait for it");
        }
        others
    }

    fn keep(&mut self, item: Item, why: &str) {
        if self.late.is_empty() {
            self.late_again = Instant::now() + late::PERIOD;
        }
        self.late.keep(item.record, Instant::now() + self.expires, why);
        let _ = item.done.send(Stored::Yes);
    }

    /// `None` when the worker stops hard.
    async fn store(&mut self, batch: Vec<Item>) -> Option<()> {
        if batch.is_empty() {
            return Some(());
        }
        let (records, waiting): (Vec<_>, Vec<_>) = batch.into_iter().map(|item| (item.record, item.done)).unzip();
        let stored = self.write(&records).await?;
        for ((record, done), stored) in records.into_iter().zip(waiting).zip(stored) {
            match stored {
                Stored::NotNow(why) => self.keep(Item { record, done }, &why),
                stored => drop(done.send(stored)),
            }
        }
        Some(())
    }

    async fn write(&self, records: &[Record]) -> Option<Vec<Stored>> {
        let mut backoff = Backoff::new(Duration::from_secs(2));
        loop {
            let problem = tokio::select! {
                biased;
                stored = self.records.store_all(records, self.expires) => match stored {
                    Ok(stored) => {
                        if !backoff.is_fresh() {
                            info!(results = records.len(), "{} results are stored, the backend is back", records.len());
                        }
                        return Some(stored);
                    }
                    Err(problem) => problem,
                },
                () = self.hard_stop.cancelled() => return None,
            };
            if problem.is_refusal() {
                // Each record is then stored alone: only those that are refused again are at fault.
                return Some(records.iter().map(|_| Stored::Refused(problem.to_string())).collect());
            }
            if backoff.is_fresh() {
                warn!(results = records.len(), error = %problem, "{} results wait for the backend: {problem}", records.len());
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

/// How many of the first items fit into one batch: at least one.
fn fitting(items: &[Item]) -> usize {
    let mut bytes = 0;
    let fit = items.iter().take_while(|item| {
        bytes += item.record.text.len();
        bytes <= BATCH_BYTES
    });
    fit.count().max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;

    use super::*;
    use crate::records::Records;
    use broker::Error;
    use broker::backend::{Backend, Reply, Unless};

    /// Its queue `full` takes nothing until somebody reads from it.
    #[derive(Default)]
    struct Queues {
        is_read: AtomicBool,
        taken: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Records for Queues {
        async fn store_all(&self, records: &[Record], _: Duration) -> Result<Vec<Stored>, Error> {
            let store = |record: &Record| {
                let queue = record.reply.as_ref().expect("a reply queue").queue.as_str();
                if queue == "full" && !self.is_read.load(Ordering::Relaxed) {
                    return Stored::NotNow("it is full".to_owned());
                }
                self.taken.lock().unwrap().push(record.task_id.clone());
                Stored::Yes
            };
            Ok(records.iter().map(store).collect())
        }

        async fn store(&self, _: &Record, _: Duration, _: Unless) -> Result<(), Error> {
            unreachable!("the writer stores batches")
        }

        fn chords(&self) -> Option<&Backend> {
            None
        }

        fn address(&self) -> String {
            String::new()
        }
    }

    fn result(task_id: &str, queue: &str) -> Record {
        let reply = Reply { queue: queue.to_owned(), correlation_id: task_id.to_owned() };
        Record { task_id: task_id.to_owned(), text: "{}".to_owned(), reply: Some(reply) }
    }

    #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
    fn writer(queues: &Arc<Queues>, expires: Duration) -> Results {
        let (results, writer) = Results::new(Arc::<Queues>::clone(queues), expires, CancellationToken::new());
        tokio::spawn(writer.run());
        results
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_reply_queue_holds_neither_its_own_tasks_nor_others() {
        let queues = Arc::new(Queues::default());
        let results = writer(&queues, Duration::from_secs(600));
        for id in ["a", "b"] {
            assert_eq!(results.store(result(id, "full")).await, Some(Stored::Yes));
        }
        assert_eq!(results.store(result("c", "other")).await, Some(Stored::Yes));
        assert_eq!(*queues.taken.lock().unwrap(), ["c"]);
        queues.is_read.store(true, Ordering::Relaxed);
        assert_eq!(results.store(result("d", "full")).await, Some(Stored::Yes), "it does not overtake the others");
        assert_eq!(*queues.taken.lock().unwrap(), ["c"]);
        tokio::time::sleep(late::PERIOD * 2).await;
        assert_eq!(*queues.taken.lock().unwrap(), ["c", "a", "b", "d"]);
        assert_eq!(results.store(result("e", "full")).await, Some(Stored::Yes));
        assert_eq!(queues.taken.lock().unwrap().last().map(String::as_str), Some("e"), "nothing waits any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_result_is_kept_as_long_as_results_are() {
        let queues = Arc::new(Queues::default());
        let results = writer(&queues, Duration::from_secs(5));
        assert_eq!(results.store(result("old", "full")).await, Some(Stored::Yes));
        tokio::time::sleep(Duration::from_secs(7)).await;
        queues.is_read.store(true, Ordering::Relaxed);
        assert_eq!(results.store(result("new", "full")).await, Some(Stored::Yes));
        tokio::time::sleep(late::PERIOD * 2).await;
        assert_eq!(*queues.taken.lock().unwrap(), ["new"]);
    }

    #[test]
    fn a_batch_is_bounded_by_its_bytes_and_never_empty() {
        let item = |bytes: usize| Item {
            record: Record { task_id: "t".into(), text: "x".repeat(bytes), reply: None },
            done: oneshot::channel().0,
        };
        assert_eq!(fitting(&[item(10), item(20)]), 2);
        assert_eq!(fitting(&[item(BATCH_BYTES), item(1)]), 1);
        assert_eq!(fitting(&[item(BATCH_BYTES + 1), item(1)]), 1);
    }
}
