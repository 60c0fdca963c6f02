//! Ends reservations: the message is done with, goes back to its queue, or stays reserved a while longer.

use std::sync::LazyLock;

use redis::Script;

use super::{Broker, Error};
use celery::redelivered;
use celery::task::{Priority, QueueName};
use runtime::clock::Time;

/// Where a message stands among those that wait, when it goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// Taken next: nobody is to blame that it did not run.
    Next,
    /// Taken last: its task or the process that ran it refused it.
    Last,
}

/// KEYS: unacked, index, list. ARGV: tag, LPUSH or RPUSH, message. Whoever finds the reservation gone does nothing.
static REQUEUE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        redis.call('ZREM', KEYS[2], ARGV[1])
        if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
        redis.call(ARGV[2], KEYS[3], ARGV[3])
        return 1
        ",
    )
});

impl Broker {
    /// Ends the reservations of messages that were dealt with. May be repeated.
    pub async fn ack(&self, tags: &[String]) -> Result<(), Error> {
        if tags.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("ZREM").arg(self.keys.unacked_index()).arg(tags).ignore();
        pipeline.cmd("HDEL").arg(self.keys.unacked()).arg(tags).ignore();
        self.link.pipeline(&pipeline).await
    }

    /// Puts a reserved message back, marked as redelivered. `false` when its reservation was gone: somebody restored it before.
    pub async fn requeue(
        &self,
        tag: &str,
        queue: &QueueName,
        priority: Priority,
        raw: &[u8],
        place: Return,
    ) -> Result<bool, Error> {
        let mut call = REQUEUE.key(self.keys.unacked());
        call.key(self.keys.unacked_index()).key(self.keys.queue(queue.as_str(), priority)).arg(tag);
        call.arg(if place == Return::Next { "RPUSH" } else { "LPUSH" });
        call.arg(redelivered::mark(raw).as_deref().unwrap_or(raw));
        self.link.script(&call).await
    }

    /// Keeps reservations from running out while their worker lives: only moves times forward, makes no reservation anew.
    pub async fn renew(&self, tags: &[String], now: Time) -> Result<(), Error> {
        if tags.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("ZADD");
        command.arg(self.keys.unacked_index()).arg("XX").arg("GT");
        for tag in tags {
            command.arg(now.as_unix_secs()).arg(tag);
        }
        self.link.call(&command).await
    }
}
