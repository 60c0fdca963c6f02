//! Converts YAML as PyYAML's safe dumper writes it to JSON text: unquoted scalars are read by its rules (YAML 1.1).

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::value::RawValue;

use crate::{DecodeError, bounds, json};

const DAMAGED: DecodeError = DecodeError::Serialized("yaml");

/// # Errors
/// When it is not a single YAML document, is nested too deep, or its text with expanded aliases would be larger than
/// [`bounds::MAX_INFLATED_BYTES`].
pub(super) fn to_json(text: &str) -> Result<String, DecodeError> {
    let mut composer = Composer::default();
    for event in Parser::new_from_str(text) {
        let (event, _) = event.map_err(|_| DAMAGED)?;
        composer.take(event)?;
    }
    composer.done.ok_or(DAMAGED)
}

/// A list or a mapping that is not closed yet.
struct Open {
    out: String,
    is_map: bool,
    /// The last element read is a key whose value is still missing.
    after_key: bool,
    anchor: usize,
}

#[derive(Default)]
struct Composer {
    open: Vec<Open>,
    anchors: HashMap<usize, String>,
    done: Option<String>,
    /// Bytes written into containers so far; bounds the growth by aliases of aliases.
    written: usize,
}

impl Composer {
    fn take(&mut self, event: Event<'_>) -> Result<(), DecodeError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => self.close(scalar(&text, style, tag.as_deref()), anchor),
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).ok_or(DAMAGED)?.clone();
                self.put(value)
            }
            Event::SequenceStart(anchor, _) => self.begin(false, anchor),
            Event::MappingStart(anchor, _) => self.begin(true, anchor),
            Event::SequenceEnd | Event::MappingEnd => {
                let mut open = self.open.pop().ok_or(DAMAGED)?;
                open.out.push(if open.is_map { '}' } else { ']' });
                self.close(open.out, open.anchor)
            }
            // A second document would not be a value.
            Event::DocumentStart(_) if self.done.is_some() => Err(DAMAGED),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn begin(&mut self, is_map: bool, anchor: usize) -> Result<(), DecodeError> {
        if self.open.len() >= bounds::MAX_NESTING {
            return Err(DecodeError::TooDeep);
        }
        let out = String::from(if is_map { "{" } else { "[" });
        self.open.push(Open { out, is_map, after_key: false, anchor });
        Ok(())
    }

    fn close(&mut self, value: String, anchor: usize) -> Result<(), DecodeError> {
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        self.put(value)
    }

    fn put(&mut self, value: String) -> Result<(), DecodeError> {
        self.written += value.len();
        if self.written > bounds::MAX_INFLATED_BYTES {
            return Err(DecodeError::TooLarge { actual: self.written, limit: bounds::MAX_INFLATED_BYTES });
        }
        let Some(open) = self.open.last_mut() else {
            self.done = Some(value);
            return Ok(());
        };
        let is_key = open.is_map && !open.after_key;
        if !open.after_key && open.out.len() > 1 {
            open.out.push_str(", ");
        }
        if is_key {
            super::push_key(&value, &mut open.out);
            open.out.push_str(": ");
        } else {
            open.out.push_str(&value);
        }
        open.after_key = is_key;
        Ok(())
    }
}

/// One scalar as JSON.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    if tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "binary") {
        let compact: String = text.split_whitespace().collect();
        out.push_str("{\"__type__\": \"base64\", \"__value__\": ");
        json::push_string(&mut out, &compact);
        out.push('}');
    } else if style == ScalarStyle::Plain && tag.is_none() {
        plain(text, &mut out);
    } else {
        json::push_string(&mut out, text);
    }
    out
}

fn plain(text: &str, out: &mut String) {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => out.push_str("null"),
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => out.push_str("true"),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => out.push_str("false"),
        ".inf" | ".Inf" | ".INF" | "+.inf" => super::push_not_finite(f64::INFINITY, out),
        "-.inf" | "-.Inf" | "-.INF" => super::push_not_finite(f64::NEG_INFINITY, out),
        ".nan" | ".NaN" | ".NAN" => super::push_not_finite(f64::NAN, out),
        text if is_number(text) => out.push_str(text),
        text => json::push_string(out, text),
    }
}

/// Whether it is a number as PyYAML writes it, which is JSON's syntax.
fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && serde_json::from_str::<&RawValue>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_celery_s_is_read() {
        let text = "children: []\ndate_done: '2026-11-30T08:00:00+00:00'\nresult:\n  a: 1\n  b:\n  - 1.5\n  - null\n  - 'yes'\n  - true\n  \
            1: !!binary |\n    /w==\nstatus: SUCCESS\ntask_id: 5e0c\ntraceback: null\n";
        let expected = "{\"children\": [], \"date_done\": \"2026-11-30T08:00:00+00:00\", \"result\": {\"a\": 1, \"b\": [1.5, null, \
            \"yes\", true], \"1\": {\"__type__\": \"base64\", \"__value__\": \"/w==\"}}, \"status\": \"SUCCESS\", \"task_id\": \"5e0c\", \
            \"traceback\": null}";
        assert_eq!(to_json(text).unwrap(), expected);
    }

    #[test]
    fn aliases_are_written_out_within_bounds() {
        assert_eq!(to_json("a: &x [1, 2]\nb: *x\n").unwrap(), "{\"a\": [1, 2], \"b\": [1, 2]}");
        let mut bomb = String::from("a0: &a0 [xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx]\n");
        for level in 1..40 {
            let before = level - 1;
            bomb.push_str(&format!("a{level}: &a{level} [*a{before}, *a{before}, *a{before}, *a{before}]\n"));
        }
        assert!(matches!(to_json(&bomb).unwrap_err(), DecodeError::TooLarge { .. }));
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for text in ["", "a: [", "--- 1\n--- 2\n", "*unknown"] {
            assert!(to_json(text).is_err(), "{text}");
        }
        assert!(to_json(&"[".repeat(10_000)).is_err());
    }
}
