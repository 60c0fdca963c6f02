//! Limits and shares by key, as clients write them: `limits: [{key, max, rate, on_limit}]` and `fair: {key, weight}`.
//!
//! A limit says how many tasks of a key may be under way (`max`), how many may start in which time (`rate`), or both.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::invalid::Problems;
use super::json::Fields;
use super::submission::{list, member};

/// Maximum number of limits of one task.
pub const MOST_LIMITS: usize = 16;
/// Maximum of `max`.
const MOST: i64 = 1_000_000;
/// Maximum weight of a key.
pub const MOST_WEIGHT: u32 = 1_000;

/// One limit of a task. It has a `max`, a `rate`, or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyLimit {
    pub key: String,
    /// How many tasks of the key may be under way at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// How many may start in which time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    #[serde(default, skip_serializing_if = "OnLimit::is_hold")]
    pub on_limit: OnLimit,
}

impl KeyLimit {
    /// A limit of `max` tasks under way; others wait.
    pub fn at_most(key: &str, max: u32) -> Self {
        Self { key: key.to_owned(), max: Some(max), rate: None, on_limit: OnLimit::Hold }
    }

    /// Combines two limits: the stricter `max` and the stricter `rate`.
    #[must_use]
    pub fn and(self, other: &Self) -> Self {
        let max = [self.max, other.max].into_iter().flatten().min();
        let rate = [self.rate, other.rate.clone()].into_iter().flatten().max_by_key(Rate::interval_micros);
        Self { key: self.key, max, rate, on_limit: self.on_limit.max(other.on_limit) }
    }
}

/// What happens to a task that may not start yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnLimit {
    /// The task waits for its turn.
    #[default]
    Hold,
    /// The task waits, and tasks of the key that waited before it are revoked.
    DropOldest,
    /// The task is refused.
    Reject,
}

impl OnLimit {
    pub fn is_hold(&self) -> bool {
        *self == Self::Hold
    }

    /// # Errors
    /// When it is not one of the three words.
    pub fn parse(word: &str) -> Result<Self, String> {
        match word {
            "hold" => Ok(Self::Hold),
            "reject" => Ok(Self::Reject),
            "drop-oldest" => Ok(Self::DropOldest),
            other => Err(format!("{other:?} is not hold, reject or drop-oldest")),
        }
    }
}

/// The number and the seconds of `10/s`, `1/m`, `1000/h` or `5/d`. A plain number is per second.
pub fn number_and_unit(text: &str) -> Option<(f64, f64)> {
    let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
    let seconds = match unit.trim() {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Some((number.trim().parse().ok()?, seconds))
}

/// A rate such as `10/s`, `1/m`, `1000/h`, `5/d`. The starts are spaced evenly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    text: String,
    interval: i64,
}

