//! Restores messages that dead workers had reserved, like every Celery worker: one worker at a time, under kombu's lock.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;
use serde_json::value::RawValue;

use super::{Broker, Error, Reservation};
use celery::task::Priority;
use celery::{Envelope, json, redelivered};
use runtime::clock::{self, Time};

/// kombu's own timeout of the lock.
const LOCK_MS: u64 = 300_000;
/// Maximum number of reservations restored in one pass; the next pass continues.
const MAX_PER_PASS: usize = 1_000;

static UNLOCK: LazyLock<Script> = LazyLock::new(|| {
    Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0")
});

/// KEYS: unacked, index, list. ARGV: tag, score as seen, message. A newer reservation has another score. Redis does not roll back a failed
/// script, so the push comes first: if the queue's key is not a list, the message stays reserved.
static RESTORE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local score = redis.call('ZSCORE', KEYS[2], ARGV[1])
        if not score or tonumber(score) > tonumber(ARGV[2]) then return 0 end
        if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
            redis.call('ZREM', KEYS[2], ARGV[1])
            return 0
        end
        redis.call('RPUSH', KEYS[3], ARGV[3])
        redis.call('ZREM', KEYS[2], ARGV[1])
        redis.call('HDEL', KEYS[1], ARGV[1])
        return 1
        ",
    )
});

/// KEYS: unacked, index. ARGV: tag, score as seen.
static DISCARD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local score = redis.call('ZSCORE', KEYS[2], ARGV[1])
        if score and ARGV[2] ~= '' and tonumber(score) > tonumber(ARGV[2]) then return 0 end
        redis.call('ZREM', KEYS[2], ARGV[1])
        return redis.call('HDEL', KEYS[1], ARGV[1])
        ",
    )
});

impl Broker {
    /// Puts back a message that no worker has any more. `false` if it was reserved again since it was seen.
    pub async fn restore_reservation(&self, seen: &Reservation) -> Result<bool, Error> {
        self.restore_one(&seen.tag, &seen.score).await
    }

    /// Removes a message that no worker has any more. `false` if it was reserved again since it was seen.
    pub async fn discard_reservation(&self, seen: &Reservation) -> Result<bool, Error> {
        let mut call = DISCARD.key(self.keys.unacked());
        call.key(self.keys.unacked_index()).arg(&seen.tag).arg(&seen.score);
        self.link.script(&call).await
    }

    /// Puts back every message reserved longer ago than `visibility_timeout`. Returns how many; `None` when another worker has the lock.
    pub async fn restore(&self, visibility_timeout: Duration, now: Time) -> Result<Option<usize>, Error> {
        let token = clock::random_id().simple().to_string();
        let mut lock = redis::cmd("SET");
        lock.arg(self.keys.unacked_mutex()).arg(&token).arg("NX").arg("PX").arg(LOCK_MS);
        if self.link.call::<Option<String>>(&lock).await?.is_none() {
            return Ok(None);
        }
        let restored = self.restore_locked(now.minus(visibility_timeout)).await;
        let _: u8 = self.link.script(UNLOCK.key(self.keys.unacked_mutex()).arg(&token)).await?;
        restored.map(Some)
    }

    async fn restore_locked(&self, before: Time) -> Result<usize, Error> {
        let mut overdue = redis::cmd("ZRANGEBYSCORE");
        overdue.arg(self.keys.unacked_index()).arg("-inf").arg(before.as_unix_secs()).arg("WITHSCORES");
        overdue.arg("LIMIT").arg(0).arg(MAX_PER_PASS);
        let overdue: Vec<(String, String)> = self.link.call(&overdue).await?;
        let mut restored = 0;
        // Newest first: each message goes to the head of the queue, so the oldest is served first.
        for (tag, score) in overdue.iter().rev() {
            restored += usize::from(self.restore_one(tag, score).await?);
        }
        Ok(restored)
    }

    async fn restore_one(&self, tag: &str, score: &str) -> Result<bool, Error> {
        let mut get = redis::cmd("HGET");
        get.arg(self.keys.unacked()).arg(tag);
        let entry: Option<Vec<u8>> = self.link.call(&get).await?;
        let Some((message, list)) = entry.as_deref().and_then(|entry| self.reserved(entry)) else {
            // There is no message to put back: only its entry in the index is left.
            let mut forget = redis::cmd("ZREM");
            forget.arg(self.keys.unacked_index()).arg(tag);
            let _: u64 = self.link.call(&forget).await?;
            return Ok(false);
        };
        let mut call = RESTORE.key(self.keys.unacked());
        call.key(self.keys.unacked_index()).key(list).arg(tag).arg(score).arg(message);
        self.link.script(&call).await
    }

    /// The message in an entry `[envelope, exchange, routing_key]`, marked as redelivered, and the list it belongs to.
    fn reserved(&self, entry: &[u8]) -> Option<(Vec<u8>, String)> {
        let parts: Vec<&RawValue> = serde_json::from_slice(entry).ok()?;
        let [envelope, exchange, routing_key] = parts[..] else { return None };
        let queue = json::text(routing_key).filter(|key| !key.is_empty()).or_else(|| json::text(exchange))?;
        let raw = envelope.get().as_bytes();
        let priority = Envelope::decode(raw).map_or(0, |envelope| envelope.properties.priority);
        let list = self.keys.queue(&queue, Priority::clamped(priority.into()));
        Some((redelivered::mark(raw).unwrap_or_else(|| raw.to_vec()), list))
    }
}
