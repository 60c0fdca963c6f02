//! Rate limiter for all replicas together (GCRA: one number per key, the time until which the quota is used up).
//!
//! It uses Redis's clock, so replicas with different clocks agree. A loss of Redis's data loses at most one window of counting.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use super::{Broker, Error};

static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local now = time[1] * 1000000 + time[2]
        local interval, window = tonumber(ARGV[1]), tonumber(ARGV[2])
        local used = tonumber(redis.call('GET', KEYS[1]) or '0') or 0
        -- A clock that went back does not lock anybody out for longer than a window.
        if used < now then used = now elseif used > now + window then used = now + window end
        if used + interval > now + window then
            return {0, used - now}
        end
        used = used + interval
        redis.call('SET', KEYS[1], string.format('%.0f', used), 'PX', math.ceil((used - now) / 1000) + 1000)
        return {1, used - now}
        ",
    )
});

impl Broker {
    /// Takes one request of `window / interval`. Returns whether it is allowed, and how much of the window is used up.
    pub async fn take_one(&self, key: &str, interval: Duration, window: Duration) -> Result<(bool, Duration), Error> {
        let key = self.keys.prefixed(&format!("taskgate.requests.{key}"));
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let mut call = TAKE.key(key);
        call.arg(micros(interval)).arg(micros(window));
        let (taken, used): (u8, i64) = self.link.script(&call).await?;
        Ok((taken == 1, Duration::from_micros(u64::try_from(used).unwrap_or(0))))
    }
}
