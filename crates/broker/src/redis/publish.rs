//! Pushes messages into their lists, each delivery at most once.
//!
//! The push sets the delivery's marker in the same script: after a crash or a lost answer the call is repeated, but not the message.
//! A marker exists from the push until the ledger has certainly recorded the publication.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use super::{Broker, Error};
use celery::task::{Priority, QueueName};
use runtime::clock::Time;

/// Where a message goes.
#[derive(Debug, Clone)]
pub enum Target {
    Queue(QueueName, Priority),
    /// All present subscribers.
    Fanout {
        exchange: String,
        routing_key: String,
    },
}

/// A message to push.
#[derive(Debug, Clone)]
pub struct Push {
    pub target: Target,
    /// Unique for this delivery; the field of the marker.
    pub tag: String,
    /// The envelope, exactly as it will be in the list.
    pub envelope: Vec<u8>,
}

/// The outcome of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    Now,
    /// The marker existed: an earlier call pushed the message, or a revoke forbade it.
    Before,
    /// Not published, with the reason: its queue accepts nothing now. Other messages of the batch are not affected.
    Refused(String),
    /// Not published, because no queue takes it: its queue or exchange does not exist, or nothing is bound.
    Unroutable(String),
    /// Not published, because the broker cannot carry it: its headers or a name in it are too large.
    Unfit(String),
}

impl Pushed {
    /// Why it was not published.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Now | Self::Before => None,
            Self::Refused(why) | Self::Unroutable(why) | Self::Unfit(why) => Some(why),
        }
    }
}

/// The script's answers.
const WRONG_TYPE: i64 = 2;

/// Maximum number of messages in a call, so that no script blocks Redis for long.
const MAX_MESSAGES: usize = 1_000;
const MAX_BYTES: usize = 4 << 20;

static PUBLISH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local now = redis.call('TIME')
        local deadline = tonumber(ARGV[1])
        if deadline > 0 and tonumber(now[1]) > deadline then
            return redis.error_reply('STALE the caller waited too long')
        end
        local done = {}
        for i = 2, #ARGV, 4 do
            local fresh = redis.call('HSETNX', KEYS[1], ARGV[i + 2], now[1])
            if fresh == 1 then
                local answer = redis.pcall(ARGV[i], ARGV[i + 1], ARGV[i + 3])
                if type(answer) == 'table' and answer['err'] then
                    redis.call('HDEL', KEYS[1], ARGV[i + 2])
                    if not string.find(answer['err'], 'WRONGTYPE', 1, true) then return answer end
                    fresh = 2
                end
            end
            done[#done + 1] = fresh
        end
        return done
        ",
    )
});

impl Broker {
    /// Publishes in order. With a `deadline` (by Redis's clock) nothing is pushed later than that. A list that must not be pushed to
    /// affects only its own messages.
    ///
    /// # Errors
    /// Errors of Redis; the outcomes of earlier chunks are then lost, but not their markers.
    pub async fn publish(&self, batch: &[Push], deadline: Option<Time>) -> Result<Vec<Pushed>, Error> {
        let mut outcomes = Vec::with_capacity(batch.len());
        for chunk in chunks(batch) {
            outcomes.extend(self.publish_chunk(chunk, deadline).await?);
        }
        Ok(outcomes)
    }

    async fn publish_chunk(&self, chunk: &[Push], deadline: Option<Time>) -> Result<Vec<Pushed>, Error> {
        let mut call = PUBLISH.key(self.keys.markers());
        call.arg(deadline.map_or(0, |at| at.as_micros() / 1_000_000));
        let refused: Vec<Option<String>> = chunk.iter().map(|push| self.refusal(&push.target)).collect();
        let mut sent = 0;
        for (push, _) in chunk.iter().zip(&refused).filter(|(_, refused)| refused.is_none()) {
            match &push.target {
                Target::Queue(queue, priority) => call.arg("LPUSH").arg(self.keys.queue(queue.as_str(), *priority)),
                Target::Fanout { exchange, routing_key } => {
                    call.arg("PUBLISH").arg(self.keys.fanout(exchange, routing_key))
                }
            };
            call.arg(&push.tag).arg(push.envelope.as_slice());
            sent += 1;
        }
        let answers: Vec<i64> = if sent == 0 { Vec::new() } else { self.link.script(&call).await? };
        if answers.len() != sent {
            return Err(Error::Unexpected(format!("{} outcomes for {sent} messages", answers.len())));
        }
        let mut answers = answers.into_iter();
        let outcome = |(push, refused): (&Push, Option<String>)| match refused {
            Some(why) => Pushed::Refused(why),
            None => self.outcome(push, answers.next().unwrap_or_default()),
        };
        Ok(chunk.iter().zip(refused).map(outcome).collect())
    }

