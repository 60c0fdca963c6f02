//! Removes a task's message from its queue, so that it will never run: for a revoke, and when it expires.
//!
//! The ledger has the published bytes, so exactly that message is removed. A message with other bytes (put back by a worker, sent
//! again by a retry, sent as a canvas step) is searched for. A message that is not in its list is with a worker, and nothing is
//! promised about it; the same holds for brokers without lists.

use super::relay;
use broker::{Broker, Error};
use celery::Envelope;
use celery::task::{QueueName, Spread};
use ledger::{SharedLedger, Task};

/// Removes messages.
#[derive(Clone)]
pub struct Removal {
    ledger: SharedLedger,
    broker: Broker,
}

impl Removal {
    pub fn new(ledger: SharedLedger, broker: Broker) -> Self {
        Self { ledger, broker }
    }

    /// Removes the message. Returns the evidence that the task will never run, or `None` when the message is not in its list, or a copy may
    /// have run before.
    ///
    /// # Cancel safety
    /// A dropped call may have removed the message.
    pub async fn remove(&self, task: &Task) -> Result<Option<&'static str>, Error> {
        let Some(queue) = task.queue.as_deref() else { return Ok(None) };
        if let Some(spread) = &task.options.spread {
            return self.copies(task, queue, spread).await;
        }
        if self.exactly(task, queue, 0).await? {
            return Ok(Some("its message was removed from the queue"));
        }
        let Some(lists) = self.broker.lists() else { return Ok(None) };
        let removed = lists.remove_task(queue, task.id.as_str()).await?;
        let redelivered =
            |payload: &[u8]| Envelope::decode(payload).is_ok_and(|envelope| envelope.properties.redelivered);
        if removed.is_empty() || removed.iter().any(|message| redelivered(&message.payload)) {
            return Ok(None);
        }
        Ok(Some("its message was found in the queue and removed"))
    }

    /// Removes only the published bytes, from all their queues. Returns whether all were there.
    ///
    /// # Cancel safety
    /// As [`Removal::remove`].
    pub async fn remove_published(&self, task: &Task) -> Result<bool, Error> {
        let Some(queue) = task.queue.as_deref() else { return Ok(false) };
        match &task.options.spread {
            Some(spread) => Ok(self.copies(task, queue, spread).await?.is_some()),
            None => self.exactly(task, queue, 0).await,
        }
    }

    /// Removes all copies; if one is missing, the task may run.
    async fn copies(&self, task: &Task, queue: &str, spread: &Spread) -> Result<Option<&'static str>, Error> {
        let mut all = !spread.copies().is_empty();
        for (n, queue) in std::iter::once(queue).chain(spread.copies().iter().map(QueueName::as_str)).enumerate() {
            all &= self.exactly(task, queue, n).await?;
        }
        Ok(all.then_some("its messages were removed from all of its queues"))
    }

    /// Removes the message from its `n`th queue.
    async fn exactly(&self, task: &Task, queue: &str, n: usize) -> Result<bool, Error> {
        let Some(lists) = self.broker.lists() else { return Ok(false) };
        let Ok(Some(message)) = self.ledger.message(&task.id).await else { return Ok(false) };
        let Some(headers) = message.headers else { return Ok(false) };
        let tag = relay::copy_tag(&task.id.delivery_tag(task.delivery), n);
        let bytes = relay::envelope_bytes(task.id.as_str(), queue, task.priority.get(), &tag, &headers, &message.body);
        lists.remove(queue, task.priority, &bytes).await
    }
}
