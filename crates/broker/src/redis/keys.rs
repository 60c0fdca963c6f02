//! Names of the broker's keys and channels, as in kombu's Redis transport.

use std::sync::Arc;

use celery::Transport;
use celery::task::Priority;

/// Builds names according to the fleet's transport options.
#[derive(Debug, Clone)]
pub struct Keys {
    transport: Arc<Transport>,
    db: i64,
}

impl Keys {
    pub fn new(transport: impl Into<Arc<Transport>>, db: i64) -> Self {
        Self { transport: transport.into(), db }
    }

    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    pub fn prefix(&self) -> &str {
        &self.transport.global_keyprefix
    }

    /// The list that holds messages of this priority.
    pub fn queue(&self, queue: &str, priority: Priority) -> String {
        self.prefixed(&self.transport.list(queue, priority))
    }

    /// The priority steps, in the order in which they are served.
    pub fn steps(&self) -> &[u8] {
        &self.transport.priority_steps
    }

    /// All lists of a queue in the order in which they are served, one for each step.
    pub fn queue_lists(&self, queue: &str) -> Vec<String> {
        self.steps().iter().map(|step| self.queue(queue, Priority::clamped((*step).into()))).collect()
    }

    pub fn unacked(&self) -> String {
        self.prefixed(&self.transport.unacked_key)
    }

    pub fn unacked_index(&self) -> String {
        self.prefixed(&self.transport.unacked_index_key)
    }

    pub fn unacked_mutex(&self) -> String {
        self.prefixed(&self.transport.unacked_mutex_key)
    }

    pub fn binding(&self, exchange: &str) -> String {
        self.prefixed(&format!("_kombu.binding.{exchange}"))
    }

    /// The set of members that protects a table from being swept.
    pub fn permanent_binding(&self, exchange: &str) -> String {
        self.prefixed(&format!("_kombu.binding_permanent.{exchange}"))
    }

    /// Channel of a fanout exchange; `routing_key` may contain a pattern's `*`.
    pub fn fanout(&self, exchange: &str, routing_key: &str) -> String {
        self.prefixed(&self.transport.channel(exchange, routing_key, self.db))
    }

    /// taskgate's own key for markers of deliveries that are pushed but not certainly recorded; Celery does not know it.
    pub fn markers(&self) -> String {
        self.prefixed("taskgate.published")
    }

    pub fn prefixed(&self, key: &str) -> String {
        format!("{}{key}", self.prefix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_stands_before_keys_and_channels() {
        let keys = Keys::new(Transport { global_keyprefix: "pfx:".to_owned(), ..Transport::default() }, 0);
        assert_eq!(keys.unacked(), "pfx:unacked");
        assert_eq!(keys.queue("celery", Priority::clamped(9)), "pfx:celery\u{6}\u{16}9");
        assert_eq!(keys.fanout("celeryev", "*"), "pfx:/0.celeryev/*");
        assert_eq!(keys.fanout("celery.pidbox", ""), "pfx:/0.celery.pidbox");
    }

    #[test]
    fn a_queue_has_a_list_for_each_step() {
        let tens = Transport { priority_steps: (0..10).collect(), sep: ":".to_owned(), ..Transport::default() };
        let lists = Keys::new(tens, 0).queue_lists("q");
        assert_eq!((lists.len(), lists[0].as_str(), lists[9].as_str()), (10, "q", "q:9"));
    }
}
