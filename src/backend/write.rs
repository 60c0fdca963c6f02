//! Writes records as Celery's backend does: stored and published in one step, and never over a SUCCESS.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use super::{Backend, Error};

/// What may be in the way of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unless {
    /// A SUCCESS stays.
    Succeeded,
    /// Every record stays but RECEIVED, RETRY and REJECTED: how a revoke is noted for a task that nobody seems to run.
    Known,
}

/// KEYS: the record. ARGV: record, seconds to live (0: for ever), 1 to write only over a waiting state.
/// The state is read from where all writers put it, the first member; else the record is parsed.
static STORE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
        local old = redis.call('GET', KEYS[1])
        if old then
            local status = string.match(old, '^%s*{%s*"status"%s*:%s*"([^"]*)"')
            if not status then
                local ok, record = pcall(cjson.decode, old)
                if ok and type(record) == 'table' then status = record['status'] end
            end
            if status == 'SUCCESS' then return 0 end
            if ARGV[3] == '1' and status ~= 'RECEIVED' and status ~= 'RETRY' and status ~= 'REJECTED' then return 0 end
        end
        if tonumber(ARGV[2]) > 0 then
            redis.call('SETEX', KEYS[1], ARGV[2], ARGV[1])
        else
            redis.call('SET', KEYS[1], ARGV[1])
        end
        redis.call('PUBLISH', KEYS[1], ARGV[1])
        return 1
        "#,
    )
});

impl Backend {
    /// Stores and publishes a task's record. `expires` of zero keeps it for ever. `false` when what was there stays.
    ///
    /// May be repeated: the same record is then published once more.
    pub async fn store(&self, task_id: &str, record: &str, expires: Duration, unless: Unless) -> Result<bool, Error> {
        let mut call = STORE.key(self.task_key(task_id));
        call.arg(record).arg(expires.as_secs()).arg(u8::from(unless == Unless::Known));
        Ok(self.link.script::<u8>(&call).await? == 1)
    }
}
