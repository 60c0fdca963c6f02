//! Inspects and declares queues: the number of messages and consumers, and whether a queue exists.
//!
//! Inspecting is a passive declaration and changes nothing. Declaring an existing queue with other arguments changes nothing either:
//! the broker refuses it and says what differs.

use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

use super::error::{self, NOT_FOUND, short};
use super::link::Link;
use super::{message, table};
use crate::{Depth, Error, Standing};

/// How long closing a channel waits for the broker's answer.
const CLOSING: Duration = Duration::from_secs(1);

/// The options with which Celery declares a queue.
const DURABLE: QueueDeclareOptions =
    QueueDeclareOptions { passive: false, durable: true, exclusive: false, auto_delete: false, nowait: false };
const PASSIVE: QueueDeclareOptions = QueueDeclareOptions { passive: true, ..DURABLE };

/// The number of waiting messages in each queue, in the order of `queues`. A queue that is missing or refused has `trouble`.
pub async fn depths(link: &Link, queues: &[String]) -> Result<Vec<Depth>, Error> {
    let mut channel: Option<Channel> = None;
    let mut depths = Vec::with_capacity(queues.len());
    for queue in queues {
        let Ok(name) = short(queue) else {
            depths.push(nowhere(queue));
            continue;
        };
        // A refusal closes the channel.
        let open = match channel.take() {
            Some(open) => open,
            None => link.channel().await?,
        };
        let found = link.answer(open.queue_declare(name, PASSIVE, FieldTable::default())).await;
        match found {
            Ok(found) => {
                depths.push(Depth { lists: vec![(0, i64::from(found.message_count()))], trouble: None });
                channel = Some(open);
            }
            Err(refusal) if error::is(&refusal, NOT_FOUND) => depths.push(nowhere(queue)),
            // One queue that is exclusive to another connection, or not ours to read, does not hide the others.
            Err(Error::Refused { text, .. }) => depths.push(Depth { lists: vec![(0, 0)], trouble: Some(text) }),
            Err(other) => return Err(other),
        }
    }
    close(channel).await;
    Ok(depths)
}

/// Declares a durable queue with these arguments (a JSON object).
///
/// # Errors
/// [`Error::Refused`] when it exists with other arguments; it stays as it is.
pub async fn declare(link: &Link, queue: &str, arguments: &str) -> Result<(), Error> {
    let channel = link.channel().await?;
    link.answer(channel.queue_declare(short(queue)?, DURABLE, table::from_json(arguments))).await?;
    close(Some(channel)).await;
    Ok(())
}

/// Declares a durable queue with these arguments (a JSON object) unless it exists, whatever its arguments are.
///
/// # Errors
/// When the broker refuses it.
pub async fn ensure(link: &Link, queue: &str, arguments: &str) -> Result<(), Error> {
    let channel = link.channel().await?;
    match link.answer(channel.queue_declare(short(queue)?, PASSIVE, FieldTable::default())).await {
        Ok(_) => {
            close(Some(channel)).await;
            Ok(())
        }
        // The refusal closed the channel.
        Err(refusal) if error::is(&refusal, NOT_FOUND) => declare(link, queue, arguments).await,
        Err(other) => Err(other),
    }
}

fn nowhere(queue: &str) -> Depth {
    Depth { lists: vec![(0, 0)], trouble: Some(missing(queue)) }
}

/// What to do about a queue that does not exist.
pub fn missing(queue: &str) -> String {
    format!(
        "RabbitMQ has no queue {queue}: a worker that serves it makes it, or taskgate does where [queues.{queue}] is said"
    )
}

/// Closes a channel. If that fails, it is closed with its connection.
pub async fn close(channel: Option<Channel>) {
    if let Some(channel) = channel {
        let _ = tokio::time::timeout(CLOSING, channel.close(200, "done".into())).await;
    }
}

/// Takes up to `limit` messages out of a queue, the next to be served first, and returns them.
///
/// # Cancel safety
/// A dropped call puts the messages back into the queue, unless they were acknowledged already.
pub async fn take_out(link: &Link, queue: &str, limit: usize) -> Result<Vec<Standing>, Error> {
    let channel = link.channel().await?;
    let mut taken = Vec::new();
    let mut last = None;
    while taken.len() < limit {
        let Some(came) = link.answer(channel.basic_get(short(queue)?, BasicGetOptions::default())).await? else {
            break;
        };
        taken.push(Standing { step: 0, payload: message::inbound(&came.delivery, "") });
        last = Some(came.delivery.acker);
    }
    if let Some(last) = last {
        link.answer(last.ack(BasicAckOptions { multiple: true })).await?;
    }
    close(Some(channel)).await;
    Ok(taken)
}
