//! Publishes tasks: persistent, mandatory, confirmed, many in flight at a time.
//!
//! A call answers when the broker has every message of it on its disk, or has said that it has no place for it. What a broken
//! connection or a late answer leaves open is open: the broker may have it ([`Error::outcome_unknown`]). There are no markers here as
//! in Redis, so a repeated publication is a second message.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation, PublisherConfirm};
use runtime::clock::{self, Time};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::error::short;
use super::link::Link;
use super::{error, message, queues};
use crate::{Error, Push, Pushed, Target};

/// How often a blocked connection is noticed while confirmations are awaited.
const LOOK: Duration = Duration::from_millis(100);
/// We and Celery count characters.
const LONGEST_NAME: usize = 255;
/// Channels that wait for their next use; the direct way, the outbox way and a few others publish at the same time.
const SPARE: usize = 8;

/// A queue that does not exist, or takes no more, is left alone for so long.
const AGAIN: Duration = Duration::from_secs(8);
/// Such queues remembered at a time.
const MOST: usize = 10_000;

/// Persistent, and given back when it has no queue to go to.
const MANDATORY: BasicPublishOptions = BasicPublishOptions { mandatory: true, immediate: false };

pub struct Publisher {
    pub link: Link,
    /// Where workers send results, when they come back over the broker.
    pub reply_to: Option<String>,
    spare: Mutex<Vec<Channel>>,
    reply_queue_is_there: OnceCell<()>,
    /// By queue: why it takes nothing, and until when it is left alone.
    refusing: Mutex<HashMap<String, (String, Instant)>>,
}

/// A publication whose confirmation is awaited.
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
    /// When the broker is away, blocked, or silent for too long: it may have any part of the batch, unless the error says otherwise.
    pub async fn publish(&self, batch: &[Push], deadline: Option<Time>) -> Result<Vec<Pushed>, Error> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        if deadline.is_some_and(|deadline| clock::now() > deadline) {
            return Err(Error::Stale);
        }
        self.make_reply_queue().await?;
        let channel = self.channel().await?;
        if self.link.is_blocked() {
            return Err(Error::Blocked);
        }
        let outcomes = self.publish_on(&channel, batch).await;
        match &outcomes {
            Ok(_) => self.put_back(channel),
            // Messages that wait in a socket for a blocked broker must not come out later beside their second publication.
            Err(Error::Blocked | Error::TimedOut) => self.link.forget(),
            Err(_) => {}
        }
        outcomes
    }

    /// Before the first message that names it: a worker's result for a queue that does not exist is lost.
    async fn make_reply_queue(&self) -> Result<(), Error> {
        let Some(queue) = &self.reply_to else { return Ok(()) };
        self.reply_queue_is_there.get_or_try_init(|| queues::declare(&self.link, queue, "{}")).await?;
        Ok(())
    }

    /// Why nothing is to be published to this queue now.
    pub fn refuses(&self, queue: &str) -> Option<String> {
        let refusing = self.refusing.lock().expect("nothing panics under this lock");
        let (why, until) = refusing.get(queue)?;
        (*until > Instant::now()).then(|| why.clone())
    }

    fn refuse(&self, push: &Push, why: String) -> Pushed {
        let mut refusing = self.refusing.lock().expect("nothing panics under this lock");
        if let Target::Queue(queue, _) = &push.target {
            if refusing.len() >= MOST {
                refusing.clear();
            }
            refusing.insert(queue.to_string(), (why.clone(), Instant::now() + AGAIN));
        }
        Pushed::Refused(why)
    }

    async fn publish_on(&self, channel: &Channel, batch: &[Push]) -> Result<Vec<Pushed>, Error> {
        let until = Instant::now() + self.link.patience();
        let mut outcomes = vec![Pushed::Now; batch.len()];
        let mut open = Vec::with_capacity(batch.len());
        for (index, push) in batch.iter().enumerate() {
            match &push.target {
                Target::Queue(queue, _) if queue.as_str().len() > LONGEST_NAME => {
                    outcomes[index] =
                        Pushed::Refused(format!("RabbitMQ takes names of {LONGEST_NAME} bytes at most: {queue}"));
                }
                Target::Queue(queue, _) => {
                    let confirm = self.send(channel, "", queue.as_str(), push).await?;
                    open.push(Open { index, confirm });
                }
                Target::Fanout { exchange, routing_key } => {
                    outcomes[index] = self.send_alone(exchange, routing_key, push).await?;
                }
            }
        }
        let mut returned = HashSet::new();
        for Open { index, confirm } in open {
            match self.confirmed(confirm, until).await? {
                Confirmation::Ack(given_back) | Confirmation::Nack(given_back) if given_back.is_some() => {
                    returned.extend(given_back.and_then(|one| one.delivery.properties.message_id().clone()));
                }
                Confirmation::Nack(_) => outcomes[index] = self.refuse(&batch[index], full(&batch[index])),
                Confirmation::Ack(_) | Confirmation::NotRequested => {}
            }
        }
        // The client hands a message that was given back to whoever asks next: its own name tells whose it is.
        for (outcome, push) in outcomes.iter_mut().zip(batch) {
            if returned.contains(push.tag.as_str()) {
                *outcome = self.refuse(push, unroutable(push));
            }
        }
        Ok(outcomes)
    }

    async fn send(&self, channel: &Channel, exchange: &str, key: &str, push: &Push) -> Result<PublisherConfirm, Error> {
        let message = message::outbound(&push.envelope, &push.tag, self.reply_to.as_deref())?;
        let sent = channel.basic_publish(short(exchange)?, short(key)?, MANDATORY, &message.body, message.properties);
        Ok(sent.await?)
    }

    /// To an exchange that may not exist: the broker would close the channel, with everything else that is open on it.
    async fn send_alone(&self, exchange: &str, key: &str, push: &Push) -> Result<Pushed, Error> {
        let channel = self.link.confirming().await?;
        let until = Instant::now() + self.link.patience();
        let sent = async {
            let confirm = self.send(&channel, exchange, key, push).await?;
            self.confirmed(confirm, until).await
        };
        match sent.await {
            Ok(Confirmation::Ack(None) | Confirmation::NotRequested) => Ok(Pushed::Now),
            Ok(Confirmation::Nack(None)) => Ok(Pushed::Refused(full(push))),
            Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => Ok(Pushed::Refused(unroutable(push))),
            Err(refusal) if error::is(&refusal, error::NOT_FOUND) => Ok(Pushed::Refused(unroutable(push))),
            Err(other) => Err(other),
        }
    }

    async fn confirmed(&self, mut confirm: PublisherConfirm, until: Instant) -> Result<Confirmation, Error> {
        loop {
            let look = (Instant::now() + LOOK).min(until);
            match tokio::time::timeout_at(look, &mut confirm).await {
                Ok(answer) => return Ok(answer?),
                Err(_) if self.link.is_blocked() => return Err(Error::Blocked),
                Err(_) if Instant::now() >= until => return Err(Error::TimedOut),
                Err(_) => {}
            }
        }
    }

    async fn channel(&self) -> Result<Channel, Error> {
        loop {
            let spare = self.spare.lock().expect("nothing panics under this lock").pop();
            match spare {
                Some(channel) if channel.status().connected() => return Ok(channel),
                Some(_) => {}
                None => return self.link.confirming().await,
            }
        }
    }

    fn put_back(&self, channel: Channel) {
        let mut spare = self.spare.lock().expect("nothing panics under this lock");
        if spare.len() < SPARE {
            spare.push(channel);
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
