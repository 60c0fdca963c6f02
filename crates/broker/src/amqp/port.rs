//! Implements the broker port for RabbitMQ.

use std::time::Duration;

use async_trait::async_trait;
use celery::task::{Priority, QueueName};
use runtime::clock::Time;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{RabbitMq, control, events, exchange, queues, serve};
use crate::port::{Exchange, Kind, Port};
use crate::{Depth, Error, Feed, Lists, Push, Pushed, Replies, Request, Served, Standing};

#[async_trait]
impl Port for RabbitMq {
    fn kind(&self) -> Kind {
        Kind::RabbitMq
    }

    /// Opens and closes a channel, so that a broker that only accepts connections counts as down.
    async fn ping(&self) -> Result<(), Error> {
        queues::close(Some(self.listening.channel().await?)).await;
        Ok(())
    }

    async fn publish(&self, batch: &[Push], deadline: Option<Time>) -> Result<Vec<Pushed>, Error> {
        self.publisher.publish(batch, deadline).await
    }

    fn refuses(&self, queue: &QueueName, _: Priority) -> Option<String> {
        self.publisher.refuses(queue.as_str())
    }

    async fn declare_queue(&self, queue: &QueueName, arguments: &str) -> Result<(), Error> {
        queues::declare(&self.listening, queue.as_str(), arguments).await
    }

    async fn declare(&self, exchange: &Exchange) -> Result<(), Error> {
        exchange::declare(&self.listening, exchange).await
    }

    async fn differs(&self, exchange: &Exchange) -> Result<Option<String>, Error> {
        exchange::differs(&self.listening, exchange).await
    }

    async fn depths(&self, queues: &[String]) -> Result<Vec<Depth>, Error> {
        queues::depths(&self.listening, queues).await
    }

    async fn take_out(&self, queue: &str, limit: usize) -> Result<Vec<Standing>, Error> {
        queues::take_out(&self.listening, queue, limit).await
    }

    async fn tell(&self, request: &Request) -> Result<i64, Error> {
        control::tell(&self.publisher.link, request).await
    }

    async fn ask(&self, request: &Request, patience: Duration) -> Result<Replies, Error> {
        control::ask(&self.publisher.link, request, patience).await
    }

    async fn follow_events(&self, sink: mpsc::Sender<Feed>, stop: CancellationToken) {
        events::follow(self.listening.clone(), sink, stop).await;
    }

    async fn serve_queue(&self, queue: &str, sink: mpsc::Sender<Served>, stop: CancellationToken) {
        serve::serve(self.listening.clone(), queue, sink, stop).await;
    }

    fn lists(&self) -> Option<&Lists> {
        None
    }
}
