//! A number in Redis that advances every second: when it is gone or has gone back, Redis lost data.

use std::sync::LazyLock;

use redis::Script;

use super::{Broker, Error};

static ADVANCE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local found = redis.call('GET', KEYS[1])
        if (ARGV[1] ~= '' and found ~= ARGV[1]) or not found then
            redis.call('SET', KEYS[1], ARGV[2])
            return found or ''
        end
        redis.call('SET', KEYS[1], ARGV[2])
        return 'kept'
        ",
    )
});

/// What the number said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Epoch {
    /// As it was left.
    Kept,
    /// Gone: emptied, or restarted empty.
    Gone,
    /// Another one than was left: an older copy of the data was restored, or somebody else advanced it.
    Other(String),
}

impl Broker {
    /// Replaces `expected` by `next`, in one step. With an empty `expected` only
    /// sets it, and answers whether it was there.
    pub async fn advance_epoch(&self, expected: &str, next: &str) -> Result<Epoch, Error> {
        let key = self.keys.prefixed("taskgate.epoch");
        let found: String = self.link.script(ADVANCE.key(key).arg(expected).arg(next)).await?;
        Ok(match found.as_str() {
            "kept" => Epoch::Kept,
            "" => Epoch::Gone,
            _ => Epoch::Other(found),
        })
    }
}
