//! What a worker needs of its broker. Two brokers stand behind it: Redis (`lists`) and RabbitMQ (`rabbit`).
//!
//! The rest of the worker knows neither: it takes messages that have tags, ends each tag once, and sends. What differs is told by
//! [`Transport::tags`] (whether a tag outlives its delivery) and [`Take::lost`] (whether the broker takes messages back).

mod lists;
mod rabbit;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_stream::Stream;

use super::request::Origin;
use broker::{Delivery, Error, Push, QueueOrder, Replies, Request, Return, Target};
use celery::continuation::Send as Outgoing;
use celery::control::ReplyTo;
use celery::task::QueueName;

/// Remote-control requests as they come; ends with the connection.
pub(crate) type Requests = Pin<Box<dyn Stream<Item = Vec<u8>> + Send>>;
pub(crate) type TransportRef = Arc<dyn Transport>;

/// What a tag names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tags {
    /// The message, wherever and however often it is delivered.
    Messages,
    /// One delivery of it.
    Deliveries,
}

/// Where a broker or a result backend is, for remote control.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub transport: &'static str,
    pub host: String,
    pub port: u16,
    /// The database or virtual host.
    pub part: String,
    pub user: Option<String>,
    pub tls: bool,
    pub heartbeat: u16,
}

/// The broker of one worker. Calls return an answer or an error; nothing is repeated inside.
#[async_trait]
pub(crate) trait Transport: Send + Sync {
    fn place(&self) -> Place;

    fn tags(&self) -> Tags;

    /// Takes messages from these queues; connects when it is first used.
    fn intake(&self, queues: Vec<QueueName>, order: QueueOrder) -> Box<dyn Take>;

    /// Ends messages that are done. May be repeated.
    async fn ack(&self, tags: &[String]) -> Result<(), Error>;

    /// Puts a message back into its queue.
    async fn give_back(&self, origin: &Origin, place: Return) -> Result<(), Error>;

    /// Ends a message whose task rejected it: it may go to a dead-letter exchange.
    async fn reject(&self, tag: &str) -> Result<(), Error>;

    /// Deals with the message of a task that failed and must not be acknowledged.
    async fn leave(&self, tag: &str) -> Result<(), Error>;

    /// Makes a second delivery of a message that runs here end with the first. `false`: the first has ended, or the broker does not deliver
    /// again what somebody holds.
    fn adopt(&self, held: &str, again: &str) -> bool;

    /// Forgets messages that the broker took back.
    fn forget(&self, tags: &[String]);

    /// Renews the reservations of these messages, and restores those of dead workers. Returns how many, on brokers that leave that to
    /// workers.
    async fn keep(&self, tags: &[String], timeout: Duration) -> Result<u64, Error>;

    /// Where a message goes: one target for each queue.
    async fn targets(&self, send: &Outgoing) -> Result<Vec<Target>, Error>;

    /// Publishes messages. May be repeated until [`Transport::settle`] without sending one twice, except where an answer of RabbitMQ got lost.
    async fn publish(&self, pushes: &[Push]) -> Result<(), Error>;

    /// Ends the repetition of messages that were all published.
    async fn settle(&self, tags: &[String]) -> Result<(), Error>;

    /// Ends the repetition of messages that are given up. What marks them in the broker stays there: one of them may have been published.
    fn abandon(&self, tags: &[String]);

    /// Publishes events; returns whether somebody listens.
    async fn announce(&self, routing_key: &str, message: &[u8]) -> Result<bool, Error>;

    async fn requests(&self, hostname: &str) -> Result<Requests, Error>;

    async fn reply(&self, to: &ReplyTo, message: &[u8]) -> Result<(), Error>;

    /// Asks other workers, and gathers their replies.
    async fn ask(&self, request: &Request, patience: Duration) -> Result<Replies, Error>;
}

/// The messages of a changing set of queues.
#[async_trait]
pub(crate) trait Take: Send {
    fn set_queues(&mut self, queues: Vec<QueueName>);

    /// Takes at most `limit` messages. Without any it returns after about a second. `prefetch` is the most that may be here at once, for
    /// brokers that send ahead.
    ///
    /// # Cancel safety
    /// None: a dropped call may lose the message that was just taken. Let it end.
    async fn take(&mut self, limit: usize, prefetch: usize) -> Result<Vec<Delivery>, Error>;

    /// Ends when the channel breaks: while the worker takes nothing, nobody else would notice. Never where the broker takes nothing back.
    ///
    /// # Cancel safety
    /// A dropped call changes nothing.
    async fn broken(&mut self) -> Error;

    /// The tags of messages that the broker took back since the last call.
    fn lost(&mut self) -> Vec<String>;

    /// Gives back what was sent ahead. Taken messages can still be ended.
    async fn close(&mut self);
}
