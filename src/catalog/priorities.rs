//! The highest priorities of queues, where the broker has such: RabbitMQ serves a message with a higher priority like one with the highest,
//! so a caller that asks for more would be deceived.

use std::collections::HashMap;

use super::Catalog;
use crate::config::{Config, Error};
use celery::task::{Priority, QueueName};

/// By queue, where `[queues.NAME]` says `max_priority`.
#[derive(Debug)]
pub(super) struct TopPriorities(HashMap<QueueName, u8>);

impl TopPriorities {
    pub fn of(config: &Config) -> Self {
        let queues = config.queues.iter().filter(|_| config.broker.redis.is_rabbitmq());
        Self(queues.filter_map(|queue| Some((queue.name.clone(), queue.max_priority?))).collect())
    }
}

impl Catalog {
    /// Why a task of this priority must not go to this queue.
    pub fn refuses_priority(&self, queue: &QueueName, priority: Priority) -> Option<String> {
        let top = *self.top_priorities.0.get(queue)?;
        let asked = priority.get();
        (asked > top).then(|| format!("{asked} is above {top}, the max_priority of the queue {queue}"))
    }

    /// Refuses entries with a priority that their queue does not have.
    pub(super) fn check_priorities(&self) -> Result<(), Error> {
        for entry in self.entries.iter().filter(|entry| !entry.computes_queue()) {
            let queue = self.queue_for(entry.name.as_str());
            let refused = entry.defaults.priority.and_then(|priority| self.refuses_priority(&queue, priority));
            if let Some(harm) = refused {
                let (ours, theirs) = (format!("{}.priority", entry.place), format!("queues.{queue}.max_priority"));
                return Err(Error::pair(ours, theirs, harm));
            }
        }
        Ok(())
    }
}