    /// Why messages of this priority must not be published to this queue now; `None` when they may.
    pub fn refuses(&self, queue: &QueueName, priority: Priority) -> Option<String> {
        self.refusals.of(&self.keys, queue, priority)
    }

    fn refusal(&self, target: &Target) -> Option<String> {
        match target {
            Target::Queue(queue, priority) => self.refuses(queue, *priority),
            Target::Fanout { .. } => None,
        }
    }

    fn outcome(&self, push: &Push, answer: i64) -> Pushed {
        match (answer, &push.target) {
            (1, _) => Pushed::Now,
            (WRONG_TYPE, Target::Queue(queue, priority)) => {
                Pushed::Refused(self.refusals.note(&self.keys.queue(queue.as_str(), *priority)))
            }
            _ => Pushed::Before,
        }
    }

    /// Removes markers of deliveries whose publication the ledger has recorded.
    pub async fn forget_markers(&self, tags: &[String]) -> Result<(), Error> {
        if tags.is_empty() {
            return Ok(());
        }
        self.link.call(redis::cmd("HDEL").arg(self.keys.markers()).arg(tags)).await
    }

    /// Forbids a delivery for as long as the marker lives. `false` when it was published before.
    pub async fn forbid(&self, tag: &str, now: Time) -> Result<bool, Error> {
        let mut command = redis::cmd("HSETNX");
        command.arg(self.keys.markers()).arg(tag).arg(now.as_micros() / 1_000_000);
        Ok(self.link.call::<u8>(&command).await? == 1)
    }

    /// Removes up to `limit` markers older than `age`, which a crash left behind. Returns how many.
    pub async fn sweep_markers(&self, now: Time, age: Duration, limit: usize) -> Result<usize, Error> {
        let oldest = now.minus(age).as_micros() / 1_000_000;
        let mut cursor = 0_u64;
        let mut stale: Vec<String> = Vec::new();
        loop {
            let mut command = redis::cmd("HSCAN");
            command.arg(self.keys.markers()).arg(cursor).arg("COUNT").arg(1000);
            let (next, fields): (u64, Vec<(String, i64)>) = self.link.call(&command).await?;
            stale.extend(fields.into_iter().filter(|(_, at)| *at < oldest).map(|(tag, _)| tag));
            cursor = next;
            if cursor == 0 || stale.len() >= limit {
                break;
            }
        }
        self.forget_markers(&stale).await?;
        Ok(stale.len())
    }
}

fn chunks(batch: &[Push]) -> impl Iterator<Item = &[Push]> {
    let mut rest = batch;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let fits = rest.iter().take(MAX_MESSAGES).take_while(|push| {
            let first = bytes == 0;
            bytes += push.envelope.len();
            first || bytes <= MAX_BYTES
        });
        let (chunk, tail) = rest.split_at(fits.count());
        rest = tail;
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(bytes: usize) -> Push {
        let queue = QueueName::parse("celery").unwrap();
        Push { target: Target::Queue(queue, Priority::default()), tag: String::new(), envelope: vec![0; bytes] }
    }

    #[test]
    fn a_call_is_bounded_in_messages_and_bytes_but_takes_one_of_any_size() {
        let sizes = |batch: &[Push]| chunks(batch).map(<[Push]>::len).collect::<Vec<_>>();
        assert_eq!(sizes(&vec![push(10); 2_001]), [1_000, 1_000, 1]);
        assert_eq!(sizes(&vec![push(3 << 20); 3]), [1, 1, 1]);
        assert_eq!(sizes(&[push(20 << 20), push(1)]), [1, 1]);
    }
}
