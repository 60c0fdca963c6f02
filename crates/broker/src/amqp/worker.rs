//! What a worker does on RabbitMQ: takes messages and ends them, sends messages, events and results, and hears remote control.
//!
//! Two connections, as for the gateway: a broker that is short of memory blocks the one that publishes, and the one that takes must go on.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use celery::task::QueueName;
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicRejectOptions};
use lapin::{Acker, Channel};
use tracing::debug;

use super::address::Address;
use super::consume::{Arguments, Consumer};
use super::held::Held;
use super::link::{Link, LinkConfig};
use super::publish::Publisher;
use super::{announce, control, queues, requests};
use crate::backend::{Record, Stored};
use crate::{Error, Push, Pushed, QueueOrder, Replies, Request, Target};

/// Cheap to clone.
#[derive(Clone)]
pub struct WorkerSide(Arc<Inner>);

struct Inner {
    publisher: Publisher,
    taking: Link,
    held: Held,
    arguments: Arguments,
    address: Address,
    /// The channel of events, with the generation of its connection.
    speaking: tokio::sync::Mutex<Option<(u64, Channel)>>,
    /// Messages of unfinished calls that RabbitMQ has confirmed: a repeated call must not send them again.
    confirmed: Mutex<HashSet<String>>,
}

impl WorkerSide {
    /// Makes no connection yet. `queues` has the arguments with which missing queues are declared.
    ///
    /// # Errors
    /// When the configuration names no node.
    pub fn new(config: LinkConfig, queues: BTreeMap<String, String>) -> Result<Self, Error> {
        let address = config.addresses.first().cloned().ok_or_else(|| Error::Url("it is empty".into()))?;
        Ok(Self(Arc::new(Inner {
            publisher: Publisher::new(Link::new(config.clone(), "worker publishes"), None),
            taking: Link::new(config, "worker takes"),
            held: Held::default(),
            arguments: Arc::new(queues),
            address,
            speaking: tokio::sync::Mutex::default(),
            confirmed: Mutex::default(),
        })))
    }

    /// The first node, for display.
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// A consumer of `queues`; connects when it is first used.
    pub fn consumer(&self, queues: Vec<QueueName>, order: QueueOrder) -> Consumer {
        let Inner { taking, held, arguments, .. } = &*self.0;
        Consumer::new(taking.clone(), held.clone(), Arc::clone(arguments), queues, order)
    }

    /// Acknowledges messages. One whose channel broke is delivered again, whatever is done here.
    pub async fn ack(&self, tags: &[String]) -> Result<(), Error> {
        let ackers: Vec<(u64, Acker)> = tags.iter().filter_map(|tag| self.0.held.take_from(tag)).collect();
        let ack = |acker: Acker| async move { self.end("acknowledged", acker.ack(BasicAckOptions::default())).await };
        end_all(ackers, ack).await;
        Ok(())
    }

    /// Gives a message back to its queue.
    pub async fn requeue(&self, tag: &str) {
        if let Some(acker) = self.0.held.take(tag) {
            self.end("given back", acker.nack(BasicNackOptions { multiple: false, requeue: true })).await;
        }
    }

    /// Rejects a message: it goes to the queue's dead-letter exchange, if there is one, else it is gone.
    pub async fn reject(&self, tag: &str) {
        if let Some(acker) = self.0.held.take(tag) {
            self.end("rejected", acker.reject(BasicRejectOptions { requeue: false })).await;
        }
    }

