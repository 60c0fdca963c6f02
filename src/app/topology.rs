//! Translates the configured exchanges and queues into what the broker declares.

use crate::config::{self, Config};
use crate::reconcile::exchanges::Topology;
use broker::Exchange;

pub(super) fn of(config: &Config) -> Topology {
    let exchange = |one: &config::Exchange| Exchange {
        name: one.name.clone(),
        kind: one.kind,
        bindings: one.bindings.iter().map(|to| (to.routing_key.clone(), to.queue.clone())).collect(),
    };
    Topology {
        exchanges: config.exchanges.iter().map(exchange).collect(),
        queues: config.queues.iter().map(|queue| (queue.name.clone(), queue.arguments.clone())).collect(),
    }
}
