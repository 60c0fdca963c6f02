//! kombu's transport options for Redis that determine the names of keys and channels. Every program of a fleet must use the same
//! values: a message in a list that no worker reads waits for ever, and a binding with another separator makes workers fail.

use crate::task::Priority;

/// kombu's default `sep`.
const SEPARATOR: &str = "\u{6}\u{16}";
/// kombu's default `priority_steps`.
const STEPS: [u8; 4] = [0, 3, 6, 9];

/// The naming options in `broker_transport_options`. The defaults are kombu's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// Prefix of every key and channel, used verbatim. Default empty.
    pub global_keyprefix: String,
    /// Separates a queue's name from its priority step, and the parts of a binding.
    pub sep: String,
    /// Ascending; each step has a list of its own.
    pub priority_steps: Vec<u8>,
    pub fanout_prefix: FanoutPrefix,
    /// Whether the routing key is part of a channel's name. Default true.
    pub fanout_patterns: bool,
    pub unacked_key: String,
    pub unacked_index_key: String,
    pub unacked_mutex_key: String,
}

/// Prefix of an exchange's name in the name of its channel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum FanoutPrefix {
    /// `true`: `/{db}.`
    #[default]
    Database,
    /// `false`: nothing.
    None,
    /// A custom prefix, in which `{db}` is replaced by the number of the database.
    Text(String),
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            global_keyprefix: String::new(),
            sep: SEPARATOR.to_owned(),
            priority_steps: STEPS.to_vec(),
            fanout_prefix: FanoutPrefix::default(),
            fanout_patterns: true,
            unacked_key: "unacked".to_owned(),
            unacked_index_key: "unacked_index".to_owned(),
            unacked_mutex_key: "unacked_mutex".to_owned(),
        }
    }
}

impl Transport {
    /// The step whose list holds messages of this priority. A priority below the first step goes to the last step, because kombu
    /// computes it that way.
    pub fn step(&self, priority: Priority) -> u8 {
        let below = self.priority_steps.iter().rev().find(|step| **step <= priority.get());
        below.or(self.priority_steps.last()).copied().unwrap_or(0)
    }

    /// The name of the list with a queue's messages of this priority, without the prefix.
    pub fn list(&self, queue: &str, priority: Priority) -> String {
        match self.step(priority) {
            0 => queue.to_owned(),
            step => format!("{queue}{}{step}", self.sep),
        }
    }

    /// The channel of a fanout exchange, without the prefix; `routing_key` may contain a pattern's `*`.
    pub fn channel(&self, exchange: &str, routing_key: &str, db: i64) -> String {
        let prefix = match &self.fanout_prefix {
            FanoutPrefix::Database => format!("/{db}."),
            FanoutPrefix::None => String::new(),
            FanoutPrefix::Text(text) => text.replace("{db}", &db.to_string()),
        };
        if routing_key.is_empty() || !self.fanout_patterns {
            format!("{prefix}{exchange}")
        } else {
            format!("{prefix}{exchange}/{routing_key}")
        }
    }

    /// Why no queue of this fleet may have this name; `None` when it may. Names that are keys in every fleet are refused by the parser
    /// ([`crate::task::QueueName`]); this check depends on the options.
    pub fn refuses(&self, queue: &str) -> Option<String> {
        let keys = [&self.unacked_key, &self.unacked_index_key, &self.unacked_mutex_key];
        if keys.into_iter().any(|key| key == queue) {
            return Some("is the key under which workers keep reserved messages".to_owned());
        }
        // kombu cuts a list's name at the last separator: no worker could take a message of this queue.
        queue.contains(&self.sep).then(|| format!("contains {:?}, which separates a queue from its priority", self.sep))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(transport: &Transport, priority: i64) -> String {
        transport.list("celery", Priority::clamped(priority))
    }

    #[test]
    fn a_priority_is_rounded_down_to_its_step() {
        let kombus = Transport::default();
        assert_eq!([0, 2, 5, 9].map(|priority| kombus.step(Priority::clamped(priority))), [0, 0, 3, 9]);
        assert_eq!(list(&kombus, 2), "celery");
        assert_eq!(list(&kombus, 5), "celery\u{6}\u{16}3");
        let tens = Transport { priority_steps: (0..10).collect(), sep: ":".to_owned(), ..Transport::default() };
        assert_eq!((list(&tens, 0), list(&tens, 5)), ("celery".to_owned(), "celery:5".to_owned()));
    }

    #[test]
    fn a_priority_below_the_first_step_goes_to_the_last_one_as_with_kombu() {
        let without_zero = Transport { priority_steps: vec![3, 6], ..Transport::default() };
        assert_eq!((without_zero.step(Priority::clamped(0)), without_zero.step(Priority::clamped(4))), (6, 3));
    }

    #[test]
    fn channels_follow_the_fanout_options() {
        let channel = |fanout_prefix, fanout_patterns| {
            let transport = Transport { fanout_prefix, fanout_patterns, ..Transport::default() };
            transport.channel("celeryev", "task.#", 3)
        };
        assert_eq!(channel(FanoutPrefix::Database, true), "/3.celeryev/task.#");
        assert_eq!(channel(FanoutPrefix::Database, false), "/3.celeryev");
        assert_eq!(channel(FanoutPrefix::None, true), "celeryev/task.#");
        assert_eq!(channel(FanoutPrefix::Text("app{db}.".to_owned()), false), "app3.celeryev");
    }

    #[test]
    fn a_queue_may_not_be_called_as_this_fleet_s_own_keys() {
        let fleet = Transport { sep: ":".to_owned(), unacked_key: "taken".to_owned(), ..Transport::default() };
        assert!(fleet.refuses("taken").is_some() && fleet.refuses("a:3").is_some());
        assert_eq!(fleet.refuses("celery"), None);
        assert_eq!(Transport::default().refuses("a:3"), None);
    }
}
