//! RabbitMQ as Celery's broker: kombu's own exchanges and queues, over AMQP 0-9-1.
//!
//! Two connections: one that publishes, which the broker may block when it is short of memory or disk, and one that listens. A message
//! cannot be taken out of a queue here but by consuming it, so there are no [`crate::Lists`]: what was published is with the broker,
//! and a revoke is told to the workers.

mod address;
mod control;
mod error;
mod events;
mod exchange;
mod link;
mod message;
mod port;
mod publish;
mod queues;
mod results;
mod serve;
mod table;

pub use address::Address;
pub use link::LinkConfig;
pub use results::RpcResults;

use self::link::Link;
use self::publish::Publisher;

/// RabbitMQ: cheap to share.
pub struct RabbitMq {
    publisher: Publisher,
    listening: Link,
}

impl RabbitMq {
    /// Connects to nothing yet. `reply_to` is the queue that results come back to, where they come over the broker.
    pub fn new(config: LinkConfig, reply_to: Option<String>) -> Self {
        let publisher = Publisher::new(Link::new(config.clone(), "publishes"), reply_to);
        Self { publisher, listening: Link::new(config, "listens") }
    }
}
