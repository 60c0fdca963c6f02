//! A number in Redis that is incremented every second: if it is missing or lower than before, Redis has lost data. And a name for the
//! incarnation of its data, which ends with such a loss: the same name before and after proves that nothing was lost in between.

use std::sync::LazyLock;

use redis::Script;

use super::{Broker, Error};

/// KEYS: the number. ARGV: what it should be, what it becomes. A newer one is another replica's, and stays: a process that was
/// paused must not restore an old one.
static ADVANCE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local function time(number) return tonumber(string.match(number, ':(%d+)$')) end
        local found = redis.call('GET', KEYS[1])
        if (ARGV[1] ~= '' and found ~= ARGV[1]) or not found then
            local there, next = found and time(found), time(ARGV[2])
            if not (there and next and there > next) then redis.call('SET', KEYS[1], ARGV[2]) end
            return found or ''
        end
        redis.call('SET', KEYS[1], ARGV[2])
        return 'kept'
        ",
    )
});

/// The state of the number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Epoch {
    /// As expected.
    Kept,
    /// Missing: Redis was emptied, or restarted empty.
    Gone,
    /// Another value than expected: an older copy of the data was restored, or, if it is newer, another process incremented it.
    Other(String),
}

impl Broker {
    /// The name of the present incarnation of Redis's data; `new` becomes the name if it has none yet. A Redis that refuses writes
    /// tells the name all the same, if it has one.
    pub async fn life(&self, new: &str) -> Result<String, Error> {
        let key = self.keys.prefixed("taskgate.life");
        if let Some(found) = self.link.call::<Option<String>>(redis::cmd("GET").arg(&key)).await? {
            return Ok(found);
        }
        let mut pipeline = redis::pipe();
        pipeline.cmd("SET").arg(&key).arg(new).arg("NX").ignore();
        pipeline.cmd("GET").arg(&key);
        let (found,): (Option<String>,) = self.link.pipeline(&pipeline).await?;
        found.ok_or_else(|| Error::Unexpected("Redis was emptied just now".to_owned()))
    }

    /// The id of the server's process, which a restart or another node changes. `None` if the server does not tell it.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn process(&self) -> Result<Option<String>, Error> {
        let info: String = self.link.call(redis::cmd("INFO").arg("server")).await?;
        Ok(info.lines().find_map(|line| line.strip_prefix("run_id:")).map(ToOwned::to_owned))
    }

    /// Ends an incarnation that came back with an older copy of the data.
    pub async fn end_life(&self) -> Result<(), Error> {
        self.link.call(redis::cmd("DEL").arg(self.keys.prefixed("taskgate.life"))).await
    }

    /// Stores in Redis when data was lost, for the next sweeper.
    pub async fn note_loss(&self, loss: &str) -> Result<(), Error> {
        self.link.call(redis::cmd("SET").arg(self.keys.prefixed("taskgate.lost")).arg(loss)).await
    }

    /// The last stored loss, unless the data was lost again since.
    pub async fn last_loss(&self) -> Result<Option<String>, Error> {
        self.link.call(redis::cmd("GET").arg(self.keys.prefixed("taskgate.lost"))).await
    }

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
