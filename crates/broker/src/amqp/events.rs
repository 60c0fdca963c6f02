//! Worker events: read from a queue of our own, bound to the topic exchange `celeryev`.
//!
//! Lossy like the channel in Redis: the queue is deleted with the connection, a gap is reported, and a reader that needs the truth gets
//! it elsewhere. The broker keeps at most [`KEPT`] messages for us and delivers [`AHEAD`] at a time, so a slow reader needs bounded
//! memory on both sides.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Acker, Channel, Consumer, ExchangeKind};
use runtime::clock;
use tokio::sync::mpsc;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::link::Link;
use super::{exchange, message, table};
use crate::{EVENT_EXCHANGE, Error, Feed};

/// Maximum number of unacknowledged messages.
const AHEAD: u16 = 1_000;
/// How many messages are acknowledged together at most,
const TOGETHER: u16 = 200;
/// and how long one waits for others. RabbitMQ closes a channel with a message that is older than its `consumer_timeout`.
const LONGEST: Duration = Duration::from_secs(1);
/// How many messages the broker keeps for a slow reader; the oldest are dropped first.
const KEPT: u32 = 100_000;
/// Pause between attempts to connect.
const PAUSE: Duration = Duration::from_millis(500);

const OWN: QueueDeclareOptions =
    QueueDeclareOptions { passive: false, durable: false, exclusive: true, auto_delete: true, nowait: false };

/// Reads all worker events until `stop`, reconnecting for ever. While `sink` is full nothing more is read.
pub async fn follow(link: Link, sink: mpsc::Sender<Feed>, stop: CancellationToken) {
    let mut was_up = true;
    while !stop.is_cancelled() && !sink.is_closed() {
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = listen(&link, &sink) => outcome,
        };
        if was_up {
            match &outcome {
                Ok(()) => info!("the queue of worker events was closed, connecting again"),
                Err(error) => warn!(error = %error, "worker events cannot be read, trying again: {error}"),
            }
        }
        was_up = outcome.is_ok();
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(PAUSE) => {} }
    }
}

async fn listen(link: &Link, sink: &mpsc::Sender<Feed>) -> Result<(), Error> {
    let channel = link.channel().await?;
    let mut events = subscribe(link, &channel).await?;
    if sink.send(Feed::Gap).await.is_err() {
        return Ok(());
    }
    let mut taken = Taken::default();
    loop {
        let Ok(came) = taken.next(&mut events).await else {
            taken.acknowledge().await?;
            continue;
        };
        let Some(came) = came else { return Ok(()) };
        let came = came?;
        if sink.send(Feed::Message(message::inbound(&came, ""))).await.is_err() {
            return Ok(());
        }
        taken.add(came.acker);
        if taken.is_due() {
            taken.acknowledge().await?;
        }
    }
}

/// The messages that were taken and not acknowledged.
#[derive(Default)]
struct Taken {
    count: u16,
    /// When the first of them was taken, and what acknowledges the last one.
    open: Option<(Instant, Acker)>,
}

impl Taken {
    /// The next message; `None` when the channel is closed. Waits no longer than the messages that were taken may wait.
    async fn next(&self, events: &mut Consumer) -> Result<Option<lapin::Result<Delivery>>, Elapsed> {
        match &self.open {
            None => Ok(events.next().await),
            Some(_) => timeout(LONGEST, events.next()).await,
        }
    }

    fn add(&mut self, acker: Acker) {
        let since = self.open.take().map_or_else(Instant::now, |(since, _)| since);
        self.open = Some((since, acker));
        self.count += 1;
    }

    fn is_due(&self) -> bool {
        self.count >= TOGETHER || self.open.as_ref().is_some_and(|(since, _)| since.elapsed() >= LONGEST)
    }

    async fn acknowledge(&mut self) -> Result<(), Error> {
        self.count = 0;
        if let Some((_, acker)) = self.open.take() {
            acker.ack(BasicAckOptions { multiple: true }).await?;
        }
        Ok(())
    }
}

async fn subscribe(link: &Link, channel: &Channel) -> Result<Consumer, Error> {
    let queue = format!("celeryev.taskgate-{}", clock::new_id());
    let limits = format!("{{\"x-max-length\": {KEPT}, \"x-expires\": 60000}}");
    // Declared in the same way as by Celery's own readers, so that the order does not matter.
    let topic =
        channel.exchange_declare(EVENT_EXCHANGE.into(), ExchangeKind::Topic, exchange::DURABLE, FieldTable::default());
    link.answer(topic).await?;
    link.answer(channel.queue_declare(queue.as_str().into(), OWN, table::from_json(&limits))).await?;
    let bound = channel.queue_bind(
        queue.as_str().into(),
        EVENT_EXCHANGE.into(),
        "#".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    link.answer(bound).await?;
    link.answer(channel.basic_qos(AHEAD, BasicQosOptions::default())).await?;
    let consume = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
    link.answer(channel.basic_consume(queue.as_str().into(), queue.as_str().into(), consume, FieldTable::default()))
        .await
}
