//! `[routes]`: the queue of a task when neither the request nor the catalog names one.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Error;
use super::value::Text;
use celery::task::QueueName;

/// Task name or pattern → where it goes.
#[derive(Debug, Clone, Default)]
pub struct Routes(pub Vec<(String, Route)>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Queue(QueueName),
    /// To an exchange of `[exchanges]`. The routing key is empty by default; for a fanout exchange it is the default queue's name.
    Exchange {
        exchange: String,
        routing_key: Option<String>,
    },
}

/// `"heavy"`, or `{ exchange = "orders", routing_key = "order.new.eu" }`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum RawRoute {
    Queue(Text),
    Exchange(RawExchangeRoute),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExchangeRoute {
    exchange: Text,
    #[serde(default)]
    routing_key: Option<Text>,
}

impl Routes {
    pub(super) fn read(raw: BTreeMap<String, RawRoute>) -> Result<Self, Error> {
        let route = |(pattern, raw): (String, RawRoute)| match raw {
            RawRoute::Queue(queue) => match QueueName::parse(queue.0) {
                Ok(queue) => Ok((pattern, Route::Queue(queue))),
                Err(error) => Err(Error::value(format!("routes.{pattern:?}"), error.to_string())),
            },
            RawRoute::Exchange(RawExchangeRoute { exchange, routing_key }) => {
                let routing_key = routing_key.map(|text| text.0);
                Ok((pattern, Route::Exchange { exchange: exchange.0, routing_key }))
            }
        };
        raw.into_iter().map(route).collect::<Result<_, _>>().map(Self)
    }
}
