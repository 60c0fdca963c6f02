//! Results whose reply queue takes no messages now: the client behind it reads too slowly, or not at all.
//!
//! They are sent when the queue takes them again, in their order. Meanwhile their tasks are over: a client that does not read its results
//! must not hold the slots of a worker that other clients use. Bounded in number and bytes, and each is kept as long as results are; what
//! does not fit is lost, which the log says, as a result is that Celery publishes to a full queue.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::records::RecordsRef;
use broker::backend::{Record, Stored};

/// How often a queue is tried again.
pub(super) const PERIOD: Duration = Duration::from_secs(1);
const MOST: usize = 4_096;
const MOST_BYTES: usize = 32 << 20;
/// Results of one queue in one call.
const BATCH: usize = 128;

#[derive(Default)]
pub(super) struct Late {
    /// By reply queue, oldest first, each with the time until which it is kept.
    waiting: BTreeMap<String, VecDeque<(Instant, Record)>>,
    count: usize,
    bytes: usize,
}

impl Late {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether earlier results wait for the queue of this one, so that it must not overtake them.
    pub fn is_behind(&self, record: &Record) -> bool {
        record.reply.as_ref().is_some_and(|reply| self.waiting.contains_key(reply.queue.as_str()))
    }

    /// Keeps a result that its queue did not take.
    pub fn keep(&mut self, record: Record, until: Instant, why: &str) {
        let Some(reply) = &record.reply else { return };
        if self.count >= MOST || self.bytes + record.text.len() > MOST_BYTES {
            error!(task.id = record.task_id, "the result of {} is lost, too many wait already: {why}", record.task_id);
            return;
        }
        let waiting = self.waiting.entry(reply.queue.as_str().to_owned()).or_default();
        if waiting.is_empty() {
            warn!(queue.name = reply.queue.as_str(), "results wait for their queue, their tasks go on: {why}");
        }
        self.count += 1;
        self.bytes += record.text.len();
        waiting.push_back((until, record));
    }

    /// Tries each queue once. A failure of the broker leaves everything as it is.
    pub async fn send(&mut self, records: &RecordsRef, expires: Duration) {
        for queue in self.waiting.keys().cloned().collect::<Vec<_>>() {
            let Some(waiting) = self.waiting.get_mut(&queue) else { continue };
            let batch: Vec<Record> = waiting.iter().take(BATCH).map(|(_, record)| record.clone()).collect();
            let Ok(outcomes) = records.store_all(&batch, expires).await else { return };
            let now = Instant::now();
            let tried: Vec<(Instant, Record)> = waiting.drain(..batch.len()).collect();
            let left = tried.into_iter().zip(outcomes).filter(|((until, record), outcome)| {
                let is_left = matches!(outcome, Stored::NotNow(_)) && *until > now;
                if !is_left {
                    self.count -= 1;
                    self.bytes -= record.text.len();
                }
                if let (Stored::NotNow(why) | Stored::Refused(why), false) = (outcome, is_left) {
                    error!(task.id = record.task_id, "the result of {} is lost: {why}", record.task_id);
                }
                is_left
            });
            let left: Vec<(Instant, Record)> = left.map(|(kept, _)| kept).collect();
            left.into_iter().rev().for_each(|kept| waiting.push_front(kept));
            if waiting.is_empty() {
                self.waiting.remove(&queue);
                info!(queue.name = queue, "the results that waited for {queue} are sent");
            }
        }
    }

    /// At the end of the worker: says what is lost.
    pub fn give_up(&self) {
        if !self.is_empty() {
            warn!(results = self.count, "{} results are lost: their queues take no messages", self.count);
        }
    }
}
