//! Windows: how many messages of a queue may be in the broker at the same time, from the configuration and its defaults. Pure.
//!
//! A message counts until a worker has received it or its task has ended. Tasks without room wait in the ledger, in order.

use std::collections::HashMap;

use celery::task::Priority;

/// The default where keys take turns (`fair`): enough to keep eight processes busy while the next messages are fetched, and few enough
/// that a new task does not queue behind many.
pub const SHARED: u32 = 16;
/// The default on RabbitMQ, where a single message cannot be removed from a queue.
pub const RABBITMQ: u32 = 1_000;

/// The windows of all queues.
#[derive(Debug, Clone, Default)]
pub struct Windows {
    /// The configured windows; `None` means no limit.
    said: HashMap<String, Option<u32>>,
    /// The window of queues without a configured one.
    usual: Option<u32>,
    /// Whether priority 9 is served first, as in RabbitMQ; in Redis it is 0.
    highest_first: bool,
}

impl Windows {
    /// `said` are the configured windows, 0 for no limit; `shared` are queues of catalog entries with `fair`.
    pub fn new<'a>(
        said: impl Iterator<Item = (&'a str, Option<u32>)>,
        shared: impl Iterator<Item = String>,
        is_rabbitmq: bool,
    ) -> Self {
        let mut windows: HashMap<String, Option<u32>> = shared.map(|queue| (queue, Some(SHARED))).collect();
        for (queue, window) in said {
            if let Some(window) = window {
                windows.insert(queue.to_owned(), (window > 0).then_some(window));
            }
        }
        Self { said: windows, usual: is_rabbitmq.then_some(RABBITMQ), highest_first: is_rabbitmq }
    }

    /// The window of a queue. `shared`: keys take turns in it.
    pub fn of(&self, queue: &str, shared: bool) -> Option<u32> {
        match self.said.get(queue) {
            Some(Some(window)) => Some(*window),
            // Turns need a window: without one everything would be in the broker already.
            Some(None) | None if shared => Some(SHARED),
            Some(None) => None,
            None => self.usual,
        }
    }

    /// Whether the broker refuses a message that it already has. Where it does not, only a pass over the outbox publishes: it
    /// holds the row, so that no other pass has it too.
    pub fn has_markers(&self) -> bool {
        !self.highest_first
    }

    /// The rank of a priority among waiting tasks: the lowest goes first.
    pub fn rank(&self, priority: Priority) -> i16 {
        let priority = i16::from(priority.get());
        if self.highest_first { 9 - priority } else { priority }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(is_rabbitmq: bool) -> Windows {
        let said = [("mail", Some(100)), ("free", Some(0)), ("plain", None), ("both", Some(7))];
        let shared = ["tenants", "both"].map(str::to_owned);
        Windows::new(said.into_iter(), shared.into_iter(), is_rabbitmq)
    }

    #[test]
    fn what_is_said_of_a_queue_stands_above_the_defaults() {
        for (queue, redis, rabbitmq) in [
            ("mail", Some(100), Some(100)),
            ("free", None, None),
            ("plain", None, Some(RABBITMQ)),
            ("other", None, Some(RABBITMQ)),
            ("tenants", Some(SHARED), Some(SHARED)),
            ("both", Some(7), Some(7)),
        ] {
            assert_eq!((windows(false).of(queue, false), windows(true).of(queue, false)), (redis, rabbitmq), "{queue}");
        }
    }

    #[test]
    fn where_keys_take_turns_there_is_a_window() {
        let of = |queue| windows(true).of(queue, true);
        assert_eq!((of("mail"), of("free"), of("other")), (Some(100), Some(SHARED), Some(SHARED)));
    }

    #[test]
    fn the_first_priority_of_each_broker_goes_first() {
        let rank = |is_rabbitmq, priority| windows(is_rabbitmq).rank(Priority::new(priority).unwrap());
        assert!(rank(false, 0) < rank(false, 9));
        assert!(rank(true, 9) < rank(true, 0));
    }
}
