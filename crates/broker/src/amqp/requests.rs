//! A worker's inbox for remote control: a queue of its own behind the fanout exchange `celery.pidbox`.
//!
//! The queue is deleted with the connection; requests while the worker is not connected are lost, as in Celery.

use lapin::options::{BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, ExchangeKind};
use runtime::clock;
use tokio_stream::{Stream, StreamExt};

use super::error::{self, PRECONDITION_FAILED};
use super::link::Link;
use super::message;
use crate::{CONTROL_EXCHANGE, Error};

/// The options with which kombu declares the exchange.
const TRANSIENT: ExchangeDeclareOptions =
    ExchangeDeclareOptions { passive: false, durable: false, auto_delete: false, internal: false, nowait: false };
const OWN: QueueDeclareOptions =
    QueueDeclareOptions { passive: false, durable: false, exclusive: true, auto_delete: true, nowait: false };
const UNACKNOWLEDGED: BasicConsumeOptions =
    BasicConsumeOptions { no_local: false, no_ack: true, exclusive: true, nowait: false };
/// How much of the worker's name is in the queue's name, which has at most 255 bytes.
const SHOWN: usize = 60;

/// Listens for requests. The stream ends when the connection does.
pub async fn listen(link: &Link, hostname: &str) -> Result<impl Stream<Item = Vec<u8>> + Send + use<>, Error> {
    let channel = ready(link).await?;
    let shown: String = hostname.chars().take(SHOWN).filter(char::is_ascii).collect();
    // A name of its own: after a crash the broker may keep the old queue for as long as the old connection seems alive.
    let queue = format!("{shown}.{}.{CONTROL_EXCHANGE}", clock::new_id());
    link.answer(channel.queue_declare(queue.as_str().into(), OWN, FieldTable::default())).await?;
    let bound = channel.queue_bind(
        queue.as_str().into(),
        CONTROL_EXCHANGE.into(),
        "".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    link.answer(bound).await?;
    let consume =
        channel.basic_consume(queue.as_str().into(), queue.as_str().into(), UNACKNOWLEDGED, FieldTable::default());
    let requests = link.answer(consume).await?;
    let payloads = requests.take_while(Result::is_ok).filter_map(Result::ok);
    Ok(payloads.map(move |came| {
        // The stream keeps its channel.
        let _ = &channel;
        message::inbound(&came, "")
    }))
}

/// A channel on which the exchange is known to exist. A fleet may have declared it with other options; it is used as it is.
async fn ready(link: &Link) -> Result<Channel, Error> {
    let channel = link.channel().await?;
    let name = CONTROL_EXCHANGE.into();
    let declared = channel.exchange_declare(name, ExchangeKind::Fanout, TRANSIENT, FieldTable::default());
    match link.answer(declared).await {
        Ok(()) => Ok(channel),
        // The refusal closed the channel.
        Err(refusal) if error::is(&refusal, PRECONDITION_FAILED) => link.channel().await,
        Err(other) => Err(other),
    }
}
