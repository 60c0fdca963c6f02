//! kombu's serializers besides JSON, for reading what fleets that use them write: results, events, control replies. YAML and
//! MessagePack become JSON text. Pickle is a program, so it is never run: it passes through as bytes, unless it is plain data
//! ([`plain`]).

mod msgpack;
pub mod pickle;
pub mod plain;
mod yaml;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::{DecodeError, envelope, json};

/// The serializer of some bytes. Celery's result records do not name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serializer {
    Json,
    Yaml,
    Msgpack,
    Pickle,
}

impl Serializer {
    /// By a content type; `None` for an unknown one. A body without a content type is never read.
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        match content_type {
            "application/json" | "json" => Some(Self::Json),
            "application/x-yaml" | "yaml" => Some(Self::Yaml),
            "application/x-msgpack" | "msgpack" => Some(Self::Msgpack),
            "application/x-python-serialize" | "pickle" => Some(Self::Pickle),
            _ => None,
        }
    }

    /// By the first bytes, knowing that a record is an object.
    pub fn of_record(bytes: &[u8]) -> Self {
        match bytes.trim_ascii_start().first() {
            _ if pickle::is_pickle(bytes) => Self::Pickle,
            Some(0x81..=0x8f | 0xde | 0xdf) => Self::Msgpack,
            Some(b'{') | None => Self::Json,
            Some(_) => Self::Yaml,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/x-yaml",
            Self::Msgpack => "application/x-msgpack",
            Self::Pickle => "application/x-python-serialize",
        }
    }

    /// The value as JSON text.
    ///
    /// # Errors
    /// When the bytes are not of this serializer, or larger or deeper than the bounds; always for pickle.
    pub fn to_json(self, bytes: &[u8]) -> Result<String, DecodeError> {
        match self {
            Self::Json => envelope::json_text(bytes).ok_or(DecodeError::NotJson),
            Self::Yaml => yaml::to_json(std::str::from_utf8(bytes).map_err(|_| DecodeError::Serialized("yaml"))?),
            Self::Msgpack => msgpack::to_json(bytes),
            Self::Pickle => Err(DecodeError::ContentType(self.content_type().to_owned())),
        }
    }
}

/// The replacement for a value that cannot be read: `{"encoding": content type, "bytes": base64}`.
pub fn opaque(content_type: &str, bytes: &[u8]) -> String {
    let mut out = String::from("{\"encoding\": ");
    json::push_string(&mut out, content_type);
    out.extend([", \"bytes\": \"", &STANDARD.encode(bytes), "\"}"]);
    out
}

/// Whether a value is the replacement for one that could not be read.
pub fn is_opaque(value: &str) -> bool {
    value.starts_with("{\"encoding\": \"application/") && value.contains("\", \"bytes\": \"") && value.ends_with("\"}")
}

/// Writes an object's key from a JSON value: strings unchanged, other values as Python's JSON writes keys.
fn push_key(value: &str, out: &mut String) {
    if value.starts_with('"') { out.push_str(value) } else { json::push_string(out, value) }
}

/// Writes bytes as kombu's JSON does.
fn push_bytes(bytes: &[u8], out: &mut String) {
    let (kind, text) = match std::str::from_utf8(bytes) {
        Ok(text) => ("bytes", text.to_owned()),
        Err(_) => ("base64", STANDARD.encode(bytes)),
    };
    out.extend(["{\"__type__\": \"", kind, "\", \"__value__\": "]);
    json::push_string(out, &text);
    out.push('}');
}

/// Writes `NaN` and the infinities, which JSON does not have, as strings with Python's words.
fn push_not_finite(number: f64, out: &mut String) {
    out.push_str(if number.is_nan() {
        "\"NaN\""
    } else if number > 0.0 {
        "\"Infinity\""
    } else {
        "\"-Infinity\""
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serializer_of_a_record_is_seen_from_its_first_bytes() {
        for (bytes, expected) in [
            (&b"{\"status\": \"SUCCESS\"}"[..], Serializer::Json),
            (b"status: SUCCESS\n", Serializer::Yaml),
            (b"\x81\xa6status\xa7SUCCESS", Serializer::Msgpack),
            (b"\x80\x02}q\x00.", Serializer::Pickle),
        ] {
            assert_eq!(Serializer::of_record(bytes), expected);
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_from_what_can() {
        let placed = opaque("application/x-python-serialize", b"\x80\x04.");
        assert_eq!(placed, "{\"encoding\": \"application/x-python-serialize\", \"bytes\": \"gAQu\"}");
        assert!(is_opaque(&placed) && !is_opaque("{\"encoding\": 1}") && !is_opaque("3"));
    }
}
