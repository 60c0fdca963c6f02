//! Implements the broker port for Redis. Each call is the adapter's method of the same name, which has the details.

use std::time::Duration;

use async_trait::async_trait;
use celery::binding::Member;
use celery::task::{Priority, QueueName};
use runtime::clock::Time;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Broker, Depth, Error, Feed, Push, Pushed, Replies, Request, Standing};
use crate::Served;
use crate::port::{Binding, Exchange, Kind, Port};

#[async_trait]
impl Port for Broker {
    fn kind(&self) -> Kind {
        Kind::Redis
    }

    async fn ping(&self) -> Result<(), Error> {
        Self::ping(self).await
    }

    async fn publish(&self, batch: &[Push], deadline: Option<Time>) -> Result<Vec<Pushed>, Error> {
        Self::publish(self, batch, deadline).await
    }

    fn refuses(&self, queue: &QueueName, priority: Priority) -> Option<String> {
        Self::refuses(self, queue, priority)
    }

    /// Does nothing: a list is created by its first message.
    async fn declare_queue(&self, _: &QueueName, _: &str) -> Result<(), Error> {
        Ok(())
    }

    /// Writes the bindings. A fanout exchange has none: its workers subscribe to a channel.
    async fn declare(&self, exchange: &Exchange) -> Result<(), Error> {
        if exchange.kind.is_of_the_broker() {
            return Ok(());
        }
        let member = |to: &Binding| Member::bind(exchange.kind, &to.routing_key, to.queue.as_str());
        let members: Vec<Member> = exchange.bindings.iter().map(member).collect();
        Self::declare(self, &exchange.name, &members).await
    }

    /// Nothing differs: a set of bindings has no type.
    async fn differs(&self, _: &Exchange) -> Result<Option<String>, Error> {
        Ok(None)
    }

    async fn depths(&self, queues: &[String]) -> Result<Vec<Depth>, Error> {
        Self::depths(self, queues).await
    }

    async fn take_out(&self, queue: &str, limit: usize) -> Result<Vec<Standing>, Error> {
        Self::take_out(self, queue, limit).await
    }

    async fn tell(&self, request: &Request) -> Result<i64, Error> {
        Self::tell(self, request).await
    }

    async fn ask(&self, request: &Request, patience: Duration) -> Result<Replies, Error> {
        Self::ask(self, request, patience).await
    }

    async fn follow_events(&self, sink: mpsc::Sender<Feed>, stop: CancellationToken) {
        Self::follow_events(self, sink, stop).await;
    }

    async fn serve_queue(&self, queue: &str, sink: mpsc::Sender<Served>, stop: CancellationToken) {
        Self::serve_queue(self, queue, sink, stop).await;
    }

    fn lists(&self) -> Option<&Self> {
        Some(self)
    }
}
