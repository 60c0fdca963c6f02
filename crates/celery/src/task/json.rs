//! JSON that is passed on unchanged: objects and arrays are split, but their values stay text.
//!
//! Nothing becomes an `f64` or a sorted map, so Python's big integers and the order of keys are preserved. Reading is as tolerant as
//! Python: of two equal members the last counts, `null` counts as absent, a lone surrogate becomes U+FFFD.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Json;

/// Members in their original order, values verbatim.
pub type Members = Vec<(String, Json)>;

/// One JSON object, borrowed from its text: every member verbatim, in order.
#[derive(Debug, Default)]
pub struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// # Errors
    /// When the text is not a JSON object.
    pub fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The value of the last member of this name; an explicit `null` counts as absent, as it does for Celery.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value).filter(|value| value.get() != "null")
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), *value))
    }

    /// A text; `None` for any other type.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).and_then(text)
    }

    /// A whole number, also when it is written as a text or as `3.0`; `None` for anything else.
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.get(name).and_then(integer)
    }

    /// A finite number; `None` for anything else.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.get(name).and_then(number)
    }

    /// `true` or `false`; `None` for anything else.
    pub fn boolean(&self, name: &str) -> Option<bool> {
        self.get(name).and_then(|value| value.get().parse().ok())
    }

    /// Owned copies of the members that `keep` accepts.
    pub fn members(&self, keep: impl Fn(&str) -> bool) -> Members {
        self.iter().filter(|(key, _)| keep(key)).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(24);
                while let Some(Key(key)) = map.next_key()? {
                    members.push((key, map.next_value()?));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Members).map(Fields)
    }
}

/// A member's name, borrowed if the text has no escapes (serde's own `Cow` is always owned).
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Cow<'de, str>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Text).map(Key)
    }
}

/// The elements of an array, verbatim; `None` when the value is not an array.
pub fn elements(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

/// The text of a JSON string; a lone surrogate (Python lets them through) becomes U+FFFD. `None` for any other type.
pub fn text(value: &RawValue) -> Option<String> {
    let quoted = value.get();
    if !quoted.starts_with('"') {
        return None;
    }
    Some(serde_json::from_str(quoted).unwrap_or_else(|_| unescape(&quoted[1..quoted.len() - 1])))
}

pub fn integer(value: &RawValue) -> Option<i64> {
    let inner = value.get().trim_matches('"');
    inner.parse().ok().or_else(|| {
        let float: f64 = inner.parse().ok()?;
        #[expect(clippy::cast_possible_truncation, reason = "checked: whole and far inside i64")]
        (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64)
    })
}

pub fn number(value: &RawValue) -> Option<f64> {
    value.get().parse().ok().filter(|number: &f64| number.is_finite())
}

/// How deeply arrays and objects are nested in a JSON text; 0 for a scalar.
pub fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Wraps text that is JSON already, unchanged.
///
/// # Errors
/// When it is not JSON.
pub fn verbatim(text: String) -> Result<Json, serde_json::Error> {
    RawValue::from_string(text)
}

/// Wraps JSON text that this crate wrote itself.
///
/// # Panics
/// When the writer produced something that is not JSON.
pub fn written(text: String) -> Json {
    RawValue::from_string(text).expect("the writers of this module produce JSON")
}

/// The value `null`.
pub fn null() -> Json {
    written("null".to_owned())
}

/// Decodes the inside of a JSON string that serde refuses because of a lone surrogate.
fn unescape(inside: &str) -> String {
    let mut units = Vec::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(char) = chars.next() {
        let unit = match (char, if char == '\\' { chars.next() } else { None }) {
            (_, Some('n')) => '\n',
            (_, Some('r')) => '\r',
            (_, Some('t')) => '\t',
            (_, Some('b')) => '\u{8}',
            (_, Some('f')) => '\u{c}',
            (_, Some('u')) => {
                let digits: String = chars.by_ref().take(4).collect();
                units.push(u16::from_str_radix(&digits, 16).unwrap_or(0xFFFD));
                continue;
            }
            (_, Some(other)) | (other, None) => other,
        };
        units.extend_from_slice(unit.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Json {
        verbatim(text.to_owned()).unwrap()
    }

    #[test]
    fn the_last_of_two_equal_members_counts_and_null_is_absent() {
        let fields = Fields::parse(r#"{"a": 1, "b": null, "a": 22222222222222222222}"#).unwrap();
        assert_eq!(fields.get("a").unwrap().get(), "22222222222222222222");
        assert!(fields.get("b").is_none());
    }

    #[test]
    fn a_lone_surrogate_does_not_lose_the_text() {
        assert_eq!(text(&raw(r#""a\ud800b\n\u00e9\ud83d\ude00\"""#)).as_deref(), Some("a\u{fffd}b\né😀\""));
        assert_eq!(text(&raw("1")), None);
    }

    #[test]
    fn depth_counts_brackets_outside_strings() {
        assert_eq!(depth("1"), 0);
        assert_eq!(depth(r#"[{"a]]": "[[[\"[", "b": [1]}]"#), 3);
    }

    #[test]
    fn whole_numbers_are_read_from_every_form_python_takes() {
        for form in ["3", "3.0", "\"3\"", "3e0"] {
            assert_eq!(integer(&raw(form)), Some(3), "{form}");
        }
        assert_eq!(integer(&raw("3.5")), None);
        assert_eq!(integer(&raw("true")), None);
    }
}
