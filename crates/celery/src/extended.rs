//! kombu's extended JSON: an object of exactly `__type__` and `__value__` represents a Python value. A worker that does not know the
//! type, or cannot build the value, drops the whole message; so a value that workers would refuse is refused before it is sent.
//!
//! The decoders are those that kombu registers by default; an application may register more, whose names are passed to [`refused`].
//! Where Python versions differ (times), a value is accepted if any version reads it.

use serde_json::{Map, Value};

const TYPE: &str = "__type__";
const VALUE: &str = "__value__";
/// Depth limit of this check; callers bound the depth of JSON before.
const DEPTH: usize = 128;

/// A value that a worker could not decode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Path of the value (RFC 6901), relative to the value that was checked.
    pub pointer: Vec<String>,
    pub why: String,
}

impl Refused {
    /// The pointer as text.
    pub fn at(&self) -> String {
        self.pointer.iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect()
    }
}

/// The first value inside that kombu's decoder would refuse. Most texts need no parsing: they do not contain `__type__`.
pub fn refused(text: &str, more: &[&str]) -> Option<Refused> {
    // A name may be written with escapes. It is ASCII, and only `\u00` leads to a character of it.
    if !text.contains(TYPE) && !text.contains("\\u00") {
        return None;
    }
    let value: Value = serde_json::from_str(text).ok()?;
    let mut pointer = Vec::new();
    let why = unknown_type(&value, more, &mut pointer, DEPTH)?;
    Some(Refused { pointer, why })
}

