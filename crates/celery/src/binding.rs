//! Bindings of queues to exchanges, which kombu stores in `_kombu.binding.<exchange>` and a publisher has to read there.

/// How an exchange chooses queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeKind {
    /// To queues whose key is equal.
    Direct,
    /// To queues whose pattern matches.
    Topic,
    /// To every subscriber; nothing is stored.
    Fanout,
    /// Queues whose arguments the message's headers match. kombu has none on Redis.
    Headers,
}

impl ExchangeKind {
    /// Whether only the broker knows the queues of a message: it is published to the exchange, not to queues.
    pub fn is_of_the_broker(self) -> bool {
        match self {
            Self::Fanout | Self::Headers => true,
            Self::Direct | Self::Topic => false,
        }
    }
}

/// `routing key, pattern, queue`; the pattern is a regular expression and empty unless the exchange is a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub routing_key: String,
    pub pattern: String,
    pub queue: String,
}

impl Member {
    /// Binds a queue by a key, or for topic exchanges by a pattern: `*` is one word, `#` any rest.
    pub fn bind(kind: ExchangeKind, routing_key: &str, queue: &str) -> Self {
        let pattern = if kind == ExchangeKind::Topic { topic_pattern(routing_key) } else { String::new() };
        Self { routing_key: routing_key.to_owned(), pattern, queue: queue.to_owned() }
    }

    /// `None` when the text does not have three parts. `sep` is the fleet's ([`super::Transport::sep`]).
    pub fn decode(text: &str, sep: &str) -> Option<Self> {
        let mut parts = text.split(sep).map(str::to_owned);
        let member = Self { routing_key: parts.next()?, pattern: parts.next()?, queue: parts.next()? };
        parts.next().is_none().then_some(member)
    }

    pub fn encode(&self, sep: &str) -> String {
        [self.routing_key.as_str(), &self.pattern, &self.queue].join(sep)
    }

    /// Whether a message with this key goes to the queue. A pattern that cannot be read matches nothing.
    pub fn takes(&self, routing_key: &str) -> bool {
        if self.pattern.is_empty() {
            return self.routing_key == routing_key;
        }
        regex::Regex::new(&self.pattern).is_ok_and(|pattern| pattern.is_match(routing_key))
    }
}

/// The regular expression that kombu stores for a topic pattern.
fn topic_pattern(routing_key: &str) -> String {
    let word = |word: &str| match word {
        "*" => r"[^\.]+".to_owned(),
        "#" => ".*?".to_owned(),
        word => word.to_owned(),
    };
    format!("^{}$", routing_key.split('.').map(word).collect::<Vec<_>>().join(r"\."))
}

/// The queues to which the exchange routes this key, each once.
pub fn route<'a>(members: &'a [Member], routing_key: &str) -> Vec<&'a str> {
    let mut queues: Vec<&str> = Vec::new();
    for member in members.iter().filter(|member| member.takes(routing_key)) {
        if !queues.contains(&member.queue.as_str()) {
            queues.push(&member.queue);
        }
    }
    queues
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors;

    /// kombu's own.
    const SEP: &str = "\u{6}\u{16}";

    #[test]
    fn every_recorded_member_reads_back() {
        let mut seen = 0;
        for (name, vector) in vectors::all() {
            for text in vectors::payloads(&vector, "SADD", |key| key.starts_with("_kombu.binding")) {
                assert_eq!(Member::decode(&text, SEP).map(|member| member.encode(SEP)), Some(text), "{name}");
                seen += 1;
            }
        }
        assert!(seen > 50, "only {seen}");
    }

    #[test]
    fn bindings_are_written_as_kombu_writes_them() {
        let member = Member::bind(ExchangeKind::Topic, "order.#", "topq").encode(SEP);
        assert_eq!(member, "order.#\u{6}\u{16}^order\\..*?$\u{6}\u{16}topq");
        let member = Member::bind(ExchangeKind::Topic, "order.*.eu", "topq2").encode(SEP);
        assert_eq!(member, "order.*.eu\u{6}\u{16}^order\\.[^\\.]+\\.eu$\u{6}\u{16}topq2");
        assert_eq!(Member::bind(ExchangeKind::Direct, "q", "q").encode(SEP), "q\u{6}\u{16}\u{6}\u{16}q");
        assert_eq!(Member::bind(ExchangeKind::Direct, "k", "q").encode(":"), "k::q");
    }

    #[test]
    fn a_hash_takes_any_rest_and_a_star_exactly_one_word() {
        let takes = |pattern: &str, key: &str| Member::bind(ExchangeKind::Topic, pattern, "q").takes(key);
        assert!(takes("#", "a.b.c") && takes("#", "") && takes("a.#.z", "a.b.c.z") && takes("*.b", "a.b"));
        assert!(!takes("*.b", "a.c.b") && !takes("*", "") && !takes("a.b", "a.bc") && !takes("order.#", "order"));
    }

    #[test]
    fn topic_and_direct_members_take_their_keys() {
        let members: Vec<Member> =
            vectors::payloads(&vectors::load("exchange_topic"), "SADD", |key| key == "_kombu.binding.topx")
                .iter()
                .filter_map(|text| Member::decode(text, SEP))
                .collect();
        assert_eq!(route(&members, "order.new.eu").len(), 2);
        assert_eq!(route(&members, "order.new.us"), ["topq"]);
        assert!(route(&members, "order").is_empty());
        let direct = Member { routing_key: "k".into(), pattern: String::new(), queue: "q".into() };
        assert!(direct.takes("k") && !direct.takes("kk"));
        assert_eq!(Member::decode("only one part", SEP), None);
    }
}
