//! The port for any broker.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use celery::binding::ExchangeKind;
use celery::task::{Priority, QueueName};
use runtime::clock::Time;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{Depth, Error, Feed, Lists, Push, Pushed, Replies, Request, Served, Standing};

/// Cheap to clone.
pub type Broker = Arc<dyn Port>;

/// The broker of a fleet. Each call returns an answer or an error; nothing is repeated inside.
#[async_trait]
pub trait Port: Send + Sync {
    fn kind(&self) -> Kind;

    async fn ping(&self) -> Result<(), Error>;

    /// Publishes in order. With a `deadline` nothing is published later than that.
    async fn publish(&self, batch: &[Push], deadline: Option<Time>) -> Result<Vec<Pushed>, Error>;

    /// Why messages of this priority must not be published to this queue now; `None` when they may.
    fn refuses(&self, queue: &QueueName, priority: Priority) -> Option<String>;

    /// Declares a queue with these arguments (a JSON object), on brokers that declare queues. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] when the queue exists with other arguments; it stays as it is.
    async fn declare_queue(&self, queue: &QueueName, arguments: &str) -> Result<(), Error>;

    /// Declares an exchange and its bindings. Repeating it changes nothing; an existing one with other arguments stays as it is.
    async fn declare(&self, exchange: &Exchange) -> Result<(), Error>;

    /// What the broker says when an exchange of this name exists with another type or other arguments. Creates and binds nothing.
    async fn differs(&self, exchange: &Exchange) -> Result<Option<String>, Error>;

    /// How many messages wait in each queue, in the order of `queues`.
    async fn depths(&self, queues: &[String]) -> Result<Vec<Depth>, Error>;

    /// Takes up to `limit` messages out of a queue, the next to be served first, and returns them.
    async fn take_out(&self, queue: &str, limit: usize) -> Result<Vec<Standing>, Error>;

    /// Sends a request to workers without waiting for replies. Returns how many listened, including workers that it is not for; on brokers
    /// that do not count, one means any number.
    async fn tell(&self, request: &Request) -> Result<i64, Error>;

    /// Asks workers and gathers their replies until all have answered or `patience` has passed.
    async fn ask(&self, request: &Request, patience: Duration) -> Result<Replies, Error>;

    /// Reads all worker events until `stop`, reconnecting for ever. While `sink` is full nothing is read.
    async fn follow_events(&self, sink: mpsc::Sender<Feed>, stop: CancellationToken);

    /// Reads a queue that only this program reads until `stop`, reconnecting for ever. A message stays until it is done.
    async fn serve_queue(&self, queue: &str, sink: mpsc::Sender<Served>, stop: CancellationToken);

    /// A capability: single messages can be seen, removed with certainty, marked and leased.
    fn lists(&self) -> Option<&Lists>;

    /// Sends a command to all workers. `arguments` is a JSON object.
    async fn broadcast(&self, method: &str, arguments: &str) -> Result<i64, Error> {
        self.tell(&Request::to_all(method, arguments)).await
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Redis,
    RabbitMq,
}

/// An exchange besides the queues' own.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub name: String,
    pub kind: ExchangeKind,
    pub bindings: Vec<Binding>,
}

/// What leads from an exchange to a queue.
#[derive(Debug, Clone)]
pub struct Binding {
    /// A pattern for topics.
    pub routing_key: String,
    pub queue: QueueName,
    /// For headers exchanges: a JSON object of what a message's headers must be.
    pub headers: String,
}
