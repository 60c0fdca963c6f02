//! Redis: each call is the adapter's, which has the details.

use std::time::Duration;

use async_trait::async_trait;
use tokio_stream::StreamExt;

use super::{Outgoing, Place, Requests, Tags, Take, Transport};
use crate::request::Origin;
use broker::{Consumer, Delivery, EVENT_EXCHANGE, Error, Lists, Push, QueueOrder, Replies, Request, Return, Target};
use celery::control::ReplyTo;
use celery::task::{Priority, QueueName};
use runtime::clock;

/// The timeout of an idle `BRPOP`, as in kombu.
const IDLE: Duration = Duration::from_secs(1);

#[async_trait]
impl Transport for Lists {
    fn place(&self) -> Place {
        let (host, port) = self.link().place();
        Place { transport: "redis", host, port, part: self.link().db().to_string(), ..Place::default() }
    }

    fn tags(&self) -> Tags {
        Tags::Messages
    }

    fn intake(&self, queues: Vec<QueueName>, order: QueueOrder) -> Box<dyn Take> {
        Box::new(Popping { consumer: self.consumer(queues, order), more: true })
    }

    async fn ack(&self, tags: &[String]) -> Result<(), Error> {
        Self::ack(self, tags).await
    }

    async fn give_back(&self, origin: &Origin, place: Return) -> Result<(), Error> {
        let Some(tag) = &origin.tag else { return Ok(()) };
        self.requeue(tag, &origin.queue, origin.priority, &origin.raw, place).await?;
        Ok(())
    }

    async fn reject(&self, tag: &str) -> Result<(), Error> {
        Self::ack(self, &[tag.to_owned()]).await
    }

    /// It stays reserved until its visibility timeout.
    async fn leave(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }

    fn adopt(&self, _: &str, _: &str) -> bool {
        false
    }

    fn forget(&self, _: &[String]) {}

    async fn keep(&self, tags: &[String], timeout: Duration) -> Result<u64, Error> {
        self.renew(tags, clock::now()).await?;
        let restored = self.restore(timeout, clock::now()).await?;
        Ok(restored.map_or(0, |restored| restored as u64))
    }

    /// The queue named by the default exchange's routing key, else those bound to the exchange.
    async fn targets(&self, send: &Outgoing) -> Result<Vec<Target>, Error> {
        let target = |queue| Target::Queue(queue, Priority::clamped(send.priority.into()));
        if send.exchange.is_empty() {
            // Steps that wait go to an internal queue, which clients may not name.
            return Ok(QueueName::stored(&send.routing_key).into_iter().map(target).collect());
        }
        let bound = self.bound(&send.exchange, &send.routing_key).await?;
        Ok(bound.iter().filter_map(|queue| QueueName::parse(queue).ok()).map(target).collect())
    }

    async fn publish(&self, pushes: &[Push]) -> Result<(), Error> {
        Self::publish(self, pushes, None).await?;
        Ok(())
    }

    async fn settle(&self, tags: &[String]) -> Result<(), Error> {
        self.forget_markers(tags).await
    }

    fn abandon(&self, _: &[String]) {}

    async fn announce(&self, routing_key: &str, message: &[u8]) -> Result<bool, Error> {
        Ok(self.fan_out(EVENT_EXCHANGE, routing_key, message).await? > 0)
    }

    async fn requests(&self, _: &str) -> Result<Requests, Error> {
        let requests = self.control_requests().await?.into_on_message();
        Ok(Box::pin(requests.map(|request| request.get_payload_bytes().to_vec())))
    }

    async fn reply(&self, to: &ReplyTo, message: &[u8]) -> Result<(), Error> {
        Self::reply(self, &to.exchange, &to.routing_key, message).await
    }

    async fn ask(&self, request: &Request, patience: Duration) -> Result<Replies, Error> {
        Self::ask(self, request, patience).await
    }
}

/// Pops messages.
struct Popping {
    consumer: Consumer,
    /// Whether more messages may be there: after a message has woken an idle worker, it reads again without blocking.
    more: bool,
}

#[async_trait]
impl Take for Popping {
    fn set_queues(&mut self, queues: Vec<QueueName>) {
        self.consumer.set_queues(queues);
    }

    async fn take(&mut self, limit: usize, _: usize) -> Result<Vec<Delivery>, Error> {
        let taken = if self.more {
            self.consumer.take(limit, clock::now()).await?
        } else {
            self.consumer.wait(IDLE, clock::now).await?.into_iter().collect()
        };
        self.more = !taken.is_empty();
        Ok(taken)
    }

    async fn broken(&mut self) -> Error {
        std::future::pending().await
    }

    fn lost(&mut self) -> Vec<String> {
        Vec::new()
    }

    async fn close(&mut self) {}
}
