//! Routes tasks whose call and entry name no queue: by the routes, and the exchanges that a route may point to.
//!
//! A route to an exchange is resolved at start from the configured bindings, as kombu resolves it from the tables in Redis: a
//! direct or topic exchange routes to every queue whose key or pattern matches the routing key, a fanout to every subscriber. A
//! route that matches no queue prevents the start, because kombu drops such messages without a trace.

use std::cmp::Reverse;

use super::Pattern;
use crate::config::{Config, Error, Exchange, Route};
use celery::binding::route;
use celery::task::{QueueName, Spread};

/// The destination of a route.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    pub queue: QueueName,
    pub spread: Option<Spread>,
}

#[derive(Debug)]
pub(super) struct Routing {
    /// Exact names first, then patterns, the longest first.
    routes: Vec<(Pattern, Destination)>,
    /// Queues that are exchanges of which the broker alone knows the queues, by name.
    fanouts: Vec<(QueueName, Spread)>,
    default_queue: QueueName,
}

impl Routing {
    pub fn compile(config: &Config) -> Result<Self, Error> {
        let default_queue = config.broker.default_queue.clone();
        let resolve = |(pattern, said): &(String, Route)| {
            Ok((Pattern::new(pattern), destination(pattern, said, &config.exchanges, &default_queue)?))
        };
        let mut routes = config.routes.0.iter().map(resolve).collect::<Result<Vec<_>, Error>>()?;
        routes.sort_by_key(|(pattern, _)| (!pattern.is_exact(), Reverse(pattern.as_str().len())));
        let fanouts = config.exchanges.iter().filter(|exchange| exchange.kind.is_of_the_broker());
        let fanouts = fanouts
            .map(|exchange| fanout(exchange, None, &default_queue).map(|to| (to.queue, to.spread.expect("a fanout"))))
            .collect::<Result<_, _>>()?;
        Ok(Self { routes, fanouts, default_queue })
    }

    pub fn default_queue(&self) -> &QueueName {
        &self.default_queue
    }

    pub fn of(&self, name: &str) -> Option<&Destination> {
        self.routes.iter().find(|(pattern, _)| pattern.matches(name)).map(|(_, destination)| destination)
    }

    /// The spread of a queue that a call or entry names: only a fanout has one.
    pub fn spread_of(&self, queue: &QueueName) -> Option<&Spread> {
        self.fanouts.iter().find(|(name, _)| name == queue).map(|(_, spread)| spread)
    }

    /// All queues that routes point to.
    pub fn queues(&self) -> impl Iterator<Item = &QueueName> {
        let all = self.routes.iter().flat_map(|(_, destination)| {
            let copies = destination.spread.as_ref().map_or(&[][..], Spread::copies);
            std::iter::once(&destination.queue).chain(copies)
        });
        all.filter(|queue| self.spread_of(queue).is_none())
    }
}

fn destination(
    pattern: &str,
    said: &Route,
    exchanges: &[Exchange],
    default_queue: &QueueName,
) -> Result<Destination, Error> {
    let (exchange, routing_key) = match said {
        Route::Queue(queue) => return Ok(Destination { queue: queue.clone(), spread: None }),
        Route::Exchange { exchange, routing_key } => (exchange, routing_key),
    };
    let place = format!("routes.{pattern:?}");
    let Some(found) = exchanges.iter().find(|known| known.name == *exchange) else {
        let known = exchanges.iter().map(|known| known.name.as_str());
        let hint = celery::spelling::nearest(exchange, known)
            .map_or_else(String::new, |near| format!("; did you mean {near}?"));
        return Err(Error::value(place, format!("{exchange:?} is no exchange of this configuration{hint}")));
    };
    if found.kind.is_of_the_broker() {
        return fanout(found, routing_key.as_deref(), default_queue);
    }
    let key = routing_key.as_deref().unwrap_or_default();
    let members = found.members();
    let mut queues = route(&members, key).into_iter().filter_map(|queue| QueueName::parse(queue).ok());
    let Some(queue) = queues.next() else {
        let harm = format!("no binding takes the routing key {key:?}: every task would vanish");
        return Err(Error::pair(place, format!("exchanges.{exchange}.bindings"), harm));
    };
    let copies: Vec<QueueName> = queues.collect();
    Ok(Destination { queue, spread: (!copies.is_empty()).then_some(Spread::Copies(copies)) })
}

/// A fanout exchange is used like a queue of its name, as with Celery's `Broadcast`. Its workers subscribe with the default routing
/// key, which is the default queue's name, unless they are configured otherwise.
fn fanout(exchange: &Exchange, routing_key: Option<&str>, default_queue: &QueueName) -> Result<Destination, Error> {
    let queue = QueueName::parse(&exchange.name)
        .map_err(|error| Error::value(format!("exchanges.{}", exchange.name), error.to_string()))?;
    let routing_key = routing_key.unwrap_or(default_queue.as_str()).to_owned();
    Ok(Destination { queue, spread: Some(Spread::Fanout { exchange: exchange.name.clone(), routing_key }) })
}
