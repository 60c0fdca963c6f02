//! Publishes task messages: persistent, mandatory, confirmed, with many in flight.
//!
//! A call returns when the broker has each of its messages on disk or has refused it. After a broken connection or a late answer the
//! outcome is unknown: the broker may have the messages ([`Error::outcome_unknown`]). A failure before the first message was sent is
//! [`Error::Unsent`]. There are no markers as in Redis, so a repeated publication is a second message.
//!
//! A message that AMQP cannot carry (a name over 255 bytes, headers that do not fit into one frame) is refused alone: the broker would
//! close the channel or the connection, with all other pending publications.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, PublisherConfirm};
use runtime::clock::{self, Time};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::error::short;
use super::link::Link;
use super::message::Outbound;
use super::{error, message, queues};
use crate::{Error, Push, Pushed, Target};

/// How often to check for a blocked connection while waiting for confirmations.
const CHECK_PERIOD: Duration = Duration::from_millis(100);
/// Idle channels to keep: the relay's direct path, its outbox path and a few others publish concurrently.
const SPARE: usize = 8;

/// RabbitMQ's default, until a size was negotiated.
const FRAME_MAX: usize = 131_072;

/// How long a queue that does not exist or is full is not published to.
const AGAIN: Duration = Duration::from_secs(8);
/// Maximum number of such queues that are remembered.
const MOST: usize = 10_000;

/// The broker returns the message if no queue takes it.
const MANDATORY: BasicPublishOptions = BasicPublishOptions { mandatory: true, immediate: false };

pub struct Publisher {
    pub link: Link,
    /// The queue that workers send results to, if they come over the broker.
    pub reply_to: Option<String>,
    /// With the generation of their connection.
    spare: Mutex<Vec<(u64, Channel)>>,
    reply_queue_is_there: OnceCell<()>,
    /// By queue: why it accepts nothing, and until when it is not tried again.
    refusing: Mutex<HashMap<String, (String, Instant)>>,
}

/// A message that AMQP can carry.
struct Ready {
    exchange: ShortString,
    key: ShortString,
    message: Outbound,
}

/// A publication that waits for its confirmation.
struct Open {
    index: usize,
    confirm: PublisherConfirm,
}

impl Publisher {
    pub fn new(link: Link, reply_to: Option<String>) -> Self {
        Self {
            link,
            reply_to,
            spare: Mutex::default(),
            reply_queue_is_there: OnceCell::new(),
            refusing: Mutex::default(),
        }
    }

