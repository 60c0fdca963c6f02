//! Values as people write them: durations, sizes, switches, lists. Each can also be given as text, because environment variables hold
//! only text.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

/// A single value in a file or a variable.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a text, a number or a boolean")]
pub enum Scalar {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// `"180d"`, `"36h"`, `"10m"`, `"30s"`, `"250ms"`, or a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Scalar")]
pub struct Span(pub Duration);

impl TryFrom<Scalar> for Span {
    type Error = String;

    fn try_from(scalar: Scalar) -> Result<Self, String> {
        let text = scalar.to_string();
        let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let seconds = match unit.trim() {
            "" | "s" => 1.0,
            "ms" => 0.001,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            _ => return Err(not_a_duration(&text)),
        };
        let number: f64 = number.trim().parse().map_err(|_| not_a_duration(&text))?;
        Duration::try_from_secs_f64(number * seconds).map(Self).map_err(|_| not_a_duration(&text))
    }
}

fn not_a_duration(text: &str) -> String {
    format!("{text:?} is not a duration: write seconds, or a number with ms, s, m, h, d or w, such as \"180d\"")
}

/// `"8MiB"`, `"512KiB"`, or a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Scalar")]
pub struct Bytes(pub usize);

impl TryFrom<Scalar> for Bytes {
    type Error = String;

    fn try_from(scalar: Scalar) -> Result<Self, String> {
        let text = scalar.to_string();
        let refused = || format!("{text:?} is not a size: write bytes, or a whole number with KiB, MiB or GiB");
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let factor: usize = match unit.trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(refused()),
        };
        let number: usize = number.parse().map_err(|_| refused())?;
        number.checked_mul(factor).map(Self).ok_or_else(refused)
    }
}

/// `true` or `false`; from the environment also `1`, `0`, `yes`, `no`, `on`, `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Scalar")]
pub struct Switch(pub bool);

impl TryFrom<Scalar> for Switch {
    type Error = String;

    fn try_from(scalar: Scalar) -> Result<Self, String> {
        match scalar.to_string().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(Self(true)),
            "false" | "0" | "no" | "off" => Ok(Self(false)),
            other => Err(format!("{other:?} is neither true nor false")),
        }
    }
}

/// A whole number that is not negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Scalar")]
pub struct Count(pub u64);

impl TryFrom<Scalar> for Count {
    type Error = String;

    fn try_from(scalar: Scalar) -> Result<Self, String> {
        let text = scalar.to_string();
        text.trim().parse().map(Self).map_err(|_| format!("{text:?} is not a whole number of 0 or more"))
    }
}

/// A string; numbers and booleans are accepted as they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Scalar")]
pub struct Text(pub String);

impl From<Scalar> for Text {
    fn from(scalar: Scalar) -> Self {
        Self(scalar.to_string())
    }
}

/// A list of texts, or one text with commas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "OneOrMany")]
pub struct Words(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a list of texts, or one text with commas")]
enum OneOrMany {
    One(Text),
    Many(Vec<Text>),
}

impl From<OneOrMany> for Words {
    fn from(given: OneOrMany) -> Self {
        match given {
            OneOrMany::Many(words) => Self(words.into_iter().map(|word| word.0).collect()),
            OneOrMany::One(text) => {
                Self(text.0.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect())
            }
        }
    }
}

/// A URL that may hold a password: printed without it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL with its password: for connecting, never for a message.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn scheme(&self) -> &str {
        self.0.split_once(':').map_or("", |(scheme, _)| scheme)
    }
}

impl fmt::Display for Secret {
    /// `redis://:***@host:6379/0`. Query parameters that may carry a password are hidden too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (url, query) = self.0.split_once('?').map_or((self.0.as_str(), None), |(url, query)| (url, Some(query)));
        match url.split_once("://") {
            Some((scheme, rest)) => match rest.rsplit_once('@') {
                Some((user, host)) => {
                    let user = user.split_once(':').map_or("***", |(name, _)| name);
                    write!(f, "{scheme}://{user}:***@{host}")?;
                }
                None => f.write_str(url)?,
            },
            None => f.write_str("***")?,
        }
        if query.is_some() { f.write_str("?***") } else { Ok(()) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Result<Span, String> {
        Span::try_from(Scalar::Text(text.to_owned()))
    }

    #[test]
    fn durations_are_written_with_units_or_in_seconds() {
        assert_eq!(span("180d"), Ok(Span(Duration::from_secs(180 * 86_400))));
        assert_eq!(span("250ms"), Ok(Span(Duration::from_millis(250))));
        assert_eq!(span("1.5"), Ok(Span(Duration::from_millis(1_500))));
        assert_eq!(Span::try_from(Scalar::Integer(3600)), Ok(Span(Duration::from_secs(3600))));
        assert!(span("-5s").is_err());
        assert!(span("5 fortnights").is_err());
    }

    #[test]
    fn sizes_are_written_in_binary_units() {
        assert_eq!(Bytes::try_from(Scalar::Text("8MiB".to_owned())), Ok(Bytes(8 << 20)));
        assert!(Bytes::try_from(Scalar::Text("8MB".to_owned())).is_err());
    }

    #[test]
    fn passwords_are_never_printed() {
        assert_eq!(Secret::new("redis://user:pa:ss@w@host:6379/0").to_string(), "redis://user:***@host:6379/0");
        assert_eq!(Secret::new("redis://:geheim@host/0").to_string(), "redis://:***@host/0");
        assert_eq!(Secret::new("postgres://h/db?password=geheim").to_string(), "postgres://h/db?***");
        assert_eq!(Secret::new("redis://127.0.0.1:6379/0").to_string(), "redis://127.0.0.1:6379/0");
        assert!(!format!("{:?}", Secret::new("hunter2")).contains("hunter2"));
    }
}
