//! Takes a worker's messages from its queues, over one channel with one consumer for each queue.
//!
//! The broker delivers at most `prefetch` unacknowledged messages to a consumer (`basic.qos` for each consumer: quorum queues and newer
//! releases know no limit for a whole channel). A message that waits for its time counts there and not for the worker, so when such
//! messages fill the limit, the consumer is replaced by a new one, which has a limit of its own.
//!
//! A broken channel is an error of the next call, which names the messages that RabbitMQ took back ([`Consumer::lost`]); the call after it
//! opens a channel with all consumers again.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use celery::task::QueueName;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use runtime::clock;
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt};

use super::error::short;
use super::held::Held;
use super::link::Link;
use super::{message, queues};
use crate::{Delivery, Error, QueueOrder};

/// How long an idle consumer waits before it checks whether waiting messages fill its limit.
const LOOK: Duration = Duration::from_millis(50);
/// How often an open channel is looked at while nothing is taken from it.
const HEALTH: Duration = Duration::from_millis(250);
/// How long the end waits for messages that are on their way, of all queues together.
const LAST: Duration = Duration::from_secs(2);
/// Headers that RabbitMQ adds; a worker that sends the message again must not repeat them.
const COUNT: &str = "x-delivery-count";
const ADDED: [&str; 5] = [COUNT, "x-acquired-count", "x-death", "x-first-death-reason", "x-last-death-reason"];

/// The arguments with which missing queues are declared, by name; JSON objects.
pub type Arguments = Arc<BTreeMap<String, String>>;

/// Consumes a changing set of queues.
pub struct Consumer {
    link: Link,
    held: Held,
    arguments: Arguments,
    order: QueueOrder,
    queues: Vec<QueueName>,
    prefetch: u16,
    open: Option<Open>,
    /// Numbers of the channels and consumers so far.
    numbers: u64,
    lost: Vec<String>,
}

struct Open {
    channel: Channel,
    /// Of the link when the channel was opened.
    generation: u64,
    number: u64,
    prefetch: u16,
    streams: Vec<Queue>,
    /// Where the next look at the consumers begins.
    next: usize,
}

impl Open {
    /// Whether the link still uses its connection. One that did not answer in time may look alive.
    fn is_usable(&self, link: &Link) -> bool {
        self.generation == link.generation() && self.channel.status().connected()
    }
}

struct Queue {
    name: QueueName,
    number: u64,
    messages: lapin::Consumer,
    /// It was cancelled, and ends after the messages that it was sent.
    is_retired: bool,
}

impl Consumer {
    pub(super) fn new(link: Link, held: Held, arguments: Arguments, queues: Vec<QueueName>, order: QueueOrder) -> Self {
        let mut consumer = Self {
            link,
            held,
            arguments,
            order,
            queues: Vec::new(),
            prefetch: 0,
            open: None,
            numbers: 0,
            lost: Vec::new(),
        };
        consumer.set_queues(queues);
        consumer
    }

    /// Replaces the set of queues.
    pub fn set_queues(&mut self, queues: Vec<QueueName>) {
        self.queues = queues;
        if self.order == QueueOrder::Sorted {
            self.queues.sort();
        }
    }

