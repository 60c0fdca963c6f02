//! Rate limits for tokens over all replicas: requests are counted in Redis, or by each replica for itself while Redis does not
//! answer or the broker is not Redis.
//!
//! Invariants: no request waits longer than [`PATIENCE`] for Redis, and after a failure Redis is not asked for [`AWAY`]; memory is
//! bounded. A refused request is not counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::config::Quota;
use broker::Broker;

/// The longest that a request waits for Redis.
const PATIENCE: Duration = Duration::from_millis(250);
/// After Redis did not answer, requests are counted locally for this long.
const AWAY: Duration = Duration::from_secs(2);
/// How many tokens are counted locally. When there are more, those whose window is over are dropped, then all.
const MOST_LOCAL: usize = 10_000;

/// The verdict on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub quota: Quota,
    pub is_allowed: bool,
    /// Requests left right now.
    pub remaining: u64,
    /// Time until the whole quota is available again.
    pub reset: Duration,
    /// Time until one more request is allowed; zero while some remain.
    pub retry_after: Duration,
}

impl Verdict {
    /// `used`: the part of the window that is used up.
    fn new(quota: Quota, is_allowed: bool, used: Duration) -> Self {
        let (interval, free) = (quota.interval(), quota.window.saturating_sub(used));
        let remaining = u64::try_from(free.as_micros() / interval.as_micros()).unwrap_or(u64::MAX);
        let retry_after = if remaining > 0 { Duration::ZERO } else { interval.saturating_sub(free) };
        Self { quota, is_allowed, remaining: remaining.min(quota.requests), reset: used, retry_after }
    }
}

#[derive(Default)]
struct Local {
    /// Until when each token's window is used up.
    used: HashMap<String, Instant>,
    /// Redis is not asked before this time.
    away_until: Option<Instant>,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Throttle {
    broker: Broker,
    local: Arc<Mutex<Local>>,
}

impl Throttle {
    pub fn new(broker: Broker) -> Self {
        Self { broker, local: Arc::default() }
    }

    /// Counts one request of the token.
    pub async fn take(&self, token: &str, quota: Quota) -> Verdict {
        if let Some(lists) = self.broker.lists()
            && !self.is_away()
        {
            let asked = lists.take_one(token, quota.interval(), quota.window);
            match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok((is_allowed, used))) => return Verdict::new(quota, is_allowed, used),
                Ok(Err(error)) => self.note_away(&error.to_string()),
                Err(_) => self.note_away("no answer in time"),
            }
        }
        let mut local = self.local.lock().expect("nothing panics under this lock");
        local.take(token, quota, Instant::now())
    }

    fn is_away(&self) -> bool {
        let local = self.local.lock().expect("nothing panics under this lock");
        local.away_until.is_some_and(|until| Instant::now() < until)
    }

    fn note_away(&self, error: &str) {
        let before = {
            let mut local = self.local.lock().expect("nothing panics under this lock");
            local.away_until.replace(Instant::now() + AWAY)
        };
        if before.is_none_or(|until| until.elapsed() > AWAY) {
            warn!(error, "Redis does not count requests: each replica counts for itself");
        }
    }
}

impl Local {
    fn take(&mut self, token: &str, quota: Quota, now: Instant) -> Verdict {
        if self.used.len() >= MOST_LOCAL && !self.used.contains_key(token) {
            self.used.retain(|_, until| *until > now);
            if self.used.len() >= MOST_LOCAL {
                self.used.clear();
            }
        }
        let until = self.used.get(token).copied().filter(|until| *until > now).unwrap_or(now);
        let used = (until - now).min(quota.window);
        let next = used + quota.interval();
        if next > quota.window {
            return Verdict::new(quota, false, used);
        }
        self.used.insert(token.to_owned(), now + next);
        Verdict::new(quota, true, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_may_be_used_at_once_and_comes_back_evenly() {
        let (mut local, quota, start) = (Local::default(), Quota::parse("60/m").unwrap(), Instant::now());
        for left in (0..60).rev() {
            let verdict = local.take("a", quota, start);
            assert_eq!((verdict.is_allowed, verdict.remaining), (true, left));
        }
        let refused = local.take("a", quota, start);
        assert_eq!((refused.is_allowed, refused.remaining, refused.reset), (false, 0, Duration::from_secs(60)));
        assert_eq!(refused.retry_after, Duration::from_secs(1));
        assert!(local.take("b", quota, start).is_allowed, "each token has its own");
        let later = start + Duration::from_millis(1_500);
        assert!(local.take("a", quota, later).is_allowed);
        let refused = local.take("a", quota, later);
        assert_eq!((refused.is_allowed, refused.retry_after), (false, Duration::from_millis(500)));
    }

    #[test]
    fn over_a_long_time_no_more_pass_than_the_rate_says() {
        let (mut local, quota, start) = (Local::default(), Quota::parse("10/s").unwrap(), Instant::now());
        let passed = (0..10_000).filter(|ms| local.take("a", quota, start + Duration::from_millis(*ms)).is_allowed);
        let passed = passed.count();
        assert!((105..=110).contains(&passed), "{passed}: ten at once, and ten for each of ten seconds");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut local, quota, start) = (Local::default(), Quota::parse("1/h").unwrap(), Instant::now());
        for n in 0..MOST_LOCAL + 5 {
            local.take(&n.to_string(), quota, start);
        }
        assert!(local.used.len() <= MOST_LOCAL);
    }
}
