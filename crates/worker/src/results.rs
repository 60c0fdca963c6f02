//! Stores results in batches: each batch has all results that arrived while the previous one was being stored.
//!
//! One call stores a batch; a record that Redis refuses fails alone. A batch is retried until it is stored or the worker stops
//! hard, so callers continue only when their result is stored.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

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
}

impl Results {
    pub fn new(records: RecordsRef, expires: Duration, hard_stop: CancellationToken) -> (Self, Writer) {
        let (sink, source) = mpsc::channel(QUEUED);
        (Self { sink }, Writer { source, records, expires, hard_stop })
    }

    /// Waits until the record is stored, or is left out because a SUCCESS exists. `None` when the worker stops hard.
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
        while self.source.recv_many(&mut items, BATCH).await > 0 {
            while !items.is_empty() {
                let batch: Vec<Item> = items.drain(..fitting(&items)).collect();
                let (records, waiting): (Vec<_>, Vec<_>) =
                    batch.into_iter().map(|item| (item.record, item.done)).unzip();
                let Some(stored) = self.write(&records).await else { return };
                for (done, stored) in waiting.into_iter().zip(stored) {
                    let _ = done.send(stored);
                }
            }
        }
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
    use super::*;

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
