//! Publishes a worker's own events to the topic exchange `celeryev`, over one channel that stays open.
//!
//! Mandatory and confirmed, so that the caller knows whether anybody listens: an event without a reader comes back.

use lapin::options::BasicPublishOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Confirmation, ExchangeKind};

use super::error::short;
use super::link::Link;
use super::{exchange, message};
use crate::{EVENT_EXCHANGE, Error};

const MANDATORY: BasicPublishOptions = BasicPublishOptions { mandatory: true, immediate: false };

/// Publishes; returns whether somebody listens. `kept` is the channel of the previous call, with the generation of its connection.
pub async fn announce(
    link: &Link,
    kept: &mut Option<(u64, Channel)>,
    routing_key: &str,
    envelope: &[u8],
) -> Result<bool, Error> {
    let generation = link.generation();
    let usable = kept.take().filter(|(opened, channel)| *opened == generation && channel.status().connected());
    let channel = match usable {
        Some((_, channel)) => channel,
        None => open(link).await?,
    };
    if link.is_blocked() {
        *kept = Some((generation, channel));
        return Err(Error::Blocked);
    }
    let message = message::outbound(envelope, "", None)?;
    let sent = async {
        let key = short(routing_key).unwrap_or_default();
        channel.basic_publish(EVENT_EXCHANGE.into(), key, MANDATORY, &message.body, message.properties).await?.await
    };
    let confirmation = link.answer(sent).await?;
    *kept = Some((generation, channel));
    Ok(match confirmation {
        Confirmation::Ack(given_back) | Confirmation::Nack(given_back) => given_back.is_none(),
        Confirmation::NotRequested => true,
    })
}

async fn open(link: &Link) -> Result<Channel, Error> {
    let channel = link.confirming().await?;
    // Declared in the same way as by Celery, so that the order does not matter.
    let topic =
        channel.exchange_declare(EVENT_EXCHANGE.into(), ExchangeKind::Topic, exchange::DURABLE, FieldTable::default());
    link.answer(topic).await?;
    Ok(channel)
}
