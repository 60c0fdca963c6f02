//! Remote control: requests go to all workers through a fanout exchange, replies come back to a queue of the request's own.
//!
//! The reply queue is exclusive and is deleted with its channel, so late replies are dropped and nothing is left behind. AMQP does not
//! tell how many workers listen, so a request to all waits for its whole timeout.

use std::time::Duration;

use celery::control::Reply;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Confirmation};
use runtime::clock;
use tokio::time::{Instant, timeout_at};
use tokio_stream::StreamExt;

use super::error::{self, NOT_FOUND};
use super::link::Link;
use super::{message, queues};
use crate::{CONTROL_EXCHANGE, Error, Replies, Request};

const INBOX: QueueDeclareOptions =
    QueueDeclareOptions { passive: false, durable: false, exclusive: true, auto_delete: true, nowait: false };
const UNACKNOWLEDGED: BasicConsumeOptions =
    BasicConsumeOptions { no_local: false, no_ack: true, exclusive: true, nowait: false };
const MANDATORY: BasicPublishOptions = BasicPublishOptions { mandatory: true, immediate: false };

/// Sends a request to workers. Returns zero when no worker listens, else one for any number.
pub async fn tell(link: &Link, request: &Request) -> Result<i64, Error> {
    let channel = link.confirming().await?;
    let heard = send(link, &channel, &request.message(None)).await?;
    queues::close(Some(channel)).await;
    Ok(i64::from(heard))
}

/// Asks workers, and gathers replies until all named workers have answered or `patience` has passed.
///
/// # Cancel safety
/// A dropped call leaves nothing behind: the queue is deleted with its channel.
pub async fn ask(link: &Link, request: &Request, patience: Duration) -> Result<Replies, Error> {
    let channel = link.confirming().await?;
    let replies = gather(link, &channel, request, patience).await;
    queues::close(Some(channel)).await;
    replies
}

async fn gather(link: &Link, channel: &Channel, request: &Request, patience: Duration) -> Result<Replies, Error> {
    let key = format!("taskgate-{}.reply.celery.pidbox", clock::new_id());
    link.answer(channel.queue_declare(key.as_str().into(), INBOX, FieldTable::default())).await?;
    let inbox = channel.basic_consume(key.as_str().into(), key.as_str().into(), UNACKNOWLEDGED, FieldTable::default());
    let mut inbox = link.answer(inbox).await?;
    let mut replies = Replies::new();
    if !send(link, channel, &request.message(Some((&key, &key)))).await? {
        return Ok(replies);
    }
    let expected = request.destination.as_ref().map_or(usize::MAX, Vec::len);
    let until = Instant::now() + patience;
    while replies.len() < expected {
        let Ok(Some(came)) = timeout_at(until, inbox.next()).await else { break };
        let came = message::inbound(&came?, "");
        if let Ok(reply) = Reply::decode(&came)
            && reply.ticket.as_deref() == Some(&key)
        {
            replies.insert(reply.node, reply.value);
        }
    }
    Ok(replies)
}

/// Publishes the request; returns whether any worker listens. An exchange that does not exist has no listeners: the first worker
/// declares it.
async fn send(link: &Link, channel: &Channel, envelope: &[u8]) -> Result<bool, Error> {
    let message = message::outbound(envelope, "", None)?;
    let sent = async {
        let exchange = CONTROL_EXCHANGE.into();
        channel.basic_publish(exchange, "".into(), MANDATORY, &message.body, message.properties).await?.await
    };
    match link.answer(sent).await {
        Ok(Confirmation::Ack(given_back) | Confirmation::Nack(given_back)) => Ok(given_back.is_none()),
        Ok(Confirmation::NotRequested) => Ok(true),
        Err(refusal) if error::is(&refusal, NOT_FOUND) => Ok(false),
        Err(other) => Err(other),
    }
}
