//! A rate limit: how many requests a token may make in which time.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::value::Scalar;
use celery::task::limit::number_and_unit;

/// `"100/s"`, `"1000/m"`, `"5000/h"`, or a number for each second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Scalar")]
pub struct Quota {
    /// At least 1; a burst of this many is allowed.
    pub requests: u64,
    /// A whole number of seconds, at least 1.
    pub window: Duration,
}

/// Requests per second. A higher limit would limit nothing, and the interval would be less than a microsecond.
const MOST: f64 = 1e6;

impl Quota {
    /// # Errors
    /// When the text is not a rate, or is less than one request in a hundred hours, or more than a million in a second.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is not a rate: write 100/s, 1000/m or 5000/h");
        let known = number_and_unit(text).filter(|(_, seconds)| *seconds <= 3_600.0);
        let (number, seconds) = known.ok_or_else(refused)?;
        if !(0.01..=MOST * seconds).contains(&number) {
            return Err(refused());
        }
        // Less than one request per unit becomes one request in a longer time; other fractions are rounded down.
        let (requests, seconds) =
            if number < 1.0 { (1.0, (seconds / number).ceil()) } else { (number.floor(), seconds) };
        Ok(Self { requests: requests as u64, window: Duration::from_secs(seconds as u64) })
    }

    /// The interval between two requests that use the rate exactly.
    pub fn interval(&self) -> Duration {
        let micros = self.window.as_micros() / u128::from(self.requests);
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX).max(1))
    }
}

impl TryFrom<Scalar> for Quota {
    type Error = String;

    fn try_from(scalar: Scalar) -> Result<Self, String> {
        Self::parse(&scalar.to_string())
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {} s", self.requests, self.window.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_nonsense_is_refused() {
        let read = |text| Quota::parse(text).map(|quota| (quota.requests, quota.window.as_secs()));
        assert_eq!(read("100/s"), Ok((100, 1)));
        assert_eq!(read("20"), Ok((20, 1)));
        assert_eq!(read("5000/h"), Ok((5000, 3600)));
        assert_eq!(read("0.5/m"), Ok((1, 120)));
        for text in ["", "/s", "0/m", "-1/s", "5/d", "inf", "nan/s", "1e9/s", "many"] {
            assert!(Quota::parse(text).is_err(), "{text}");
        }
        assert_eq!(Quota::parse("100/m").unwrap().interval(), Duration::from_millis(600));
        assert_eq!(Quota::parse("1000000/s").unwrap().interval(), Duration::from_micros(1));
    }
}
