//! Remote control: requests go to all workers over one channel, replies come back to a list of this process.
//!
//! A request names the empty exchange and our list, so a worker pushes its reply directly there ([`super::inbox`]). Nothing is written
//! into kombu's tables: the fleet's own remote control parses those with its own separator, and fails for a binding that was written
//! with another one.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::inbox::Inbox;
use super::{Broker, Error};
use celery::control;
use celery::task::Json;
use runtime::clock;

/// Celery's default `control_exchange`, with the suffix kombu gives it.
pub const CONTROL_EXCHANGE: &str = "celery.pidbox";
/// The first pause between two reads of the list; short, because workers answer within milliseconds.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const SLOW_LOOK: Duration = Duration::from_millis(20);
/// How much longer a list lives than its request.
const GRACE: Duration = Duration::from_secs(10);

/// A request to workers.
#[derive(Debug, Clone)]
pub struct Request {
    /// Celery's name of the command.
    pub method: String,
    /// A JSON object.
    pub arguments: String,
    /// Node names; `None` for all workers.
    pub destination: Option<Vec<String>>,
}

/// The replies of workers, by node name.
pub type Replies = BTreeMap<String, Json>;

impl Request {
    /// A request to all workers. `arguments` is a JSON object.
    pub fn to_all(method: &str, arguments: &str) -> Self {
        Self { method: method.to_owned(), arguments: arguments.to_owned(), destination: None }
    }

    pub fn to(self, destination: Option<Vec<String>>) -> Self {
        Self { destination, ..self }
    }

    /// The message for the channel; workers answer if it has a ticket and a reply queue.
    pub(crate) fn message(&self, reply: Option<(&str, &str)>) -> Vec<u8> {
        let request = control::Request {
            method: self.method.clone(),
            arguments: celery::task::json::written(self.arguments.clone()),
            destination: self.destination.clone(),
            pattern: None,
            reply: reply.map(|(ticket, queue)| control::ReplyTo {
                ticket: ticket.to_owned(),
                exchange: String::new(),
                routing_key: queue.to_owned(),
            }),
            clock: 1,
        };
        request.encode(CONTROL_EXCHANGE, None, &clock::random_id().to_string())
    }
}

impl Broker {
    /// Sends a command to all workers without waiting for replies. `arguments` is a JSON object. Returns how many listened.
    pub async fn broadcast(&self, method: &str, arguments: &str) -> Result<i64, Error> {
        self.tell(&Request::to_all(method, arguments)).await
    }

    /// Sends a request to workers without waiting for replies. Returns how many listened, including workers that it is not for.
    pub async fn tell(&self, request: &Request) -> Result<i64, Error> {
        let channel = self.keys.fanout(CONTROL_EXCHANGE, "");
        self.link.call(redis::cmd("PUBLISH").arg(channel).arg(request.message(None))).await
    }

    /// Asks workers and gathers their replies until all have answered or `patience` has passed.
    ///
    /// # Cancel safety
    /// A dropped call leaves a list that expires.
    pub async fn ask(&self, request: &Request, patience: Duration) -> Result<Replies, Error> {
        let inbox = self.inboxes.take(&self.keys);
        let listeners = self.open(&inbox, request, patience).await?;
        let expected = match &request.destination {
            Some(nodes) => nodes.len().min(listeners),
            None => listeners,
        };
        let mut replies = Replies::new();
        let gathered = self.gather(&inbox, expected, patience, &mut replies).await;
        self.close(&inbox, gathered.as_ref().is_ok_and(|count| *count >= expected)).await?;
        gathered.map(|_| replies)
    }

    /// Creates the list, publishes, and returns how many listen, in one transaction. Late replies to an earlier request are removed. The
    /// list is never empty, because Redis deletes an empty list with its expiry.
    async fn open(&self, inbox: &Inbox, request: &Request, patience: Duration) -> Result<usize, Error> {
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("DEL").arg(&inbox.list).ignore();
        pipeline.cmd("RPUSH").arg(&inbox.list).arg("").ignore();
        pipeline.cmd("EXPIRE").arg(&inbox.list).arg((patience + GRACE).as_secs()).ignore();
        self.remember_inbox(&mut pipeline, inbox);
        let message = request.message(Some((&inbox.ticket, inbox.name())));
        pipeline.cmd("PUBLISH").arg(self.keys.fanout(CONTROL_EXCHANGE, "")).arg(message);
        let (listeners,): (i64,) = self.link.pipeline(&pipeline).await?;
        Ok(usize::try_from(listeners).unwrap_or(0))
    }

    /// Reads the list as it grows. Returns the number of replies.
    async fn gather(
        &self,
        inbox: &Inbox,
        expected: usize,
        patience: Duration,
        replies: &mut Replies,
    ) -> Result<usize, Error> {
        let deadline = Instant::now() + patience;
        let mut read = 0_usize;
        let mut count = 0;
        let mut pause = FIRST_LOOK;
        while count < expected {
            let mut command = redis::cmd("LRANGE");
            // The newest are in front; those that were read and our own element are at the end.
            let end = -2 - i64::try_from(read).unwrap_or(i64::MAX - 2);
            let fresh: Vec<Vec<u8>> = self.link.call(command.arg(&inbox.list).arg(0).arg(end)).await?;
            read += fresh.len();
            count += fresh.iter().filter(|payload| inbox.take(payload, replies)).count();
            if count >= expected || Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(pause.min(deadline - Instant::now())).await;
            pause = (pause * 2).min(SLOW_LOOK);
        }
        Ok(count)
    }

    /// Closes the list. A later reply is added to a list that expires, or creates one that the next request or the sweep removes.
    async fn close(&self, inbox: &Inbox, complete: bool) -> Result<(), Error> {
        let mut command = if complete { redis::cmd("DEL") } else { redis::cmd("EXPIRE") };
        command.arg(&inbox.list);
        if !complete {
            command.arg(GRACE.as_secs());
        }
        self.link.call(&command).await
    }
}
