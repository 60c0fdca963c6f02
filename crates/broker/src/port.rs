//! What a use case may ask of any broker.

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

/// The broker of a fleet. A call is one answer or an error; nothing is repeated inside.
#[async_trait]
pub trait Port: Send + Sync {
    fn kind(&self) -> Kind;

    async fn ping(&self) -> Result<(), Error>;

    /// Publishes in order. With a `deadline` nothing is published later than that.
    async fn publish(&self, batch: &[Push], deadline: Option<Time>) -> Result<Vec<Pushed>, Error>;

    /// Why nothing is to be published to this queue now, with messages of this priority; `None` when it may.
    fn refuses(&self, queue: &QueueName, priority: Priority) -> Option<String>;

    /// Makes a queue with these arguments (a JSON object) where the broker is one that makes queues. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] when one is there that differs; it stays as it is.
    async fn declare_queue(&self, queue: &QueueName, arguments: &str) -> Result<(), Error>;

    /// Makes an exchange and its bindings. Repeating it changes nothing; one that is there and differs stays as it is.
    async fn declare(&self, exchange: &Exchange) -> Result<(), Error>;

    /// How many messages wait in each queue, in the order of `queues`.
    async fn depths(&self, queues: &[String]) -> Result<Vec<Depth>, Error>;

    /// Takes up to `limit` messages out of a queue, the next to be served first, and gives them back whole.
    async fn take_out(&self, queue: &str, limit: usize) -> Result<Vec<Standing>, Error>;

    /// Tells workers, without waiting for replies. Returns how many listened, those it was not meant for included; one stands for
    /// any number where the broker does not count.
    async fn tell(&self, request: &Request) -> Result<i64, Error>;

    /// Asks workers and gathers their replies until all have answered or `patience` is over.
    async fn ask(&self, request: &Request, patience: Duration) -> Result<Replies, Error>;

    /// Reads all worker events until `stop`, reconnecting for ever. While `sink` is full nothing is read.
    async fn follow_events(&self, sink: mpsc::Sender<Feed>, stop: CancellationToken);

    /// Reads a queue that only this program reads until `stop`, reconnecting for ever. A message stays until it is dealt with.
    async fn serve_queue(&self, queue: &str, sink: mpsc::Sender<Served>, stop: CancellationToken);

    /// A capability: single messages can be seen, removed for certain, marked and leased.
    fn lists(&self) -> Option<&Lists>;

    /// Tells all workers. `arguments` is a JSON object.
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
    /// Routing keys (patterns for topics) and the queues they lead to.
    pub bindings: Vec<(String, QueueName)>,
}
