//! Exchanges as kombu emulates them on Redis: direct and topic tables are sets of bindings, fanout is a channel.
//!
//! Who publishes to an exchange routes: reads the table and pushes to every queue that matches. We declare our bindings in both
//! sets that kombu knows, because a table without permanent members may be swept by any worker.

use super::keys::SEPARATOR;
use super::{Broker, Error};
use crate::task::QueueName;

/// How an exchange chooses queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeKind {
    /// Queues whose key is equal.
    Direct,
    /// Queues whose pattern matches.
    Topic,
    /// Everybody who listens; nothing is stored.
    Fanout,
}

/// An exchange of this kind with one queue bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    pub queue: QueueName,
    /// A key, or for topic exchanges a pattern with `*` (one word) and `#` (any rest).
    pub routing_key: String,
}

impl ExchangeKind {
    /// The queues that kombu would push to, each once, in the order of the bindings. A fanout reaches no queue.
    pub fn route<'a>(self, bindings: &'a [Binding], routing_key: &str) -> Vec<&'a QueueName> {
        let matches = |binding: &&Binding| match self {
            Self::Direct => binding.routing_key == routing_key,
            Self::Topic => topic_matches(&binding.routing_key, routing_key),
            Self::Fanout => false,
        };
        let mut queues: Vec<&QueueName> = Vec::new();
        for binding in bindings.iter().filter(matches) {
            if !queues.contains(&&binding.queue) {
                queues.push(&binding.queue);
            }
        }
        queues
    }

    /// The member of the binding sets: key, pattern, queue.
    fn member(self, binding: &Binding) -> String {
        let pattern = if self == Self::Topic { topic_regex(&binding.routing_key) } else { String::new() };
        format!("{}{SEPARATOR}{pattern}{SEPARATOR}{}", binding.routing_key, binding.queue)
    }
}

impl Broker {
    /// Writes the bindings of an exchange where workers and producers look for them. Repeating it changes nothing.
    pub async fn declare(&self, exchange: &str, kind: ExchangeKind, bindings: &[Binding]) -> Result<(), Error> {
        if bindings.is_empty() || kind == ExchangeKind::Fanout {
            return Ok(());
        }
        let members: Vec<String> = bindings.iter().map(|binding| kind.member(binding)).collect();
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("SADD").arg(self.keys.binding(exchange)).arg(&members).ignore();
        pipeline.cmd("SADD").arg(self.keys.permanent_binding(exchange)).arg(&members).ignore();
        self.link.pipeline(&pipeline).await
    }

    /// Publishes to a fanout exchange. Returns how many listened; nobody else ever gets the message.
    pub async fn fan_out(&self, exchange: &str, routing_key: &str, envelope: &[u8]) -> Result<i64, Error> {
        let channel = self.keys.fanout(exchange, routing_key);
        self.link.call(redis::cmd("PUBLISH").arg(channel).arg(envelope)).await
    }
}

/// As kombu's regular expression decides: `*` is a word of at least one character, `#` any text, empty too.
fn topic_matches(pattern: &str, key: &str) -> bool {
    fn matches(words: &[&str], key: &str) -> bool {
        let Some((word, rest)) = words.split_first() else { return false };
        let ends: Vec<usize> = match *word {
            "#" => (0..=key.len()).filter(|end| key.is_char_boundary(*end)).collect(),
            "*" => (1..=key.find('.').unwrap_or(key.len())).filter(|end| key.is_char_boundary(*end)).collect(),
            word => key.starts_with(word).then_some(word.len()).into_iter().collect(),
        };
        ends.into_iter().any(|end| match (rest.is_empty(), &key[end..]) {
            (true, tail) => tail.is_empty(),
            (false, tail) => tail.strip_prefix('.').is_some_and(|tail| matches(rest, tail)),
        })
    }
    // Patterns are a handful of words written by the operator; keys are as short.
    matches(&pattern.split('.').collect::<Vec<_>>(), key)
}

/// The regular expression that kombu stores for a topic pattern.
fn topic_regex(pattern: &str) -> String {
    let word = |word: &str| match word {
        "*" => r"[^\.]+".to_owned(),
        "#" => ".*?".to_owned(),
        word => word.to_owned(),
    };
    format!("^{}$", pattern.split('.').map(word).collect::<Vec<_>>().join(r"\."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(queue: &str, routing_key: &str) -> Binding {
        Binding { queue: QueueName::parse(queue).unwrap(), routing_key: routing_key.to_owned() }
    }

    #[test]
    fn bindings_are_written_as_kombu_writes_them() {
        let member = ExchangeKind::Topic.member(&bind("topq", "order.#"));
        assert_eq!(member, "order.#\u{6}\u{16}^order\\..*?$\u{6}\u{16}topq");
        let member = ExchangeKind::Topic.member(&bind("topq2", "order.*.eu"));
        assert_eq!(member, "order.*.eu\u{6}\u{16}^order\\.[^\\.]+\\.eu$\u{6}\u{16}topq2");
        assert_eq!(ExchangeKind::Direct.member(&bind("q", "q")), "q\u{6}\u{16}\u{6}\u{16}q");
    }

    #[test]
    fn a_topic_key_reaches_every_queue_whose_pattern_matches() {
        let bindings = [bind("topq", "order.#"), bind("topq2", "order.*.eu")];
        let route = |key: &str| {
            ExchangeKind::Topic.route(&bindings, key).into_iter().map(QueueName::as_str).collect::<Vec<_>>()
        };
        assert_eq!(route("order.new.eu"), ["topq", "topq2"]);
        assert_eq!(route("order.new.us"), ["topq"]);
        assert!(route("order").is_empty());
        assert!(route("orders.new.eu").is_empty());
    }

    #[test]
    fn a_hash_takes_any_rest_and_a_star_exactly_one_word() {
        assert!(topic_matches("#", "a.b.c"));
        assert!(topic_matches("#", ""));
        assert!(topic_matches("a.#.z", "a.b.c.z"));
        assert!(topic_matches("*.b", "a.b"));
        assert!(!topic_matches("*.b", "a.c.b"));
        assert!(!topic_matches("*", ""));
        assert!(!topic_matches("a.b", "a.bc"));
    }

    #[test]
    fn a_direct_key_must_be_equal_and_a_fanout_reaches_no_queue() {
        let bindings = [bind("a", "k"), bind("b", "k"), bind("a", "k"), bind("c", "other")];
        assert_eq!(ExchangeKind::Direct.route(&bindings, "k").len(), 2);
        assert!(ExchangeKind::Direct.route(&bindings, "x").is_empty());
        assert!(ExchangeKind::Fanout.route(&bindings, "k").is_empty());
    }
}
