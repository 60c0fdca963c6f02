//! Remote control: requests go to every worker over one channel, replies come back to a list of one's own.
//!
//! A request that wants replies binds a list to kombu's reply exchange for as long as it waits. A worker that answers later
//! finds no binding and drops its reply, however late it is, so nothing stays in Redis. The list has a time to live from the
//! first moment; a binding left behind by a crash is removed by [`Broker::sweep_replies`].

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{Broker, Error};
use celery::control;
use celery::task::Json;
use runtime::clock::{self, Time};

/// Celery's default `control_exchange`, with the suffix kombu gives it.
pub const CONTROL_EXCHANGE: &str = "celery.pidbox";
/// Where kombu binds reply queues.
pub const REPLY_EXCHANGE: &str = "reply.celery.pidbox";
/// Our bindings on it: the rest is a `UUIDv7`, so that everybody can see how old one is.
const REPLY_KEY: &str = "taskgate-";
/// How often the list is looked at: short at first, because workers answer within milliseconds.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const SLOW_LOOK: Duration = Duration::from_millis(20);
/// A list lives so much longer than its request.
const GRACE: Duration = Duration::from_secs(10);
/// A binding that is older belongs to nobody any more.
const ABANDONED: Duration = Duration::from_secs(600);

/// One request to workers.
#[derive(Debug, Clone)]
pub struct Request {
    /// Celery's name of the command.
    pub method: String,
    /// A JSON object.
    pub arguments: String,
    /// Node names; `None` for all workers.
    pub destination: Option<Vec<String>>,
}

/// What workers answered, by node name.
pub type Replies = BTreeMap<String, Json>;

impl Request {
    /// To all workers. `arguments` is a JSON object.
    pub fn to_all(method: &str, arguments: &str) -> Self {
        Self { method: method.to_owned(), arguments: arguments.to_owned(), destination: None }
    }

    pub fn to(self, destination: Option<Vec<String>>) -> Self {
        Self { destination, ..self }
    }

    /// As it goes through the channel; with a `reply` key workers answer.
    fn message(&self, reply: Option<&str>) -> Vec<u8> {
        let request = control::Request {
            method: self.method.clone(),
            arguments: celery::task::json::written(self.arguments.clone()),
            destination: self.destination.clone(),
            pattern: None,
            reply: reply.map(|key| control::ReplyTo {
                ticket: key.to_owned(),
                exchange: REPLY_EXCHANGE.to_owned(),
                routing_key: key.to_owned(),
            }),
            clock: 1,
        };
        request.encode(CONTROL_EXCHANGE, None, &clock::random_id().to_string())
    }
}

impl Broker {
    /// Tells all workers, without waiting for replies. `arguments` is a JSON object. Returns how many listened.
    pub async fn broadcast(&self, method: &str, arguments: &str) -> Result<i64, Error> {
        self.tell(&Request::to_all(method, arguments)).await
    }

    /// Tells workers, without waiting for replies. Returns how many listened, those it was not meant for included.
    pub async fn tell(&self, request: &Request) -> Result<i64, Error> {
        let channel = self.keys.fanout(CONTROL_EXCHANGE, "");
        self.link.call(redis::cmd("PUBLISH").arg(channel).arg(request.message(None))).await
    }

