//! Checks whether Redis takes the gateway's writes: a replica, a full server and a user without rights still answer PING.
//!
//! The probe leaves nothing behind: it writes a marker that it removes at once, and uses commands that change nothing. Missing rights to
//! a command that only the probe needs do not matter, so for those only rights to keys count.

use super::{Broker, Error};
use crate::backend::Backend;

/// No delivery has this tag.
const TAG: &str = "taskgate.probe";

/// What a server does when its memory is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Bytes; zero means no limit.
    pub limit: u64,
    /// The value of `maxmemory-policy`.
    pub policy: String,
}

impl Memory {
    fn parse(info: &str) -> Option<Self> {
        let field = |name: &str| info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
        Some(Self { limit: field("maxmemory")?.parse().ok()?, policy: field("maxmemory_policy")?.to_owned() })
    }

    /// Whether messages, markers or results may be evicted silently.
    pub fn evicts(&self) -> bool {
        self.limit > 0 && self.policy != "noeviction"
    }

    /// The problem, and the command that solves it.
    pub fn told(&self) -> String {
        let victims = if self.policy.starts_with("volatile") {
            "results and the markers that keep a message from being published twice"
        } else {
            "queued messages, results and markers"
        };
        format!(
            "maxmemory-policy is {}: when Redis is full it drops {victims} without a word; run `redis-cli CONFIG SET \
             maxmemory-policy noeviction`, and write it into redis.conf",
            self.policy
        )
    }
}

impl Broker {
    /// Writes like a publication to `queue`, but leaves nothing behind.
    ///
    /// # Errors
    /// What prevents messages from being published.
    pub async fn writable(&self, queue: &str) -> Result<(), Error> {
        let markers = self.keys().markers();
        // Commands are sent one by one, because the error of a pipeline does not contain its code.
        self.link().call::<i64>(redis::cmd("HSETNX").arg(&markers).arg(TAG).arg(0)).await?;
        self.link().call::<i64>(redis::cmd("HDEL").arg(&markers).arg(TAG)).await?;
        // Has no effect on a key that never expires.
        let key = self.keys().prefixed(queue);
        forgive_command(self.link().call::<i64>(redis::cmd("PERSIST").arg(key)).await)
    }

    /// `None` when the server does not report it.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn memory(&self) -> Result<Option<Memory>, Error> {
        let info: String = self.link().call(redis::cmd("INFO").arg("memory")).await?;
        Ok(Memory::parse(&info))
    }
}

impl Backend {
    /// Writes to a record's key, without effect.
    ///
    /// # Errors
    /// What prevents results from being written.
    pub async fn writable(&self) -> Result<(), Error> {
        // Writing nothing to a missing key does not create it.
        let key = self.task_key(TAG);
        forgive_command(self.link().call::<i64>(redis::cmd("SETRANGE").arg(key).arg(0).arg("")).await)
    }

    /// As [`Broker::memory`].
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn memory(&self) -> Result<Option<Memory>, Error> {
        let info: String = self.link().call(redis::cmd("INFO").arg("memory")).await?;
        Ok(Memory::parse(&info))
    }
}

/// Ignores `NOPERM this user has no permissions to run the 'persist' command`; missing rights to keys have another text.
fn forgive_command(outcome: Result<i64, Error>) -> Result<(), Error> {
    match outcome {
        Err(Error::Redis(error))
            if error.code() == Some("NOPERM") && error.detail().is_some_and(|text| text.contains("command")) =>
        {
            Ok(())
        }
        outcome => outcome.map(|_| ()),
    }
}

impl Error {
    /// The server's own error, and if known a command that shows more or helps.
    pub fn told(&self) -> String {
        let Self::Redis(error) = self else { return self.to_string() };
        match error.code().and_then(remedy) {
            Some(remedy) => format!("{error}; {remedy}"),
            None => error.to_string(),
        }
    }
}

fn remedy(code: &str) -> Option<&'static str> {
    match code {
        "READONLY" => Some(
            "it is a replica: `redis-cli INFO replication` there names its master; use that address, or a sentinel:// URL \
             that follows it",
        ),
        "OOM" => {
            Some("it is full: see `redis-cli INFO memory`, and give it more with `redis-cli CONFIG SET maxmemory 2gb`")
        }
        "NOPERM" => Some(
            "its user lacks rights: see `redis-cli ACL GETUSER NAME`, and grant them with `redis-cli ACL SETUSER NAME ~* &* \
             +@all -@admin` (with a key prefix: ~PREFIX*)",
        ),
        "MISCONF" => {
            Some("it cannot save to its disk and refuses writes: see its log, and `redis-cli INFO persistence`")
        }
        "NOAUTH" | "WRONGPASS" => Some("user and password stand in the URL: redis://USER:PASSWORD@HOST:PORT/DB"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(limit: u64, policy: &str) -> Memory {
        let info = format!("# Memory\r\nused_memory:1\r\nmaxmemory:{limit}\r\nmaxmemory_policy:{policy}\r\n");
        Memory::parse(&info).unwrap()
    }

    #[test]
    fn a_limit_without_noeviction_drops_messages() {
        assert!(!memory(0, "allkeys-lru").evicts());
        assert!(!memory(1_000, "noeviction").evicts());
        assert!(memory(1_000, "allkeys-lru").evicts());
        assert!(memory(1_000, "allkeys-lru").told().contains("queued messages"));
        assert!(memory(1_000, "volatile-ttl").told().contains("markers"));
        assert_eq!(Memory::parse("# Memory\r\n"), None);
    }
}
