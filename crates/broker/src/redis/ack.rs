//! Ends or renews reservations: the message is done, goes back to its queue, or stays reserved for longer.

use std::sync::LazyLock;

use redis::Script;

use super::{Broker, Error};
use celery::redelivered;
use celery::task::{Priority, QueueName};
use runtime::clock::Time;

/// The position in the queue of a message that goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// Served next: for a message that did not run through no fault of its own.
    Next,
    /// Served last: its task or the process that ran it refused it.
    Last,
}

/// KEYS: unacked, index, list. ARGV: tag, LPUSH or RPUSH, message. Does nothing if the reservation is gone.
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
    /// Ends the reservations of messages that are done. May be repeated.
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

    /// Puts a reserved message back, marked as redelivered. `false` when its reservation was gone: another process restored it before.
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

    /// Renews reservations while their worker lives: only moves times forward, and never creates a reservation.
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
