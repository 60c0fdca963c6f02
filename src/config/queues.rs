//! `[queues.NAME]`: how many messages of the queue may be in the broker, and with which arguments it is declared, where the broker
//! declares queues (RabbitMQ).
//!
//! An existing queue is never changed: when it was declared with other arguments, the broker reports that, and it is used as it is.

use std::collections::BTreeMap;

use celery::task::QueueName;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::value::{Count, Span, Text};
use super::{Error, Said};

/// Above this RabbitMQ refuses `x-max-priority`.
const MOST_PRIORITIES: u8 = 255;
/// A larger window would limit nothing.
const MOST_WINDOW: u32 = 1_000_000;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawQueue {
    /// `classic` or `quorum`. Default classic, as Celery makes queues.
    #[serde(rename = "type")]
    kind: Option<Text>,
    /// The highest priority of the queue, 1 to 255; RabbitMQ advises 10 at most. Default none: the queue ignores priorities.
    max_priority: Option<Count>,
    /// Messages that wait longer go to the dead-letter exchange, or are dropped. Default no limit.
    message_ttl: Option<Span>,
    /// Maximum number of waiting messages; beyond it the oldest are removed. Default no limit.
    max_length: Option<Count>,
    /// Exchange for messages that are rejected or expire. Default none: they are dropped.
    dead_letter_exchange: Option<Text>,
    /// Routing key of dead-lettered messages. Default their own.
    dead_letter_routing_key: Option<Text>,
    /// How many messages of the queue may be in the broker and not yet at a worker; the others wait in the ledger, in order. 0 for no
    /// limit. Default no limit on Redis, 1,000 on RabbitMQ, and 16 where tasks have `fair`.
    window: Option<Count>,
    /// Further RabbitMQ queue arguments (`x-…`), passed on unchanged. Default none.
    #[serde(default)]
    arguments: BTreeMap<String, Value>,
}

/// One queue and its arguments.
#[derive(Debug, Clone)]
pub struct Queue {
    pub name: QueueName,
    /// The highest priority of the queue; `None` when it ignores priorities.
    pub max_priority: Option<u8>,
    /// How many messages may be in the broker and not yet at a worker; 0 for no limit, `None` for the default.
    pub window: Option<u32>,
    /// AMQP's `x-` arguments, a JSON object.
    pub arguments: String,
}

pub(super) fn read(raw: BTreeMap<String, RawQueue>, said: &Said) -> Result<Vec<Queue>, Error> {
    raw.into_iter().map(|(name, raw)| queue(name, raw, said)).collect()
}

fn queue(name: String, raw: RawQueue, said: &Said) -> Result<Queue, Error> {
    let place = |key: &str| said.place(&format!("queues.{name}.{key}"));
    let queue = QueueName::parse(name.clone())
        .map_err(|error| Error::value(said.place(&format!("queues.{name}")), error.to_string()))?;
    let kind = raw.kind.map(|text| text.0);
    if let Some(other) = kind.as_deref().filter(|kind| !matches!(*kind, "classic" | "quorum")) {
        return Err(Error::value(place("type"), format!("{other:?} is not classic or quorum")));
    }
    let max_priority = raw.max_priority.map(|value| match u8::try_from(value.0) {
        Ok(value @ 1..=MOST_PRIORITIES) => Ok(value),
        _ => Err(Error::value(place("max_priority"), "must be between 1 and 255; RabbitMQ advises 10 at most")),
    });
    let max_priority = max_priority.transpose()?;
    if kind.as_deref() == Some("quorum") && max_priority.is_some() {
        let harm = "RabbitMQ's quorum queues have no priorities of this kind and refuse the argument";
        return Err(Error::pair(place("type"), place("max_priority"), harm));
    }
    let mut arguments: Map<String, Value> = raw.arguments.into_iter().collect();
    if let Some(strange) = arguments.keys().find(|key| !key.starts_with("x-")) {
        return Err(Error::value(
            place(&format!("arguments.{strange}")),
            "is not a RabbitMQ argument: those begin with x-",
        ));
    }
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            arguments.insert(key.to_owned(), value);
        }
    };
    set("x-queue-type", kind.filter(|kind| kind == "quorum").map(Value::from));
    set("x-max-priority", max_priority.map(Value::from));
    set("x-message-ttl", raw.message_ttl.map(|span| json!(u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX))));
    set("x-max-length", raw.max_length.map(|count| count.0.into()));
    set("x-dead-letter-exchange", raw.dead_letter_exchange.map(|text| text.0.into()));
    set("x-dead-letter-routing-key", raw.dead_letter_routing_key.map(|text| text.0.into()));
    let window = raw.window.map(|count| match u32::try_from(count.0) {
        Ok(window) if window <= MOST_WINDOW => Ok(window),
        _ => Err(Error::value(place("window"), "must be between 0 (no limit) and 1,000,000")),
    });
    let window = window.transpose()?;
    Ok(Queue { name: queue, max_priority, window, arguments: Value::Object(arguments).to_string() })
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Role};

    fn read(toml: &str) -> Result<String, String> {
        let config = Config::parse(Role::Check, toml).map_err(|error| error.to_string())?;
        Ok(config.queues[0].arguments.clone())
    }

    #[test]
    fn a_queue_s_keys_become_rabbitmqs_arguments() {
        let text = "[queues.mail]\nmax_priority = 9\nmessage_ttl = '1m'\ndead_letter_exchange = 'dead'\n";
        let expected = r#"{"x-dead-letter-exchange":"dead","x-max-priority":9,"x-message-ttl":60000}"#;
        assert_eq!(read(text).unwrap(), expected);
        let text = "[queues.mail]\ntype = 'quorum'\narguments = { x-delivery-limit = 5 }\n";
        assert_eq!(read(text).unwrap(), r#"{"x-delivery-limit":5,"x-queue-type":"quorum"}"#);
    }

    #[test]
    fn what_rabbitmq_would_refuse_is_refused_at_the_start() {
        for (text, named) in [
            ("[queues.q]\nmax_priority = 300\n", "queues.q.max_priority"),
            ("[queues.q]\ntype = 'stream'\n", "queues.q.type"),
            ("[queues.q]\nwindow = 2_000_000\n", "queues.q.window"),
            ("[queues.q]\ntype = 'quorum'\nmax_priority = 5\n", "queues.q.max_priority"),
            ("[queues.q.arguments]\nmax = 5\n", "queues.q.arguments.max"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
