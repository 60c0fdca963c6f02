//! Redis as Celery's broker. All keys and channels that kombu knows, each behind a plain method.

mod ack;
mod consume;
mod control;
mod epoch;
mod error;
mod events;
mod exchange;
mod fanout;
mod keys;
mod link;
mod meter;
mod port;
mod publish;
mod queues;
mod redbeat;
mod restore;
mod scan;

pub use ack::Return;
pub use consume::{Consumer, Delivery, QueueOrder};
pub use control::{CONTROL_EXCHANGE, REPLY_EXCHANGE, Replies, Request};
pub use epoch::Epoch;
pub use error::Error;
pub use events::{EVENT_EXCHANGE, Feed};
pub use keys::{Keys, PRIORITY_STEPS};
pub use link::{Link, LinkConfig};
pub use publish::{Push, Pushed, Target};
pub use queues::{Depth, Standing};
pub use redbeat::redbeat_definitions;
pub use scan::{Present, Reservation};

/// How the fleet's broker is set up. Both sides must agree on every value.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    pub link: LinkConfig,
    /// kombu's `global_keyprefix`, put as is before every key and channel. Default empty.
    pub key_prefix: String,
}

/// The broker: cheap to clone, one shared connection.
#[derive(Clone)]
pub struct Broker {
    link: Link,
    keys: Keys,
}

impl Broker {
    /// # Errors
    /// When the URL is not understood. Connects to nothing yet.
    pub fn new(config: BrokerConfig) -> Result<Self, Error> {
        let link = Link::new(config.link)?;
        let keys = Keys::new(config.key_prefix, link.db());
        Ok(Self { link, keys })
    }

    pub fn link(&self) -> &Link {
        &self.link
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    pub async fn ping(&self) -> Result<(), Error> {
        self.link.call(&redis::cmd("PING")).await
    }
}
