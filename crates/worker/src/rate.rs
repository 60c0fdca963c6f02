//! Rate limits of tasks: a token bucket with one token per task and worker, as in Celery.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use celery::task::TaskName;

/// Starts per time.
#[derive(Debug, Clone, PartialEq)]
pub struct Rate {
    per_second: f64,
    /// The rate as given.
    text: Arc<str>,
}

impl Rate {
    /// `"10/s"`, `"100/m"`, `"2/h"`, or a number per second. `Ok(None)` for no limit: zero and the empty text.
    ///
    /// # Errors
    /// The text, when it is not a rate.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let wrong = || format!("invalid rate limit: {text:?}");
        let (number, unit) = text.trim().split_once('/').unwrap_or((text.trim(), "s"));
        let seconds = match unit {
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        if number.is_empty() {
            return Ok(None);
        }
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        if !number.is_finite() || number < 0.0 {
            return Err(wrong());
        }
        Ok((number > 0.0).then_some(Self { per_second: number / seconds, text: text.trim().into() }))
    }

    pub(crate) fn interval(&self) -> Duration {
        Duration::try_from_secs_f64(1.0 / self.per_second).unwrap_or(Duration::MAX)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The buckets of one worker.
#[derive(Debug, Default)]
pub(crate) struct RateLimiter {
    buckets: HashMap<TaskName, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    /// When the next token is available.
    next: Option<Instant>,
}

impl RateLimiter {
    /// Sets the limit; `None` removes it.
    pub fn set(&mut self, task: TaskName, rate: Option<Rate>) {
        match rate {
            Some(rate) => drop(self.buckets.insert(task, Bucket { rate, next: None })),
            None => drop(self.buckets.remove(&task)),
        }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// The time of the next token, when there is none.
    pub fn take(&mut self, task: &TaskName, now: Instant) -> Result<(), Instant> {
        let Some(bucket) = self.buckets.get_mut(task) else { return Ok(()) };
        match bucket.next {
            Some(next) if next > now => Err(next),
            _ => {
                bucket.next = now.checked_add(bucket.rate.interval());
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_celery_reads_them() {
        let interval = |text| Rate::parse(text).unwrap().map(|rate| rate.interval());
        assert_eq!(interval("10/s"), Some(Duration::from_millis(100)));
        assert_eq!(interval("100/m"), Some(Duration::from_millis(600)));
        assert_eq!(interval("1/h"), Some(Duration::from_secs(3600)));
        assert_eq!(interval("4"), Some(Duration::from_millis(250)));
        assert_eq!(interval("0"), None);
        assert!(Rate::parse("10/d").is_err());
        assert!(Rate::parse("fast").is_err());
        assert!(Rate::parse("-1/s").is_err());
    }

    #[test]
    fn a_bucket_holds_one_token() {
        let task = TaskName::parse("t").unwrap();
        let mut limiter = RateLimiter::default();
        let start = Instant::now();
        assert_eq!(limiter.take(&task, start), Ok(()));
        limiter.set(task.clone(), Rate::parse("10/s").unwrap());
        assert_eq!(limiter.take(&task, start), Ok(()));
        let next = start + Duration::from_millis(100);
        assert_eq!(limiter.take(&task, start), Err(next));
        assert_eq!(limiter.take(&task, next), Ok(()));
        limiter.set(task.clone(), None);
        assert_eq!(limiter.take(&task, next), Ok(()));
    }
}
