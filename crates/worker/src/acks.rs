//! Acknowledges messages in batches: each call covers all messages that were finished while the previous call was under way.
//!
//! Acknowledgements are retried until the worker stops hard: a finished message must not be delivered again after an outage.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::transport::TransportRef;
use runtime::lifecycle::Backoff;

/// Most acknowledgements that may be queued. Senders wait beyond it: a worker that is far ahead of its broker should not take more messages.
const QUEUED: usize = 4_096;
const BATCH: usize = 512;

/// The sending side: accepts messages to acknowledge. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Acks {
    sink: mpsc::Sender<Item>,
}

enum Item {
    Tag(String),
    /// Answered when everything queued before it was acknowledged.
    Flush(oneshot::Sender<()>),
}

pub(crate) struct Acknowledger {
    source: mpsc::Receiver<Item>,
    transport: TransportRef,
    hard_stop: CancellationToken,
}

impl Acks {
    pub fn new(transport: TransportRef, hard_stop: CancellationToken) -> (Self, Acknowledger) {
        let (sink, source) = mpsc::channel(QUEUED);
        (Self { sink }, Acknowledger { source, transport, hard_stop })
    }

    /// Acknowledges soon. `None`: the message was never reserved.
    pub async fn ack(&self, tag: Option<&str>) {
        let Some(tag) = tag else { return };
        // The acknowledger outlives all its senders.
        let _ = self.sink.send(Item::Tag(tag.to_owned())).await;
    }

    /// Ends when everything so far was acknowledged.
    pub async fn flush(&self) {
        let (done, waiting) = oneshot::channel();
        if self.sink.send(Item::Flush(done)).await.is_ok() {
            let _ = waiting.await;
        }
    }
}

impl Acknowledger {
    /// Works until all [`Acks`] are gone.
    pub async fn run(mut self) {
        let mut items = Vec::with_capacity(BATCH);
        while self.source.recv_many(&mut items, BATCH).await > 0 {
            let (mut tags, mut flushed) = (Vec::with_capacity(items.len()), Vec::new());
            for item in items.drain(..) {
                match item {
                    Item::Tag(tag) => tags.push(tag),
                    Item::Flush(done) => flushed.push(done),
                }
            }
            self.acknowledge(&tags).await;
            for done in flushed {
                let _ = done.send(());
            }
        }
    }

    async fn acknowledge(&self, tags: &[String]) {
        let mut backoff = Backoff::new(Duration::from_secs(2));
        while let Err(error) = self.transport.ack(tags).await {
            if backoff.is_fresh() {
                warn!(messages = tags.len(), error = %error, "{} acknowledgements wait for the broker: {error}", tags.len());
            }
            if self.hard_stop.is_cancelled() {
                return;
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}
