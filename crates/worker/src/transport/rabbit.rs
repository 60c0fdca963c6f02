//! RabbitMQ: each call is the adapter's, which has the details.

use std::time::Duration;

use async_trait::async_trait;

use super::{Outgoing, Place, Requests, Tags, Take, Transport};
use crate::request::Origin;
use broker::amqp::{Consumer, WorkerSide};
use broker::{Delivery, Error, Push, QueueOrder, Replies, Request, Return, Target};
use celery::control::ReplyTo;
use celery::task::{Priority, QueueName};

/// How long a call without messages lasts.
const IDLE: Duration = Duration::from_secs(1);

#[async_trait]
impl Transport for WorkerSide {
    fn place(&self) -> Place {
        let address = self.address();
        Place {
            transport: "amqp",
            host: address.host.clone(),
            port: address.port,
            part: address.vhost.clone(),
            user: Some(address.user.clone()),
            tls: address.is_tls,
            heartbeat: address.heartbeat,
        }
    }

    fn tags(&self) -> Tags {
        Tags::Deliveries
    }

    fn intake(&self, queues: Vec<QueueName>, order: QueueOrder) -> Box<dyn Take> {
        Box::new(self.consumer(queues, order))
    }

    async fn ack(&self, tags: &[String]) -> Result<(), Error> {
        Self::ack(self, tags).await
    }

    /// RabbitMQ puts it back where it was, if it can.
    async fn give_back(&self, origin: &Origin, _: Return) -> Result<(), Error> {
        if let Some(tag) = &origin.tag {
            self.requeue(tag).await;
        }
        Ok(())
    }

    async fn reject(&self, tag: &str) -> Result<(), Error> {
        Self::reject(self, tag).await;
        Ok(())
    }

    /// As Celery: rejected, so that a dead-letter exchange gets it.
    async fn leave(&self, tag: &str) -> Result<(), Error> {
        Self::reject(self, tag).await;
        Ok(())
    }

    fn adopt(&self, held: &str, again: &str) -> bool {
        Self::adopt(self, held, again)
    }

    fn forget(&self, tags: &[String]) {
        Self::forget(self, tags);
    }

    /// RabbitMQ sees the end of a connection by itself.
    async fn keep(&self, _: &[String], _: Duration) -> Result<u64, Error> {
        Ok(0)
    }

    async fn targets(&self, send: &Outgoing) -> Result<Vec<Target>, Error> {
        if !send.exchange.is_empty() {
            let (exchange, routing_key) = (send.exchange.clone(), send.routing_key.clone());
            return Ok(vec![Target::Fanout { exchange, routing_key }]);
        }
        let target = |queue| Target::Queue(queue, Priority::clamped(send.priority.into()));
        Ok(QueueName::stored(&send.routing_key).into_iter().map(target).collect())
    }

    async fn publish(&self, pushes: &[Push]) -> Result<(), Error> {
        Self::publish(self, pushes).await
    }

    async fn settle(&self, tags: &[String]) -> Result<(), Error> {
        Self::settle(self, tags);
        Ok(())
    }

    fn abandon(&self, tags: &[String]) {
        Self::settle(self, tags);
    }

    async fn announce(&self, routing_key: &str, message: &[u8]) -> Result<bool, Error> {
        Self::announce(self, routing_key, message).await
    }

    async fn requests(&self, hostname: &str) -> Result<Requests, Error> {
        Ok(Box::pin(Self::requests(self, hostname).await?))
    }

    async fn reply(&self, to: &ReplyTo, message: &[u8]) -> Result<(), Error> {
        Self::reply(self, &to.exchange, &to.routing_key, message).await
    }

    async fn ask(&self, request: &Request, patience: Duration) -> Result<Replies, Error> {
        Self::ask(self, request, patience).await
    }
}

#[async_trait]
impl Take for Consumer {
    fn set_queues(&mut self, queues: Vec<QueueName>) {
        Self::set_queues(self, queues);
    }

    async fn take(&mut self, limit: usize, prefetch: usize) -> Result<Vec<Delivery>, Error> {
        Self::take(self, limit, prefetch, IDLE).await
    }

    async fn broken(&mut self) -> Error {
        Self::broken(self).await
    }

    fn lost(&mut self) -> Vec<String> {
        Self::lost(self)
    }

    async fn close(&mut self) {
        Self::close(self).await;
    }
}
