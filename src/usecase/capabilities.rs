//! What a deployment can do, which depends on its broker.

use broker::Kind;

use super::Gateway;

/// All differences between brokers that a caller may notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    pub broker: &'static str,
    /// A task that waits in the broker can be revoked with certainty.
    pub revoke_waiting: bool,
    /// A crash between publication and confirmation publishes once.
    pub publish_once: bool,
    pub queue_contents: bool,
    /// The sweeper finds messages that workers lost.
    pub repair: bool,
    /// The priority that is served first.
    pub first_priority: u8,
    pub queues_must_exist: bool,
}

impl Gateway {
    pub fn capabilities(&self) -> Capabilities {
        let (broker, first_priority, queues_must_exist) = match self.broker.kind() {
            Kind::Redis => ("redis", 0, false),
            Kind::RabbitMq => ("rabbitmq", 9, true),
        };
        let lists = self.broker.lists().is_some();
        Capabilities {
            broker,
            revoke_waiting: lists,
            publish_once: lists,
            queue_contents: lists || self.management.is_some(),
            repair: lists,
            first_priority,
            queues_must_exist,
        }
    }
}
