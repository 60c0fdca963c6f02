//! `[exchanges.NAME]`: exchanges besides the queues' own, as RabbitMQ has them and kombu emulates them on Redis.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Error;
use super::value::Text;
use celery::binding::{ExchangeKind, Member};
use celery::task::QueueName;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExchange {
    /// `direct`, `topic`, `fanout`, or `headers` (RabbitMQ). Default `direct`.
    #[serde(rename = "type")]
    kind: Option<Text>,
    /// `[{queue, routing_key, headers}]`; for topic exchanges the key is a pattern with `*` and `#`, for headers exchanges `headers` are those
    /// that a message must have (`x-match = "any"` for one of them). Default none.
    #[serde(default)]
    bindings: Vec<RawBinding>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBinding {
    queue: Text,
    #[serde(default)]
    routing_key: Option<Text>,
    #[serde(default)]
    headers: Option<toml::Table>,
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
    /// For headers exchanges: what a message's headers must be, a JSON object. Default empty.
    pub headers: String,
}

impl Exchange {
    /// The bindings as kombu stores them in Redis. A fanout exchange stores none: its workers subscribe to a channel.
    pub fn members(&self) -> Vec<Member> {
        if self.kind.is_of_the_broker() {
            return Vec::new();
        }
        let member = |binding: &Binding| Member::bind(self.kind, &binding.routing_key, binding.queue.as_str());
        self.bindings.iter().map(member).collect()
    }
}

pub(super) fn read(raw: BTreeMap<String, RawExchange>, is_rabbitmq: bool) -> Result<Vec<Exchange>, Error> {
    raw.into_iter().map(|(name, raw)| exchange(name, raw, is_rabbitmq)).collect()
}

fn exchange(name: String, raw: RawExchange, is_rabbitmq: bool) -> Result<Exchange, Error> {
    let key = format!("exchanges.{name}");
    let kind = match raw.kind.as_ref().map_or("direct", |text| text.0.as_str()) {
        "direct" => ExchangeKind::Direct,
        "topic" => ExchangeKind::Topic,
        "fanout" => ExchangeKind::Fanout,
        "headers" if is_rabbitmq => ExchangeKind::Headers,
        "headers" => {
            let reason =
                "kombu knows no headers exchange on Redis and would drop its messages: use a topic, or name the queue";
            return Err(Error::value(format!("{key}.type"), reason));
        }
        other => {
            let message = format!("{other:?} is not direct, topic, fanout or headers");
            return Err(Error::value(format!("{key}.type"), message));
        }
    };
    let bind = |(index, raw): (usize, RawBinding)| {
        let place = |part: &str| format!("{key}.bindings[{index}].{part}");
        if raw.headers.is_some() && kind != ExchangeKind::Headers {
            return Err(Error::value(place("headers"), "only an exchange of the type headers looks at headers"));
        }
        let headers = serde_json::to_string(&raw.headers.unwrap_or_default());
        let headers = headers.map_err(|error| Error::value(place("headers"), error.to_string()))?;
        match QueueName::parse(raw.queue.0) {
            Ok(queue) => {
                let routing_key = raw.routing_key.map_or_else(String::new, |text| text.0);
                Ok(Binding { queue, routing_key, headers })
            }
            Err(error) => Err(Error::value(place("queue"), error.to_string())),
        }
    };
    let bindings = raw.bindings.into_iter().enumerate().map(bind).collect::<Result<_, _>>()?;
    Ok(Exchange { name, kind, bindings })
}