impl Rate {
    /// # Errors
    /// When the text is not a rate, or is more than a million per second or less than one in a hundred days.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is not a rate: write 10/s, 1/m, 1000/h or 5/d");
        let (number, seconds) = number_and_unit(text).ok_or_else(refused)?;
        let micros = seconds * 1e6 / number;
        if !number.is_finite() || !(1.0..=8.64e12).contains(&micros) {
            return Err(refused());
        }
        #[expect(clippy::cast_possible_truncation, reason = "inside the range above")]
        Ok(Self { text: text.to_owned(), interval: micros.ceil() as i64 })
    }

    /// The text of a rate with this interval between two starts, in microseconds.
    pub fn of_interval(micros: i64) -> String {
        let units = [(1_000_000, "s"), (60_000_000, "m"), (3_600_000_000, "h"), (86_400_000_000, "d")];
        let count = |unit: i64| (unit + micros / 2) / micros.max(1);
        let is_whole = |unit: i64| count(unit) > 0 && (unit + count(unit) - 1) / count(unit) == micros;
        match units.into_iter().find(|(unit, _)| is_whole(*unit)) {
            Some((unit, name)) => format!("{}/{name}", count(unit)),
            None => format!("1 in {} s", micros / 1_000_000),
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The shortest interval between two starts.
    pub fn interval_micros(&self) -> i64 {
        self.interval
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Which tenant a task belongs to, among those that share a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fair {
    pub key: String,
    /// A key of weight 2 gets twice the share of a key of weight 1. Default 1.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// Reads `limits` of a document; `usual` is the document's `on_limit`, for limits that have none of their own.
pub fn key_limits(problems: &mut Problems, value: &RawValue, usual: OnLimit) -> Option<Vec<KeyLimit>> {
    list(problems, value, MOST_LIMITS, |problems, value| {
        let fields = problems.object(value)?;
        problems.refuse_unknown(&fields, &["key", "max", "rate", "on_limit"]);
        let key = required_key(problems, &fields);
        let max = max_of(problems, &fields);
        let rate = rate_of(problems, &fields);
        if fields.get("max").is_none() && fields.get("rate").is_none() {
            problems.add_at("max", "is required, or rate, or both");
        }
        let on_limit = on_limit(problems, &fields).unwrap_or(usual);
        Some(KeyLimit { key: key?, max, rate, on_limit })
    })
}

/// Reads `max`, if present.
pub fn max_of(problems: &mut Problems, fields: &Fields<'_>) -> Option<u32> {
    let max = member(problems, fields, "max", |problems, value| problems.integer(value, 1..=MOST))?;
    u32::try_from(max).ok()
}

/// Reads `rate`, if present.
pub fn rate_of(problems: &mut Problems, fields: &Fields<'_>) -> Option<Rate> {
    member(problems, fields, "rate", |problems, value| problems.parsed(value, |text| Rate::parse(&text)))
}

/// Reads `on_limit`, if present.
pub fn on_limit(problems: &mut Problems, fields: &Fields<'_>) -> Option<OnLimit> {
    member(problems, fields, "on_limit", |problems, value| problems.parsed(value, |word| OnLimit::parse(&word)))
}

/// Reads `fair: {key, weight}`.
pub fn fair(problems: &mut Problems, value: &RawValue) -> Option<Fair> {
    let fields = problems.object(value)?;
    problems.refuse_unknown(&fields, &["key", "weight"]);
    let key = required_key(problems, &fields);
    let weight = member(problems, &fields, "weight", |problems, value| {
        problems.integer(value, 1..=i64::from(MOST_WEIGHT)).and_then(|weight| u32::try_from(weight).ok())
    });
    Some(Fair { key: key?, weight: weight.unwrap_or(1) })
}

/// Reads `key`: 1 to 255 characters, none of them a control character.
pub fn required_key(problems: &mut Problems, fields: &Fields<'_>) -> Option<String> {
    if fields.get("key").is_none() {
        problems.add_at("key", "is required");
    }
    member(problems, fields, "key", |problems, value| {
        let key = problems.text(value)?;
        let valid = is_key(&key);
        if !valid {
            problems.add("must have 1 to 255 characters and no control characters");
        }
        valid.then_some(key)
    })
}

/// Whether a text may be a key.
pub fn is_key(text: &str) -> bool {
    (1..=255).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_time_between_two_starts() {
        let interval = |text| Rate::parse(text).map(|rate| rate.interval_micros());
        assert_eq!(interval("1/m"), Ok(60_000_000));
        assert_eq!(interval("100/m"), Ok(600_000));
        assert_eq!(interval("20"), Ok(50_000));
        assert_eq!(interval("3/s"), Ok(333_334), "never more than the rate");
        assert_eq!(interval("2/d"), Ok(43_200_000_000));
        for text in ["", "0/m", "-1/s", "1/w", "inf/s", "nan/s", "1e9/s", "1e-9/d", "many"] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_interval_is_told_as_the_rate_that_it_came_from() {
        for text in ["1/m", "100/m", "3/s", "7/s", "1000/h", "2/d", "1/d", "300/s"] {
            assert_eq!(Rate::of_interval(Rate::parse(text).unwrap().interval_micros()), text);
        }
        assert_eq!(Rate::of_interval(7 * 86_400_000_000), "1 in 604800 s");
    }

    #[test]
    fn of_two_limits_of_one_key_the_stricter_holds() {
        let limit = |max, rate: &str| KeyLimit { rate: Rate::parse(rate).ok(), ..KeyLimit::at_most("k", max) };
        let both = limit(3, "10/s").and(&KeyLimit { on_limit: OnLimit::Reject, ..limit(5, "1/m") });
        assert_eq!(both, KeyLimit { on_limit: OnLimit::Reject, ..limit(3, "1/m") });
        assert_eq!(limit(3, "none").and(&limit(5, "1/m")), limit(3, "1/m"));
    }

    #[test]
    fn a_limit_reads_back_as_it_was_kept() {
        let kept = r#"[{"key":"a","max":2},{"key":"b","rate":"1/m","on_limit":"drop-oldest"}]"#;
        let limits: Vec<KeyLimit> = serde_json::from_str(kept).unwrap();
        assert_eq!(limits[1].on_limit, OnLimit::DropOldest);
        assert_eq!(serde_json::to_string(&limits).unwrap(), kept);
    }
}
