//! kombu's transport options as keys of `[broker]`, under kombu's own names, so that they can be copied from
//! `broker_transport_options`.

use super::value::{Scalar, Switch, Text, Words};
use super::{Error, Said};
use broker::QueueOrder;
use celery::{FanoutPrefix, Transport};

/// The options as the user wrote them.
#[derive(Debug, Default)]
pub(super) struct RawTransport {
    pub key_prefix: Option<Text>,
    pub global_keyprefix: Option<Text>,
    pub sep: Option<Text>,
    pub priority_steps: Option<Words>,
    pub queue_order_strategy: Option<Text>,
    pub fanout_prefix: Option<Scalar>,
    pub fanout_patterns: Option<Switch>,
    pub unacked_key: Option<Text>,
    pub unacked_index_key: Option<Text>,
    pub unacked_mutex_key: Option<Text>,
}

impl RawTransport {
    pub(super) fn read(self, said: &Said) -> Result<(Transport, QueueOrder), Error> {
        let kombus = Transport::default();
        let order = order(self.queue_order_strategy, said)?;
        let named = |name: &str, text: Option<Text>, default: String| match text {
            Some(text) if text.0.is_empty() => {
                Err(Error::value(said.place(&format!("broker.{name}")), "must not be empty"))
            }
            Some(text) => Ok(text.0),
            None => Ok(default),
        };
        let transport = Transport {
            global_keyprefix: prefix(self.key_prefix, self.global_keyprefix, "broker", said)?,
            sep: named("sep", self.sep, kombus.sep)?,
            priority_steps: steps(self.priority_steps, said)?.unwrap_or(kombus.priority_steps),
            fanout_prefix: self.fanout_prefix.map_or(kombus.fanout_prefix, fanout_prefix),
            fanout_patterns: self.fanout_patterns.is_none_or(|switch| switch.0),
            unacked_key: named("unacked_key", self.unacked_key, kombus.unacked_key)?,
            unacked_index_key: named("unacked_index_key", self.unacked_index_key, kombus.unacked_index_key)?,
            unacked_mutex_key: named("unacked_mutex_key", self.unacked_mutex_key, kombus.unacked_mutex_key)?,
        };
        Ok((transport, order))
    }
}

/// Reads the key prefix. `key_prefix` is our older name for `global_keyprefix`.
pub(super) fn prefix(ours: Option<Text>, theirs: Option<Text>, section: &str, said: &Said) -> Result<String, Error> {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours != theirs => Err(Error::pair(
            said.place(&format!("{section}.key_prefix")),
            said.place(&format!("{section}.global_keyprefix")),
            "both are the same option of the fleet; leave one out",
        )),
        (ours, theirs) => Ok(theirs.or(ours).map_or_else(String::new, |text| text.0)),
    }
}

fn steps(words: Option<Words>, said: &Said) -> Result<Option<Vec<u8>>, Error> {
    let Some(words) = words else { return Ok(None) };
    let steps: Result<Vec<u8>, _> = words.0.iter().map(|word| word.trim().parse::<u8>()).collect();
    let ascending = |steps: &Vec<u8>| !steps.is_empty() && steps.is_sorted_by(|left, right| left < right);
    match steps {
        Ok(steps) if ascending(&steps) && steps.iter().all(|step| *step <= 9) => Ok(Some(steps)),
        _ => Err(Error::value(
            said.place("broker.priority_steps"),
            "must be numbers from 0 to 9, ascending, such as [0, 3, 6, 9]",
        )),
    }
}

fn order(text: Option<Text>, said: &Said) -> Result<QueueOrder, Error> {
    match text.as_ref().map(|text| text.0.as_str()) {
        None | Some("round_robin") => Ok(QueueOrder::RoundRobin),
        Some("priority") => Ok(QueueOrder::Priority),
        Some("sorted") => Ok(QueueOrder::Sorted),
        Some(other) => Err(Error::value(
            said.place("broker.queue_order_strategy"),
            format!("{other:?} is none of round_robin, priority and sorted"),
        )),
    }
}

fn fanout_prefix(scalar: Scalar) -> FanoutPrefix {
    match scalar {
        Scalar::Bool(true) => FanoutPrefix::Database,
        Scalar::Bool(false) => FanoutPrefix::None,
        other => match other.to_string().as_str() {
            // Environment variables hold only text.
            "true" | "True" => FanoutPrefix::Database,
            "false" | "False" | "" => FanoutPrefix::None,
            text => FanoutPrefix::Text(text.to_owned()),
        },
    }
}
