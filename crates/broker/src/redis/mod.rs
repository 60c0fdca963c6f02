//! Redis as Celery's broker: plain methods for all of kombu's keys and channels.

mod ack;
mod consume;
mod control;
mod epoch;
mod error;
mod events;
mod exchange;
mod fanout;
mod fitness;
mod inbox;
mod keys;
mod link;
mod meter;
mod port;
mod publish;
mod queues;
mod redbeat;
mod refusal;
mod restore;
mod scan;
mod serve;
pub(crate) mod survey;

pub use ack::Return;
pub use consume::{Consumer, Delivery, QueueOrder};
pub use control::{CONTROL_EXCHANGE, Replies, Request};
pub use epoch::Epoch;
pub use error::Error;
pub use events::{EVENT_EXCHANGE, Feed};
pub use fitness::Memory;
pub use keys::Keys;
pub use link::{Link, LinkConfig};
pub use publish::{Push, Pushed, Target};
pub use queues::{Depth, Standing};
pub use redbeat::redbeat_definitions;
pub use refusal::{RETRY_REFUSED, Refusals};
pub use scan::{Present, Reservation};
pub use survey::Heard;

use self::inbox::Inboxes;
use celery::Transport;

/// How the fleet's broker is set up. Both sides must agree on every value.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    pub link: LinkConfig,
    /// The names of the fleet's keys and channels.
    pub transport: Transport,
}

/// The broker on Redis: cheap to clone, with one shared connection.
#[derive(Clone)]
pub struct Broker {
    link: Link,
    keys: Keys,
    refusals: Refusals,
    inboxes: Inboxes,
}

impl Broker {
    /// # Errors
    /// When the URL is not understood. Makes no connection yet.
    pub fn new(config: BrokerConfig) -> Result<Self, Error> {
        let link = Link::new(config.link)?;
        let keys = Keys::new(config.transport, link.db());
        Ok(Self { link, keys, refusals: Refusals::default(), inboxes: Inboxes::default() })
    }

    pub fn link(&self) -> &Link {
        &self.link
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The lists that must not be published to now.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    pub async fn ping(&self) -> Result<(), Error> {
        self.link.call(&redis::cmd("PING")).await
    }
}