    /// Publishes in order. With a `deadline` nothing is sent later than that.
    ///
    /// # Errors
    /// When the broker is down, blocked, or silent for too long: it may have any part of the batch, unless the error says otherwise.
    pub async fn publish(&self, batch: &[Push], deadline: Option<Time>) -> Result<Vec<Pushed>, Error> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let (generation, channel) = self.ready().await.map_err(|error| Error::Unsent(Box::new(error)))?;
        // After the channel: connecting may have taken a while.
        if deadline.is_some_and(|deadline| clock::now() > deadline) {
            self.put_back(generation, channel);
            return Err(Error::Stale);
        }
        let outcomes = self.publish_on(&channel, batch).await;
        match &outcomes {
            Ok(_) => self.put_back(generation, channel),
            // Messages buffered for a blocked broker must not be sent later, after their second publication.
            Err(Error::Blocked | Error::TimedOut) => self.link.forget(),
            Err(_) => {}
        }
        outcomes
    }

    /// A channel of a broker that takes messages.
    async fn ready(&self) -> Result<(u64, Channel), Error> {
        self.make_reply_queue().await?;
        let channel = self.channel().await?;
        if self.link.is_blocked() {
            self.put_back(channel.0, channel.1);
            return Err(Error::Blocked);
        }
        Ok(channel)
    }

    /// Declares the reply queue before the first message that names it: results for a missing queue would be lost.
    async fn make_reply_queue(&self) -> Result<(), Error> {
        let Some(queue) = &self.reply_to else { return Ok(()) };
        self.reply_queue_is_there.get_or_try_init(|| queues::declare(&self.link, queue, "{}")).await?;
        Ok(())
    }

    /// Why nothing may be published to this queue now.
    pub fn refuses(&self, queue: &str) -> Option<String> {
        let refusing = self.refusing.lock().expect("nothing panics under this lock");
        let (why, until) = refusing.get(queue)?;
        (*until > Instant::now()).then(|| why.clone())
    }

    /// Remembers that its queue takes nothing, so that the next messages are not tried at once.
    fn remember(&self, push: &Push, why: &str) {
        let Target::Queue(queue, _) = &push.target else { return };
        let mut refusing = self.refusing.lock().expect("nothing panics under this lock");
        if refusing.len() >= MOST {
            refusing.clear();
        }
        refusing.insert(queue.to_string(), (why.to_owned(), Instant::now() + AGAIN));
    }

    async fn publish_on(&self, channel: &Channel, batch: &[Push]) -> Result<Vec<Pushed>, Error> {
        let until = Instant::now() + self.link.patience();
        let mut outcomes = vec![Pushed::Now; batch.len()];
        let mut open = Vec::with_capacity(batch.len());
        for (index, push) in batch.iter().enumerate() {
            let ready = match self.fitted(push) {
                Ok(ready) => ready,
                Err(why) => {
                    outcomes[index] = Pushed::Unfit(why);
                    continue;
                }
            };
            match &push.target {
                Target::Queue(..) => open.push(Open { index, confirm: self.send(channel, ready, until).await? }),
                Target::Fanout { .. } => outcomes[index] = self.send_alone(ready, push).await?,
            }
        }
        let mut returned = HashSet::new();
        for Open { index, confirm } in open {
            match self.confirmed(confirm, until).await? {
                Confirmation::Ack(given_back) | Confirmation::Nack(given_back) if given_back.is_some() => {
                    returned.extend(given_back.and_then(|message| message.delivery.properties.message_id().clone()));
                }
                Confirmation::Nack(_) => {
                    let why = full(&batch[index]);
                    self.remember(&batch[index], &why);
                    outcomes[index] = Pushed::Refused(why);
                }
                Confirmation::Ack(_) | Confirmation::NotRequested => {}
            }
        }
        // The client gives a returned message to the next caller, so it must be matched by its own id.
        for (outcome, push) in outcomes.iter_mut().zip(batch) {
            if returned.contains(push.tag.as_str()) {
                let why = unroutable(push);
                self.remember(push, &why);
                *outcome = Pushed::Unroutable(why);
            }
        }
        Ok(outcomes)
    }

    /// The message to send, or why AMQP cannot carry it.
    fn fitted(&self, push: &Push) -> Result<Ready, String> {
        let (exchange, key) = match &push.target {
            Target::Queue(queue, _) => ("", queue.as_str()),
            Target::Fanout { exchange, routing_key } => (exchange.as_str(), routing_key.as_str()),
        };
        let ready = || {
            let message = message::outbound(&push.envelope, &push.tag, self.reply_to.as_deref())?;
            Ok::<_, Error>(Ready { exchange: short(exchange)?, key: short(key)?, message })
        };
        let ready = ready().map_err(|error| format!("RabbitMQ cannot take it: {error}"))?;
        let (bytes, most) = (ready.message.header_frame(), self.link.frame_max().unwrap_or(FRAME_MAX));
        if bytes > most {
            return Err(format!("its headers take {bytes} bytes, and RabbitMQ takes {most} at most (frame_max)"));
        }
        Ok(ready)
    }

    async fn send(&self, channel: &Channel, ready: Ready, until: Instant) -> Result<PublisherConfirm, Error> {
        let Ready { exchange, key, message } = ready;
        let sent = channel.basic_publish(exchange, key, MANDATORY, &message.body, message.properties);
        match tokio::time::timeout_at(until, sent).await {
            Ok(confirm) => Ok(confirm?),
            Err(_) if self.link.is_blocked() => Err(Error::Blocked),
            Err(_) => Err(Error::TimedOut),
        }
    }

    /// Publishes on a separate channel to an exchange that may not exist: the broker would close the channel with all other pending
    /// publications.
    async fn send_alone(&self, ready: Ready, push: &Push) -> Result<Pushed, Error> {
        let channel = self.link.confirming().await?;
        let until = Instant::now() + self.link.patience();
        let sent = async {
            let confirm = self.send(&channel, ready, until).await?;
            self.confirmed(confirm, until).await
        };
        let answer = sent.await;
        queues::close(Some(channel)).await;
        match answer {
            Ok(Confirmation::Ack(None) | Confirmation::NotRequested) => Ok(Pushed::Now),
            Ok(Confirmation::Nack(None)) => Ok(Pushed::Refused(full(push))),
            Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => Ok(Pushed::Unroutable(unroutable(push))),
            Err(refusal) if error::is(&refusal, error::NOT_FOUND) => Ok(Pushed::Unroutable(unroutable(push))),
            Err(other) => Err(other),
        }
    }

    async fn confirmed(&self, mut confirm: PublisherConfirm, until: Instant) -> Result<Confirmation, Error> {
        loop {
            let next_check = (Instant::now() + CHECK_PERIOD).min(until);
            match tokio::time::timeout_at(next_check, &mut confirm).await {
                Ok(answer) => return Ok(answer?),
                Err(_) if self.link.is_blocked() => return Err(Error::Blocked),
                Err(_) if Instant::now() >= until => return Err(Error::TimedOut),
                Err(_) => {}
            }
        }
    }

    /// An idle channel, with the generation of its connection.
    async fn channel(&self) -> Result<(u64, Channel), Error> {
        let generation = self.link.generation();
        loop {
            let spare = self.spare.lock().expect("nothing panics under this lock").pop();
            match spare {
                Some((opened, channel)) if opened == generation && channel.status().connected() => {
                    return Ok((opened, channel));
                }
                Some(_) => {}
                None => return Ok((generation, self.link.confirming().await?)),
            }
        }
    }

    fn put_back(&self, generation: u64, channel: Channel) {
        let mut spare = self.spare.lock().expect("nothing panics under this lock");
        if spare.len() < SPARE && generation == self.link.generation() {
            spare.push((generation, channel));
        }
    }
}

fn unroutable(push: &Push) -> String {
    match &push.target {
        Target::Queue(queue, _) => queues::missing(queue.as_str()),
        Target::Fanout { exchange, .. } => format!("RabbitMQ has no exchange {exchange} with a queue behind it"),
    }
}

fn full(push: &Push) -> String {
    match &push.target {
        Target::Queue(queue, _) => format!("RabbitMQ's queue {queue} takes no more messages: it has reached its limit"),
        Target::Fanout { exchange, .. } => {
            format!("a queue behind RabbitMQ's exchange {exchange} takes no more messages")
        }
    }
}
