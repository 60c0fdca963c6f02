//! RabbitMQ as Celery's broker: kombu's own exchanges and queues, over AMQP 0-9-1.
//!
//! It uses two connections: one publishes, which the broker may block when it is short of memory or disk, and one listens. A message
//! can be removed from a queue only by consuming it, so there are no [`crate::Lists`]: a published message stays with the broker, and a
//! revoke is sent to the workers.

mod address;
mod announce;
mod consume;
mod control;
mod error;
mod events;
mod exchange;
mod held;
mod link;
mod message;
mod port;
mod publish;
mod queues;
mod requests;
mod results;
mod serve;
mod table;
mod worker;

pub use address::Address;
pub use consume::Consumer;
pub use link::LinkConfig;
pub use results::RpcResults;
pub use worker::WorkerSide;

use self::link::Link;
use self::publish::Publisher;

/// The RabbitMQ broker; cheap to share.
pub struct RabbitMq {
    publisher: Publisher,
    listening: Link,
}

impl RabbitMq {
    /// Makes no connection yet. `reply_to` is the queue for results, if they come over the broker.
    pub fn new(config: LinkConfig, reply_to: Option<String>) -> Self {
        let publisher = Publisher::new(Link::new(config.clone(), "publishes"), reply_to);
        Self { publisher, listening: Link::new(config, "listens") }
    }
}
