//! `[exchanges.NAME]`: exchanges besides the queues' own, as kombu emulates them on Redis.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Error;
use super::value::Text;
use celery::binding::{ExchangeKind, Member};
use celery::task::QueueName;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExchange {
    /// `direct`, `topic` or `fanout`. Default `direct`.
    #[serde(rename = "type")]
    kind: Option<Text>,
    /// `[{queue, routing_key}]`; for topic exchanges the key is a pattern with `*` and `#`. Default none.
    #[serde(default)]
    bindings: Vec<RawBinding>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBinding {
    queue: Text,
    #[serde(default)]
    routing_key: Option<Text>,
}

#[derive(Debug, Clone)]
pub struct Exchange {
    pub name: String,
    /// Default direct.
    pub kind: ExchangeKind,
    pub bindings: Vec<Binding>,
}

#[derive(Debug, Clone)]
pub struct Binding {
    pub queue: QueueName,
    /// For topic exchanges a pattern with `*` and `#`. Default empty.
    pub routing_key: String,
}

impl Exchange {
    /// The bindings as kombu stores them in Redis. A fanout exchange stores none: its workers subscribe to a channel.
    pub fn members(&self) -> Vec<Member> {
        if self.kind == ExchangeKind::Fanout {
            return Vec::new();
        }
        let member = |binding: &Binding| Member::bind(self.kind, &binding.routing_key, binding.queue.as_str());
        self.bindings.iter().map(member).collect()
    }
}

pub(super) fn read(raw: BTreeMap<String, RawExchange>) -> Result<Vec<Exchange>, Error> {
    raw.into_iter().map(|(name, raw)| exchange(name, raw)).collect()
}

fn exchange(name: String, raw: RawExchange) -> Result<Exchange, Error> {
    let key = format!("exchanges.{name}");
    let kind = match raw.kind.as_ref().map_or("direct", |text| text.0.as_str()) {
        "direct" => ExchangeKind::Direct,
        "topic" => ExchangeKind::Topic,
        "fanout" => ExchangeKind::Fanout,
        "headers" => {
            let reason =
                "kombu knows no headers exchange on Redis and would drop its messages: use a topic, or name the queue";
            return Err(Error::value(format!("{key}.type"), reason));
        }
        other => return Err(Error::value(format!("{key}.type"), format!("{other:?} is not direct, topic or fanout"))),
    };
    let bind = |(index, raw): (usize, RawBinding)| match QueueName::parse(raw.queue.0) {
        Ok(queue) => Ok(Binding { queue, routing_key: raw.routing_key.map_or_else(String::new, |text| text.0) }),
        Err(error) => Err(Error::value(format!("{key}.bindings[{index}].queue"), error.to_string())),
    };
    let bindings = raw.bindings.into_iter().enumerate().map(bind).collect::<Result<_, _>>()?;
    Ok(Exchange { name, kind, bindings })
}
