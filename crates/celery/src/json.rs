//! Writes JSON as Python does ([`crate::task::json`] reads it): with Python's separators and ASCII escapes, so that our bytes equal
//! kombu's. Also quotes Python's bare words `NaN`, `Infinity` and `-Infinity`, which other readers refuse.

use std::fmt;

pub use crate::task::json::{Fields, Members, elements, integer, null, number, text, verbatim, written};

/// `text` with Python's bare `NaN`, `Infinity` and `-Infinity` turned into strings; `None` when there is none.
pub fn quote_bare_words(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len() + 16);
    let (mut copied, mut at, mut in_string) = (0, 0, false);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'N' | b'I' | b'-' if !in_string => {
                if let Some(word) =
                    ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| text[at..].starts_with(word))
                {
                    out.push_str(&text[copied..at]);
                    out.push('"');
                    out.push_str(word);
                    out.push('"');
                    at += word.len();
                    copied = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return None;
    }
    out.push_str(&text[copied..]);
    Some(out)
}

/// Appends a JSON string with everything but printable ASCII escaped, as Python's `json.dumps` does.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\') {
        out.push_str(text);
    } else {
        text.chars().for_each(|char| push_escaped(out, char));
    }
    out.push('"');
}

/// Appends a string or `null`.
pub fn push_optional(out: &mut String, text: Option<&str>) {
    match text {
        Some(text) => push_string(out, text),
        None => out.push_str("null"),
    }
}

/// Appends a number as Python would: `20`, `1.5`.
pub fn push_number(out: &mut String, number: f64) {
    use fmt::Write as _;
    write!(out, "{number}").expect("a String takes every write");
}

fn push_escaped(out: &mut String, char: char) {
    use fmt::Write as _;
    match char {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        ' '..='~' => out.push(char),
        _ => {
            for unit in char.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}").expect("a String takes every write");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_words_become_strings_outside_strings_only() {
        let text = r#"{"a": NaN, "b": [-Infinity, Infinity, -1], "NaN \" Infinity": "NaN"}"#;
        let quoted = r#"{"a": "NaN", "b": ["-Infinity", "Infinity", -1], "NaN \" Infinity": "NaN"}"#;
        assert_eq!(quote_bare_words(text).as_deref(), Some(quoted));
        assert_eq!(quote_bare_words(r#"{"a": "NaN"}"#), None);
    }

    #[test]
    fn strings_are_written_as_python_writes_them() {
        let mut out = String::new();
        push_string(&mut out, "a\"\\\n\u{7f}é☃😀");
        assert_eq!(out, r#""a\"\\\n\u007f\u00e9\u2603\ud83d\ude00""#);
    }
}