fn unknown_type(value: &Value, more: &[&str], pointer: &mut Vec<String>, depth: usize) -> Option<String> {
    if depth == 0 {
        return None;
    }
    match value {
        Value::Object(members) => {
            // Python decodes from the inside out.
            for (name, member) in members {
                pointer.push(name.clone());
                if let Some(why) = unknown_type(member, more, pointer, depth - 1) {
                    return Some(why);
                }
                pointer.pop();
            }
            is_extended(members).then(|| wrong(members, more)).flatten()
        }
        Value::Array(elements) => {
            for (n, element) in elements.iter().enumerate() {
                pointer.push(n.to_string());
                if let Some(why) = unknown_type(element, more, pointer, depth - 1) {
                    return Some(why);
                }
                pointer.pop();
            }
            None
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn is_extended(members: &Map<String, Value>) -> bool {
    members.len() == 2 && members.contains_key(TYPE) && members.contains_key(VALUE)
}

fn wrong(members: &Map<String, Value>, more: &[&str]) -> Option<String> {
    let Some(name) = members[TYPE].as_str() else { return Some("__type__ must be a text".to_owned()) };
    let value = &members[VALUE];
    let text = value.as_str();
    let fits = match name {
        "bytes" => text.is_some(),
        "base64" => text.is_some_and(is_base64),
        "datetime" | "date" => text.is_some_and(is_date_time),
        "time" => text.is_some_and(is_time),
        "decimal" => text.map_or(value.is_number(), is_decimal),
        "uuid" => value.as_object().is_some_and(is_uuid),
        _ if more.contains(&name) => true,
        _ => {
            return Some(format!(
                "workers know no type {name:?}: kombu gives __type__ beside __value__ a meaning of its own"
            ));
        }
    };
    (!fits).then(|| format!("workers cannot read this as {name}"))
}

/// Whether Python's `b64decode` accepts it; like Python, this ignores characters outside the alphabet.
fn is_base64(text: &str) -> bool {
    let (mut place, mut pads) = (0, 0);
    for byte in text.bytes() {
        match byte {
            b'=' => {
                pads += 1;
                if place >= 2 && place + pads >= 4 {
                    return true;
                }
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => {
                pads = 0;
                place = (place + 1) % 4;
            }
            _ => {}
        }
    }
    place == 0
}

/// A date, perhaps followed by any single character and a time.
fn is_date_time(text: &str) -> bool {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((date, rest)) = text.split_at_checked(10).filter(|(date, _)| date.as_bytes()[4] == b'-') else {
        // Newer versions also read the basic format and week dates.
        return text.len() >= 7 && text.is_char_boundary(4) && is_digits(&text[..4]);
    };
    let is_date = date.parse::<jiff::civil::Date>().is_ok() || date.contains('W');
    let time = rest.chars().next().map(|separator| &rest[separator.len_utf8()..]);
    is_date && time.is_none_or(is_time)
}

/// `HH[:MM[:SS[.ffffff]]][+HH:MM]`, with or without colons.
fn is_time(text: &str) -> bool {
    let time = text.strip_prefix('T').unwrap_or(text);
    let clock = time.find(['+', '-', 'Z']).map_or(time, |zone| &time[..zone]);
    let within = |range: std::ops::Range<usize>, most: u32| {
        clock.get(range).is_none_or(|part| part.parse::<u32>().is_ok_and(|number| number < most))
    };
    let colon = usize::from(clock.get(2..3) == Some(":"));
    clock.len() >= 2
        && clock.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.' | b','))
        && within(0..2, 24)
        && within(2 + colon..4 + colon, 60)
        && within(4 + 2 * colon..6 + 2 * colon, 60)
}

/// Whether Python's `Decimal` reads it.
fn is_decimal(text: &str) -> bool {
    let text = text.trim().replace('_', "").to_ascii_lowercase();
    let bare = text.strip_prefix(['+', '-']).unwrap_or(&text);
    let is_special = matches!(bare, "inf" | "infinity")
        || bare
            .strip_prefix("snan")
            .or(bare.strip_prefix("nan"))
            .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
    let starts_as_number = bare.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    is_special || (starts_as_number && bare.parse::<f64>().is_ok())
}

/// Whether Python's `UUID` accepts these members.
fn is_uuid(members: &Map<String, Value>) -> bool {
    match (members.get("hex"), members.get("int")) {
        (Some(Value::String(hex)), None) => {
            let bare = hex.replace("urn:", "").replace("uuid:", "");
            let bare: String = bare.trim_matches(['{', '}']).chars().filter(|char| *char != '-').collect();
            bare.len() == 32 && bare.bytes().all(|byte| byte.is_ascii_hexdigit())
        }
        (None, Some(Value::Number(number))) => number.as_u64().is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(text: &str) -> Option<String> {
        refused(text, &[]).map(|refused| format!("/{}: {}", refused.pointer.join("/"), refused.why))
    }

    fn value(kind: &str, value: &str) -> String {
        format!(r#"[{{"__type__": "{kind}", "__value__": {value}}}]"#)
    }

    #[test]
    fn a_type_that_no_worker_knows_is_named_with_its_place() {
        let said = why(r#"[1, {"x": [{"__type__": "nosuch", "__value__": 1}]}]"#).expect("refused");
        assert!(said.starts_with("/1/x/0: workers know no type \"nosuch\""), "{said}");
        assert!(why(r#"[{"\u005f_type__": "nosuch", "__value__": 1}]"#).is_some(), "escapes hide nothing");
        assert_eq!(refused(&value("money", "1"), &["money"]), None, "their own types are known by name");
    }

    #[test]
    fn other_objects_have_no_such_meaning() {
        for text in [
            r#"{"__type__": "nosuch"}"#,
            r#"{"__type__": "x", "__value__": 1, "more": 2}"#,
            "[1, 2]",
            r#"{"a": "__type__"}"#,
        ] {
            assert_eq!(why(text), None, "{text}");
        }
    }

    #[test]
    fn what_kombu_writes_is_read() {
        for (kind, text) in [
            ("datetime", r#""2026-11-30T10:00:00""#),
            ("datetime", r#""2026-11-30T10:00:00.123456+00:00""#),
            ("datetime", r#""2026-11-30""#),
            ("date", r#""2026-11-30""#),
            ("time", r#""10:00:00""#),
            ("time", r#""10:00:00.5+02:00""#),
            ("decimal", r#""1.50""#),
            ("decimal", r#""-1E+5""#),
            ("decimal", r#""NaN""#),
            ("decimal", "3"),
            ("uuid", r#"{"hex": "019ae5a06d407d53b3a6f9b8b9f0e4d1"}"#),
            ("bytes", r#""abc""#),
            ("base64", r#""aGk=""#),
        ] {
            assert_eq!(why(&value(kind, text)), None, "{kind} {text}");
        }
    }

    #[test]
    fn what_the_decoder_would_raise_at_is_refused() {
        for (kind, text) in [
            ("datetime", r#""tomorrow""#),
            ("datetime", r#""2026-13-01T00:00:00""#),
            ("datetime", "1"),
            ("time", r#""25:00""#),
            ("decimal", r#""a lot""#),
            ("decimal", "null"),
            ("uuid", r#""019ae5a06d407d53b3a6f9b8b9f0e4d1""#),
            ("uuid", r#"{"hex": "no"}"#),
            ("bytes", "7"),
            ("base64", r#""aGk""#),
        ] {
            assert!(why(&value(kind, text)).is_some(), "{kind} {text}");
        }
        assert!(why(r#"[{"__type__": 1, "__value__": 1}]"#).is_some());
    }
}
