//! Names of the broker's keys and channels (SPEC of the wire: kombu's Redis transport).

use std::sync::Arc;

use celery::task::Priority;

/// Between a queue's name and its priority step, and between the parts of a binding.
pub const SEPARATOR: &str = "\u{6}\u{16}";
/// kombu's `priority_steps`: each is a list of its own.
pub const PRIORITY_STEPS: [u8; 4] = [0, 3, 6, 9];

/// Builds names with the prefix of `global_keyprefix`.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: Arc<str>,
    db: i64,
}

impl Keys {
    pub fn new(prefix: impl Into<Arc<str>>, db: i64) -> Self {
        Self { prefix: prefix.into(), db }
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The list that holds messages of this priority.
    pub fn queue(&self, queue: &str, priority: Priority) -> String {
        match step(priority) {
            0 => format!("{}{queue}", self.prefix),
            step => format!("{}{queue}{SEPARATOR}{step}", self.prefix),
        }
    }

    /// All four lists of a queue, first served first.
    pub fn queue_lists(&self, queue: &str) -> [String; 4] {
        PRIORITY_STEPS.map(|step| self.queue(queue, Priority::clamped(step.into())))
    }

    pub fn unacked(&self) -> String {
        format!("{}unacked", self.prefix)
    }

    pub fn unacked_index(&self) -> String {
        format!("{}unacked_index", self.prefix)
    }

    pub fn unacked_mutex(&self) -> String {
        format!("{}unacked_mutex", self.prefix)
    }

    pub fn binding(&self, exchange: &str) -> String {
        format!("{}_kombu.binding.{exchange}", self.prefix)
    }

    /// The members that keep a table from being swept.
    pub fn permanent_binding(&self, exchange: &str) -> String {
        format!("{}_kombu.binding_permanent.{exchange}", self.prefix)
    }

    /// Channel of a fanout exchange; `routing_key` may hold a pattern's `*`.
    pub fn fanout(&self, exchange: &str, routing_key: &str) -> String {
        if routing_key.is_empty() {
            format!("{}/{}.{exchange}", self.prefix, self.db)
        } else {
            format!("{}/{}.{exchange}/{routing_key}", self.prefix, self.db)
        }
    }

    /// Markers of deliveries between push and certain bookkeeping: taskgate's own key, unknown to Celery.
    pub fn markers(&self) -> String {
        format!("{}taskgate.published", self.prefix)
    }

    pub fn prefixed(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

/// The step whose list holds messages of this priority.
pub fn step(priority: Priority) -> u8 {
    PRIORITY_STEPS.into_iter().rev().find(|step| *step <= priority.get()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_is_rounded_down_to_its_list() {
        let keys = Keys::new("", 0);
        let list = |priority| keys.queue("celery", Priority::clamped(priority));
        assert_eq!(list(0), "celery");
        assert_eq!(list(2), "celery");
        assert_eq!(list(5), "celery\u{6}\u{16}3");
        assert_eq!(list(9), "celery\u{6}\u{16}9");
    }

    #[test]
    fn the_prefix_stands_before_keys_and_channels() {
        let keys = Keys::new("pfx:", 0);
        assert_eq!(keys.unacked(), "pfx:unacked");
        assert_eq!(keys.fanout("celeryev", "*"), "pfx:/0.celeryev/*");
        assert_eq!(keys.fanout("celery.pidbox", ""), "pfx:/0.celery.pidbox");
    }
}