    /// Returns whether it came to an end in time, or RabbitMQ has the message back.
    async fn end(&self, what: &str, ended: impl Future<Output = lapin::Result<bool>>) -> bool {
        match tokio::time::timeout(self.0.taking.patience(), ended).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                debug!(%error, "a message could not be {what}, RabbitMQ delivers it again: {error}");
                true
            }
            Err(_) => {
                self.0.taking.forget();
                false
            }
        }
    }

    /// The second delivery of a message that runs here ends with the first.
    pub fn adopt(&self, held: &str, again: &str) -> bool {
        self.0.held.adopt(held, again)
    }

    /// Forgets messages that RabbitMQ took back.
    pub fn forget(&self, tags: &[String]) {
        self.0.held.forget(tags);
    }

    /// Publishes messages; each is confirmed. A queue that does not exist is made, as Celery makes it. May be repeated until
    /// [`WorkerSide::settle`]: what was confirmed is not sent again.
    ///
    /// # Errors
    /// When RabbitMQ is away, or takes a message neither now nor after its queue was made ([`Error::NotTaken`]), or can take it never
    /// ([`Error::Undeliverable`]). The other messages of the batch are published.
    pub async fn publish(&self, batch: &[Push]) -> Result<(), Error> {
        let mut left = self.publish_once(self.unconfirmed(batch)).await?;
        if !left.pushes.is_empty() {
            debug!("sending {} messages once more whose queues did not take them", left.pushes.len());
            self.make_queues(&left.pushes).await?;
            let undeliverable = left.undeliverable;
            left = self.publish_once(left.pushes).await?;
            left.undeliverable = undeliverable.or(left.undeliverable);
        }
        left.settled()
    }

    /// Publishes; returns what RabbitMQ did not take.
    async fn publish_once(&self, pushes: Vec<Push>) -> Result<Left, Error> {
        let outcomes = self.0.publisher.publish(&pushes, None).await?;
        let mut left = Left::default();
        let mut confirmed = self.0.confirmed.lock().expect("nothing panics under this lock");
        for (push, outcome) in pushes.into_iter().zip(outcomes) {
            match outcome {
                Pushed::Now | Pushed::Before => drop(confirmed.insert(push.tag)),
                outcome => left.add(push, outcome),
            }
        }
        Ok(left)
    }

    /// Makes the queues of these messages, where they do not exist.
    async fn make_queues(&self, pushes: &[Push]) -> Result<(), Error> {
        for push in pushes {
            if let Target::Queue(queue, _) = &push.target {
                let arguments = self.0.arguments.get(queue.as_str()).map_or("{}", String::as_str);
                queues::ensure(&self.0.taking, queue.as_str(), arguments).await?;
            }
        }
        Ok(())
    }

    fn unconfirmed(&self, batch: &[Push]) -> Vec<Push> {
        let confirmed = self.0.confirmed.lock().expect("nothing panics under this lock");
        batch.iter().filter(|push| !confirmed.contains(&push.tag)).cloned().collect()
    }

    /// Ends the repetition of messages: they were all published, or are given up.
    pub fn settle(&self, tags: &[String]) {
        let mut confirmed = self.0.confirmed.lock().expect("nothing panics under this lock");
        for tag in tags {
            confirmed.remove(tag);
        }
    }

    /// Sends records to the queues that their tasks' messages name, Celery's `rpc://`. A record without a queue, or whose queue is gone, has
    /// no reader: it counts as stored.
    pub async fn send_results(&self, records: &[Record]) -> Result<Vec<Stored>, Error> {
        let pushes: Vec<Option<Push>> = records.iter().map(super::results::reply).collect();
        let sent: Vec<Push> = pushes.iter().flatten().cloned().collect();
        let mut outcomes = self.0.publisher.publish(&sent, None).await?.into_iter();
        let outcome = |(push, record): (&Option<Push>, &Record)| match push {
            None => Stored::Yes,
            Some(_) => received(&record.task_id, outcomes.next().unwrap_or(Pushed::Now)),
        };
        Ok(pushes.iter().zip(records).map(outcome).collect())
    }

    /// Sends one record.
    ///
    /// # Errors
    /// As [`WorkerSide::publish`], but for a queue that is gone: nobody waits for this result any more.
    pub async fn send_result(&self, record: &Record) -> Result<(), Error> {
        let Some(push) = super::results::reply(record) else { return Ok(()) };
        let mut left = Left::default();
        for outcome in self.0.publisher.publish(std::slice::from_ref(&push), None).await? {
            match outcome {
                Pushed::Now | Pushed::Before | Pushed::Unroutable(_) => {}
                outcome => left.add(push.clone(), outcome),
            }
        }
        left.settled()
    }

    /// Publishes a message of events; returns whether somebody listens.
    pub async fn announce(&self, routing_key: &str, envelope: &[u8]) -> Result<bool, Error> {
        let mut speaking = self.0.speaking.lock().await;
        announce::announce(&self.0.publisher.link, &mut speaking, routing_key, envelope).await
    }

    /// Listens for remote-control requests. The stream ends with the connection.
    pub async fn requests(
        &self,
        hostname: &str,
    ) -> Result<impl tokio_stream::Stream<Item = Vec<u8>> + Send + use<>, Error> {
        requests::listen(&self.0.taking, hostname).await
    }

    /// Answers a request. Nobody may wait for the answer any more.
    pub async fn reply(&self, exchange: &str, routing_key: &str, message: &[u8]) -> Result<(), Error> {
        let target = Target::Fanout { exchange: exchange.to_owned(), routing_key: routing_key.to_owned() };
        let push = Push { target, tag: runtime::clock::random_id().to_string(), envelope: message.to_vec() };
        self.0.publisher.publish(&[push], None).await?;
        Ok(())
    }

    /// Asks other workers, and gathers their replies.
    pub async fn ask(&self, request: &Request, patience: Duration) -> Result<Replies, Error> {
        control::ask(&self.0.publisher.link, request, patience).await
    }
}

