//! Names and ids, parsed at the edge into types that are always valid.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is not a valid name or id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    #[error("must not be empty")]
    Empty,
    #[error("has {actual} characters, at most {limit} are allowed")]
    TooLong { actual: usize, limit: usize },
    #[error("contains a control character")]
    Control,
    #[error("is not a UUID")]
    NotUuid,
    #[error("{0}; choose another name")]
    Reserved(&'static str),
}

fn check(text: &str, limit: usize) -> Result<(), InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty);
    }
    let actual = text.chars().count();
    if actual > limit {
        return Err(InvalidId::TooLong { actual, limit });
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidId::Control);
    }
    Ok(())
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $limit:expr, $reserved:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest text allowed, in characters.
            pub const MAX_CHARS: usize = $limit;

            /// # Errors
            /// When the text is empty, too long, has control characters, or is reserved.
            pub fn parse(text: impl AsRef<str>) -> Result<Self, InvalidId> {
                let name = Self::stored(text)?;
                match name.reserved() {
                    Some(why) => Err(InvalidId::Reserved(why)),
                    None => Ok(name),
                }
            }

            /// Parses a stored name, without the checks for reserved names: it was accepted before.
            ///
            /// # Errors
            /// When the text is empty, too long, or has control characters.
            pub fn stored(text: impl AsRef<str>) -> Result<Self, InvalidId> {
                let text = text.as_ref();
                check(text, Self::MAX_CHARS)?;
                Ok(Self(text.into()))
            }

            /// Why this well-formed text must not be used.
            pub fn reserved(&self) -> Option<&'static str> {
                $reserved(&self.0)
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::stored(text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0.as_ref().to_owned()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
    };
}

text_type!(
    /// The id of one call: Celery's task id. A `UUIDv7` if the gateway makes it, any text of up to 255 characters if others do.
    TaskId, 255, |_| None
);
text_type!(
    /// The id of a group (or of a chord's header).
    GroupId, 255, |_| None
);
text_type!(
    /// The name a function is registered under, such as `tasks.college_crawl_task`.
    TaskName, 255, |_| None
);
text_type!(
    /// A named list in the broker. Names that the fleet uses for other keys are refused ([`super::reserved`]).
    QueueName, 255, super::reserved::reserved
);

impl TaskId {
    /// Parses an id from a client: a UUID in any spelling, stored in the usual one, so that every spelling means the same task. Ids that
    /// other programs choose may be any text.
    ///
    /// # Errors
    /// When the text is not a UUID.
    pub fn parse_uuid(text: impl AsRef<str>) -> Result<Self, InvalidId> {
        uuid::Uuid::try_parse(text.as_ref()).map(Self::from).map_err(|_| InvalidId::NotUuid)
    }

    /// The usual spelling of a UUID that is written in another one: in lower case, with hyphens, without braces.
    pub fn respelled(&self) -> Option<Self> {
        let usual = Self::parse_uuid(self.as_str()).ok()?;
        (usual != *self).then_some(usual)
    }
}

impl From<uuid::Uuid> for TaskId {
    fn from(id: uuid::Uuid) -> Self {
        Self((&*id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer())).into())
    }
}

impl TaskId {
    /// When the id was made, in microseconds since the Unix epoch; `None` for ids without a time.
    pub fn made_at(&self) -> Option<i64> {
        let (seconds, nanoseconds) = uuid::Uuid::try_parse(self.as_str()).ok()?.get_timestamp()?.to_unix();
        i64::try_from(seconds).ok()?.checked_mul(1_000_000)?.checked_add(i64::from(nanoseconds / 1_000))
    }

    /// The `delivery_tag` of the message's n-th delivery: a `UUIDv5`, which can be computed from the task id.
    pub fn delivery_tag(&self, delivery: i32) -> String {
        let name = format!("{}:{delivery}", self.as_str());
        uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
    }
}

impl From<uuid::Uuid> for GroupId {
    fn from(id: uuid::Uuid) -> Self {
        Self((&*id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer())).into())
    }
}

/// Celery's priority on Redis: 0 is served first, 9 last. Kombu keeps four lists, for 0–2, 3–5, 6–8 and 9.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Priority(u8);

impl Priority {
    /// `None` above 9.
    pub fn new(value: u8) -> Option<Self> {
        (value <= 9).then_some(Self(value))
    }

    /// Clamps like kombu: below 0 is 0, above 9 is 9.
    pub fn clamped(value: i64) -> Self {
        Self(u8::try_from(value.clamp(0, 9)).expect("clamped to one digit"))
    }

    pub fn get(self) -> u8 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_id_is_any_printable_text_of_up_to_255_characters() {
        assert!(TaskId::parse("report of 2026, übermorgen").is_ok());
        assert!(TaskId::parse("x".repeat(255)).is_ok());
        assert_eq!(TaskId::parse("x".repeat(256)), Err(InvalidId::TooLong { actual: 256, limit: 255 }));
        assert_eq!(TaskId::parse(""), Err(InvalidId::Empty));
        assert_eq!(TaskId::parse("a\nb"), Err(InvalidId::Control));
    }

    #[test]
    fn an_id_given_by_a_client_is_one_task_however_it_is_written() {
        let usual = TaskId::parse("0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c42").unwrap();
        for text in [
            "0192F0C1-6c1e-7d3e-9f2a-3b8f0a5d1c42",
            "0192f0c16c1e7d3e9f2a3b8f0a5d1c42",
            "{0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c42}",
        ] {
            assert_eq!(TaskId::parse_uuid(text), Ok(usual.clone()), "{text}");
            assert_eq!(TaskId::parse(text).unwrap().respelled(), Some(usual.clone()), "{text}");
        }
        assert_eq!(TaskId::parse_uuid(usual.as_str()), Ok(usual.clone()));
        assert_eq!(usual.respelled(), None);
        for text in ["", "report", "{0192f0c1}"] {
            assert_eq!(TaskId::parse_uuid(text), Err(InvalidId::NotUuid), "{text}");
        }
        assert_eq!(TaskId::parse("report").unwrap().respelled(), None);
    }

    #[test]
    fn a_uuid_is_written_in_lower_case_with_hyphens() {
        let id = uuid::Uuid::from_u128(0xABCD);
        assert_eq!(TaskId::from(id).as_str(), "00000000-0000-0000-0000-00000000abcd");
    }

    #[test]
    fn priorities_of_others_are_clamped() {
        assert_eq!(Priority::clamped(-3).get(), 0);
        assert_eq!(Priority::clamped(12).get(), 9);
        assert_eq!(Priority::new(10), None);
    }
}
