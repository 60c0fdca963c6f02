//! A queue's place in an exchange, as kombu keeps it in `_kombu.binding.<exchange>`: what a publisher has to read there.

/// Between the parts of a member.
const SEPARATOR: &str = "\u{6}\u{16}";

/// `routing key, pattern, queue`; the pattern is a regular expression and empty unless the exchange is a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub routing_key: String,
    pub pattern: String,
    pub queue: String,
}

impl Member {
    /// `None` when the text has not three parts.
    pub fn decode(text: &str) -> Option<Self> {
        let mut parts = text.split(SEPARATOR).map(str::to_owned);
        let member = Self { routing_key: parts.next()?, pattern: parts.next()?, queue: parts.next()? };
        parts.next().is_none().then_some(member)
    }

    pub fn encode(&self) -> String {
        [self.routing_key.as_str(), &self.pattern, &self.queue].join(SEPARATOR)
    }

    /// Whether a message with this key goes to the queue. A pattern that cannot be read matches nothing.
    pub fn takes(&self, routing_key: &str) -> bool {
        if self.pattern.is_empty() {
            return self.routing_key == routing_key;
        }
        regex::Regex::new(&self.pattern).is_ok_and(|pattern| pattern.is_match(routing_key))
    }
}

/// The queues of an exchange's members that take this key, each once.
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
    use crate::celery::vectors;

    #[test]
    fn every_recorded_member_reads_back() {
        let mut seen = 0;
        for (name, vector) in vectors::all() {
            for text in vectors::payloads(&vector, "SADD", |key| key.starts_with("_kombu.binding")) {
                assert_eq!(Member::decode(&text).map(|member| member.encode()), Some(text), "{name}");
                seen += 1;
            }
        }
        assert!(seen > 50, "only {seen}");
    }

    #[test]
    fn topic_and_direct_members_take_their_keys() {
        let members: Vec<Member> =
            vectors::payloads(&vectors::load("exchange_topic"), "SADD", |key| key == "_kombu.binding.topx")
                .iter()
                .filter_map(|text| Member::decode(text))
                .collect();
        assert_eq!(route(&members, "order.new.eu").len(), 2);
        assert_eq!(route(&members, "order.new.us"), ["topq"]);
        assert!(route(&members, "order").is_empty());
        let direct = Member { routing_key: "k".into(), pattern: String::new(), queue: "q".into() };
        assert!(direct.takes("k") && !direct.takes("kk"));
        assert_eq!(Member::decode("only one part"), None);
    }
}