/// What RabbitMQ did not take of a batch.
#[derive(Default)]
struct Left {
    /// It may take these later.
    pushes: Vec<Push>,
    /// Why it did not take the first of them.
    why: Option<String>,
    /// Why it can never take one of the others.
    undeliverable: Option<String>,
}

impl Left {
    fn add(&mut self, push: Push, outcome: Pushed) {
        let is_queue = matches!(push.target, Target::Queue(..));
        match outcome {
            Pushed::Now | Pushed::Before => {}
            // A missing queue can be made; of an exchange nobody knows what it should be.
            Pushed::Unroutable(why) if !is_queue => drop(self.undeliverable.get_or_insert(why)),
            Pushed::Unfit(why) => drop(self.undeliverable.get_or_insert(why)),
            Pushed::Unroutable(why) | Pushed::Refused(why) => {
                self.why.get_or_insert(why);
                self.pushes.push(push);
            }
        }
    }

    fn settled(self) -> Result<(), Error> {
        match (self.undeliverable, self.why) {
            (Some(why), _) => Err(Error::Undeliverable(why)),
            (None, Some(why)) => Err(Error::NotTaken(why)),
            (None, None) => Ok(()),
        }
    }
}

/// Whether the reader of a result gets it.
fn received(task_id: &str, outcome: Pushed) -> Stored {
    match outcome {
        Pushed::Now | Pushed::Before => Stored::Yes,
        Pushed::Unroutable(_) => {
            debug!(task.id = task_id, "the result of {task_id} has no reader: its reply queue is gone");
            Stored::Yes
        }
        Pushed::Refused(why) => Stored::NotNow(why),
        Pushed::Unfit(why) => Stored::Refused(why),
    }
}

/// Ends messages one after the other; `end` returns whether RabbitMQ was told in time. After a message that was not, those of its channel
/// and of earlier ones are left out: their connection is given up, so RabbitMQ delivers them again, and each would wait as long.
async fn end_all<T, W: Future<Output = bool>>(messages: Vec<(u64, T)>, end: impl Fn(T) -> W) {
    let mut given_up = None;
    for (channel, message) in messages {
        if given_up.is_none_or(|last| channel > last) && !end(message).await {
            given_up = Some(channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use celery::task::Priority;

    #[tokio::test]
    async fn after_one_late_answer_only_newer_channels_are_told() {
        let told = Mutex::new(Vec::new());
        let end = |message: &'static str| {
            told.lock().unwrap().push(message);
            std::future::ready(message != "late")
        };
        end_all(vec![(1, "first"), (2, "late"), (2, "same"), (1, "older"), (3, "newer")], end).await;
        assert_eq!(*told.lock().unwrap(), ["first", "late", "newer"]);
    }

    fn to_queue() -> Target {
        Target::Queue(QueueName::parse("q").unwrap(), Priority::default())
    }

    fn to_exchange() -> Target {
        Target::Fanout { exchange: "x".to_owned(), routing_key: String::new() }
    }

    #[test]
    fn only_what_may_be_taken_later_is_tried_again() {
        let all = [
            (to_queue(), Pushed::Refused("full".to_owned()), "RabbitMQ did not take a message: full", 1),
            (to_queue(), Pushed::Unroutable("none".to_owned()), "RabbitMQ did not take a message: none", 1),
            (to_exchange(), Pushed::Unroutable("none".to_owned()), "RabbitMQ cannot take a message: none", 0),
            (to_queue(), Pushed::Unfit("large".to_owned()), "RabbitMQ cannot take a message: large", 0),
        ];
        for (target, outcome, told, again) in all {
            let mut left = Left::default();
            left.add(Push { target, tag: "t".to_owned(), envelope: Vec::new() }, outcome);
            assert_eq!(left.pushes.len(), again);
            let error = left.settled().unwrap_err();
            assert_eq!((error.to_string().as_str(), error.is_refusal()), (told, again == 0));
        }
    }
}
