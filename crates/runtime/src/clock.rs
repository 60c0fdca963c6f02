//! The current time and new ids: all impure values come from here, so that other code can get them as arguments.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// Microseconds since 1970, UTC: what the ledger stores and the API prints as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

impl Time {
    pub fn from_unix_secs(secs: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a float of seconds fits for 290,000 years; beyond it saturates"
        )]
        Self((secs * 1e6).round() as i64)
    }

    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// Unix seconds, as Celery and kombu write them.
    pub fn as_unix_secs(self) -> f64 {
        let micros = self.0 as f64;
        micros / 1e6
    }

    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 in UTC with microseconds, such as `2026-11-20T18:17:30.698350Z`.
    pub fn rfc3339(self) -> String {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(at) => format!("{at:.6}"),
            Err(_) => "9999-12-30T22:00:00.000000Z".to_owned(),
        }
    }

    /// # Errors
    /// When the text is not an RFC 3339 time with an offset.
    pub fn parse_rfc3339(text: &str) -> Result<Self, jiff::Error> {
        text.parse::<jiff::Timestamp>().map(|at| Self(at.as_microsecond()))
    }
}

impl serde::Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.rfc3339())
    }
}

/// Reads the system's clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// A `UUIDv7`: sorted by time of creation, so that indexes grow at one end.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}

/// Sixteen random bytes, for single-use secrets (reply queues, tickets).
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn random_id() -> Uuid {
    Uuid::new_v4()
}

/// 256 cryptographically secure random bits, for tokens and tickets.
pub fn secret() -> [u8; 32] {
    rand::random()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_microseconds_so_that_text_sorts_like_time() {
        assert_eq!(Time(1_763_662_650_698_350).rfc3339(), "2025-11-20T18:17:30.698350Z");
        assert_eq!(Time(0).rfc3339(), "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn a_time_reads_back() {
        let at = Time(1_763_662_650_698_350);
        assert_eq!(Time::parse_rfc3339(&at.rfc3339()).unwrap(), at);
        assert_eq!(Time::parse_rfc3339("2025-11-21T03:17:30.69835+09:00").unwrap(), at);
    }
}
