//! Translates the configured exchanges and queues into what the broker declares.

use crate::config::{self, Config};
use crate::reconcile::exchanges::Topology;
use broker::{Binding, Exchange};

pub fn of(config: &Config) -> Topology {
    let binding = |to: &config::Binding| Binding {
        routing_key: to.routing_key.clone(),
        queue: to.queue.clone(),
        headers: to.headers.clone(),
    };
    let exchange = |configured: &config::Exchange| Exchange {
        name: configured.name.clone(),
        kind: configured.kind,
        bindings: configured.bindings.iter().map(binding).collect(),
    };
    Topology {
        exchanges: config.exchanges.iter().map(exchange).collect(),
        queues: config.queues.iter().map(|queue| (queue.name.clone(), queue.arguments.clone())).collect(),
    }
}