    /// The tags of messages that RabbitMQ took back since the last call.
    pub fn lost(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lost)
    }

    /// Takes at most `limit` messages that are there now, else waits up to `patience` for one. `prefetch` is the most that a queue may
    /// have at this worker; `usize::MAX` for no limit.
    ///
    /// # Errors
    /// When the channel broke, or a queue cannot be consumed.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing: messages that it took stay unacknowledged, and go back with the channel.
    pub async fn take(&mut self, limit: usize, prefetch: usize, patience: Duration) -> Result<Vec<Delivery>, Error> {
        // Zero means no limit to RabbitMQ.
        self.prefetch = if prefetch == usize::MAX { 0 } else { u16::try_from(prefetch).unwrap_or(u16::MAX) };
        let taken = self.serve(limit, patience).await;
        if taken.is_err() {
            self.give_up();
        }
        taken
    }

    async fn serve(&mut self, limit: usize, patience: Duration) -> Result<Vec<Delivery>, Error> {
        self.agree().await?;
        let mut taken = Vec::new();
        while taken.len() < limit {
            // Polled once: what is there is taken, nothing is waited for.
            match timeout(Duration::ZERO, self.next()).await {
                Ok(Ok(delivery)) => taken.push(delivery),
                Ok(Err(error)) if taken.is_empty() => return Err(error),
                // The next call tells of a break.
                Ok(Err(_)) | Err(_) => break,
            }
        }
        if !taken.is_empty() {
            return Ok(taken);
        }
        if let Ok(delivery) = timeout(LOOK.min(patience), self.next()).await {
            return Ok(vec![delivery?]);
        }
        self.renew_what_is_full().await?;
        match timeout(patience.saturating_sub(LOOK), self.next()).await {
            Ok(delivery) => Ok(vec![delivery?]),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// Ends when the open channel breaks, and gives it up. Never while none is open.
    ///
    /// # Cancel safety
    /// A dropped call changes nothing.
    pub async fn broken(&mut self) -> Error {
        loop {
            let Some(open) = &self.open else { return std::future::pending().await };
            if !open.is_usable(&self.link) {
                self.give_up();
                return Error::Unexpected("the channel was closed".to_owned());
            }
            tokio::time::sleep(HEALTH).await;
        }
    }

    /// Cancels all consumers, and gives back what they were sent. Messages that were taken can still be acknowledged.
    pub async fn close(&mut self) {
        let Some(open) = &mut self.open else { return };
        // RabbitMQ takes back what it is not told of, when the channel ends.
        let _ = timeout(LAST, cancel_all(&open.channel, &mut open.streams)).await;
        open.streams.clear();
        self.queues.clear();
    }

    /// Opens the channel if there is none, and makes its consumers those that are wanted.
    async fn agree(&mut self) -> Result<(), Error> {
        if self.open.as_ref().is_some_and(|open| !open.is_usable(&self.link)) {
            return Err(Error::Unexpected("the channel was closed".to_owned()));
        }
        if self.open.is_none() {
            let generation = self.link.generation();
            let channel = self.link.channel().await?;
            self.numbers += 1;
            let number = self.numbers;
            self.open =
                Some(Open { channel, generation, number, prefetch: self.prefetch, streams: Vec::new(), next: 0 });
        }
        let open = self.open.as_mut().expect("it was just opened");
        let changed = std::mem::replace(&mut open.prefetch, self.prefetch) != self.prefetch;
        let (wanted, channel) = (&self.queues, &open.channel);
        for queue in open.streams.iter_mut().filter(|queue| !queue.is_retired) {
            if changed || !wanted.contains(&queue.name) {
                retire(&self.link, channel, queue).await?;
            }
        }
        let missing: Vec<QueueName> =
            self.queues.iter().filter(|name| !is_served(&open.streams, name)).cloned().collect();
        for name in missing {
            self.consume(name).await?;
        }
        Ok(())
    }

    /// Begins to consume a queue, which is made if it does not exist.
    async fn consume(&mut self, name: QueueName) -> Result<(), Error> {
        let arguments = self.arguments.get(name.as_str()).map_or("{}", String::as_str);
        queues::ensure(&self.link, name.as_str(), arguments).await?;
        let Some(open) = &mut self.open else { return Ok(()) };
        self.link.answer(open.channel.basic_qos(open.prefetch, BasicQosOptions::default())).await?;
        let tag = format!("taskgate-{}", clock::new_id());
        let options = BasicConsumeOptions::default();
        let consume = open.channel.basic_consume(short(name.as_str())?, tag.into(), options, FieldTable::default());
        let messages = self.link.answer(consume).await?;
        self.numbers += 1;
        open.streams.push(Queue { name, number: self.numbers, messages, is_retired: false });
        let place = |queue: &Queue| self.queues.iter().position(|name| *name == queue.name);
        open.streams.sort_by_key(|queue| place(queue).unwrap_or(usize::MAX));
        Ok(())
    }

    /// Replaces consumers whose limit is used up by messages that the worker keeps for later.
    async fn renew_what_is_full(&mut self) -> Result<(), Error> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let limit = usize::from(open.prefetch);
        for queue in open.streams.iter_mut().filter(|queue| limit > 0 && !queue.is_retired) {
            if self.held.count(queue.number) >= limit {
                retire(&self.link, &open.channel, queue).await?;
            }
        }
        self.agree().await
    }

    /// The next message of any queue.
    async fn next(&mut self) -> Result<Delivery, Error> {
        loop {
            let Some(open) = &mut self.open else { return std::future::pending().await };
            let (place, came) = poll_fn(|context| {
                let count = open.streams.len();
                for step in 0..count {
                    let place = (open.next + step) % count;
                    if let Poll::Ready(came) = Pin::new(&mut open.streams[place].messages).poll_next(context) {
                        return Poll::Ready((place, came));
                    }
                }
                Poll::Pending
            })
            .await;
            match came {
                Some(came) => {
                    let came = came?;
                    if self.order == QueueOrder::RoundRobin {
                        open.next = (place + 1) % open.streams.len();
                    }
                    let queue = &open.streams[place];
                    let tag = self.held.hold(came.acker.clone(), queue.number, open.number);
                    return Ok(delivery(queue.name.clone(), came, tag));
                }
                None => {
                    let ended = open.streams.remove(place);
                    open.next = 0;
                    if !ended.is_retired {
                        let text = format!("the queue {} was deleted, or RabbitMQ cancelled its consumer", ended.name);
                        return Err(Error::Unexpected(text));
                    }
                }
            }
        }
    }

    /// Drops a channel that does not work any more.
    fn give_up(&mut self) {
        if let Some(open) = self.open.take() {
            self.lost.extend(self.held.of_channel(open.number));
        }
    }
}