    /// Asks workers and gathers their replies until all have answered or `patience` is over.
    ///
    /// # Cancel safety
    /// A dropped call leaves a list that expires and a binding that is swept.
    pub async fn ask(&self, request: &Request, patience: Duration) -> Result<Replies, Error> {
        let key = format!("{REPLY_KEY}{}", clock::new_id());
        let inbox = Inbox { list: self.keys.prefixed(&format!("{key}.reply.celery.pidbox")), key };
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

    /// Binds, publishes and answers how many listen, in one transaction. The list is never empty: an empty list has no time
    /// to live.
    async fn open(&self, inbox: &Inbox, request: &Request, patience: Duration) -> Result<usize, Error> {
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("RPUSH").arg(&inbox.list).arg("").ignore();
        pipeline.cmd("EXPIRE").arg(&inbox.list).arg((patience + GRACE).as_secs()).ignore();
        pipeline.cmd("SADD").arg(self.keys.binding(REPLY_EXCHANGE)).arg(inbox.member()).ignore();
        pipeline.cmd("PUBLISH").arg(self.keys.fanout(CONTROL_EXCHANGE, "")).arg(request.message(Some(&inbox.key)));
        let (listeners,): (i64,) = self.link.pipeline(&pipeline).await?;
        Ok(usize::try_from(listeners).unwrap_or(0))
    }

    /// Reads the list as it grows. Returns how many replies there were.
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
            // The newest stand in front; what was read and our own element stand at the end.
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

    /// Unbinds. A reply that was on its way to the list in this very moment finds one that expires.
    async fn close(&self, inbox: &Inbox, complete: bool) -> Result<(), Error> {
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("SREM").arg(self.keys.binding(REPLY_EXCHANGE)).arg(inbox.member()).ignore();
        if complete {
            pipeline.cmd("DEL").arg(&inbox.list).ignore();
        } else {
            pipeline.cmd("EXPIRE").arg(&inbox.list).arg(GRACE.as_secs()).ignore();
        }
        self.link.pipeline(&pipeline).await
    }

    /// Removes bindings that a crash left behind. Returns how many.
    pub async fn sweep_replies(&self, now: Time) -> Result<usize, Error> {
        let binding = self.keys.binding(REPLY_EXCHANGE);
        let members: Vec<String> = self.link.call(redis::cmd("SMEMBERS").arg(&binding)).await?;
        let abandoned: Vec<String> = members.into_iter().filter(|member| is_abandoned(member, now)).collect();
        if !abandoned.is_empty() {
            self.link.call::<()>(redis::cmd("SREM").arg(&binding).arg(&abandoned)).await?;
        }
        Ok(abandoned.len())
    }
}

/// Where the replies to one request arrive.
struct Inbox {
    /// Ticket and routing key.
    key: String,
    list: String,
}

impl Inbox {
    fn member(&self) -> String {
        let separator = super::keys::SEPARATOR;
        format!("{key}{separator}{separator}{key}.reply.celery.pidbox", key = self.key)
    }

    /// Reads one reply; `false` when it belongs to another request or is no reply.
    fn take(&self, payload: &[u8], replies: &mut Replies) -> bool {
        match control::Reply::decode(payload) {
            Ok(reply) if reply.ticket.as_deref() == Some(&self.key) => {
                replies.insert(reply.node, reply.value);
                true
            }
            _ => false,
        }
    }
}

fn is_abandoned(member: &str, now: Time) -> bool {
    let id = member.strip_prefix(REPLY_KEY).and_then(|rest| rest.get(..36)).and_then(|id| id.parse().ok());
    id.and_then(|id: uuid::Uuid| id.get_timestamp()).is_some_and(|made| {
        let (secs, _) = made.to_unix();
        now.as_micros() / 1_000_000 > i64::try_from(secs + ABANDONED.as_secs()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_bindings_of_ours_are_swept() {
        let now = clock::now();
        let ours = format!("{REPLY_KEY}{}\u{6}\u{16}\u{6}\u{16}x", clock::new_id());
        assert!(!is_abandoned(&ours, now));
        assert!(is_abandoned(&ours, now.plus(ABANDONED + Duration::from_secs(2))));
        assert!(!is_abandoned("5e0c\u{6}\u{16}\u{6}\u{16}x", now.plus(ABANDONED * 2)));
    }

    #[test]
    fn a_reply_with_another_ticket_is_dropped() {
        let inbox = Inbox { key: "mine".into(), list: String::new() };
        let mut replies = Replies::new();
        let reply = |ticket: &str| {
            let to = control::ReplyTo { ticket: String::new(), exchange: String::new(), routing_key: "mine".into() };
            let value = control::ok("pong");
            control::Reply { ticket: Some(ticket.into()), clock: 1, node: "w1@h".into(), value }.encode(&to, "t")
        };
        assert!(!inbox.take(&reply("other"), &mut replies));
        assert!(!inbox.take(b"", &mut replies));
        assert!(inbox.take(&reply("mine"), &mut replies));
        assert_eq!(replies["w1@h"].get(), r#"{"ok": "pong"}"#);
    }
}