fn is_served(streams: &[Queue], name: &QueueName) -> bool {
    streams.iter().any(|queue| !queue.is_retired && queue.name == *name)
}

async fn retire(link: &Link, channel: &Channel, queue: &mut Queue) -> Result<(), Error> {
    link.answer(channel.basic_cancel(queue.messages.tag(), BasicCancelOptions::default())).await?;
    queue.is_retired = true;
    Ok(())
}

/// Cancels consumers, and returns the messages that they were sent and that nobody took.
async fn cancel_all(channel: &Channel, streams: &mut [Queue]) {
    for queue in streams {
        if !queue.is_retired {
            let _ = channel.basic_cancel(queue.messages.tag(), BasicCancelOptions::default()).await;
        }
        give_back(queue).await;
    }
}

/// Returns the messages that a cancelled consumer was sent and that nobody took.
async fn give_back(queue: &mut Queue) {
    while let Some(Ok(came)) = queue.messages.next().await {
        let _ = came.acker.nack(BasicNackOptions { multiple: false, requeue: true }).await;
    }
}

fn delivery(queue: QueueName, mut came: lapin::message::Delivery, tag: String) -> Delivery {
    let delivered_before = came.properties.headers().as_ref().and_then(count);
    came.properties = without_added(std::mem::take(&mut came.properties));
    Delivery { queue, raw: message::inbound(&came, &tag), tag: Some(tag), delivered_before }
}

/// How often a quorum queue has delivered the message before.
fn count(headers: &FieldTable) -> Option<u32> {
    let value = headers.into_iter().find(|(name, _)| name.as_str() == COUNT)?.1;
    match value {
        AMQPValue::ShortShortInt(count) => u32::try_from(*count).ok(),
        AMQPValue::ShortShortUInt(count) => Some((*count).into()),
        AMQPValue::ShortInt(count) => u32::try_from(*count).ok(),
        AMQPValue::ShortUInt(count) => Some((*count).into()),
        AMQPValue::LongInt(count) => u32::try_from(*count).ok(),
        AMQPValue::LongUInt(count) => Some(*count),
        AMQPValue::LongLongInt(count) => u32::try_from(*count).ok(),
        _ => None,
    }
}

fn without_added(properties: BasicProperties) -> BasicProperties {
    let Some(headers) = properties.headers() else { return properties };
    let is_added = |name: &str| ADDED.contains(&name);
    if !headers.into_iter().any(|(name, _)| is_added(name.as_str())) {
        return properties;
    }
    let mut kept = FieldTable::default();
    for (name, value) in headers.into_iter().filter(|(name, _)| !is_added(name.as_str())) {
        kept.insert(name.clone(), value.clone());
    }
    properties.with_headers(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use celery::Envelope;

    #[test]
    fn a_quorum_queue_s_count_is_read_and_not_sent_on() {
        let mut came = lapin::message::Delivery::mock(1, "".into(), "q".into(), true, b"[[], {}, {}]".to_vec());
        let mut headers = FieldTable::default();
        headers.insert("id".into(), AMQPValue::LongString("t".into()));
        headers.insert(COUNT.into(), AMQPValue::LongLongInt(3));
        came.properties = BasicProperties::default().with_headers(headers);
        let taken = delivery(QueueName::parse("q").unwrap(), came, "7".into());
        assert_eq!(taken.delivered_before, Some(3));
        let envelope = Envelope::decode(&taken.raw).unwrap();
        assert_eq!(envelope.headers, r#"{"id":"t"}"#);
        assert!(envelope.properties.redelivered && envelope.properties.delivery_tag == "7");
    }
}
