//! Masks the fields that a catalog entry lists under `redact`, at any depth. Everything else stays unchanged.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::json::{self, Fields};

const MASK: &str = "\"***\"";
/// Values nested deeper are masked as a whole; no accepted body is nested that deep.
const MAX_DEPTH: usize = 128;

/// Names of the fields to mask.
#[derive(Debug, Clone, Copy)]
pub struct Mask<'a>(&'a [String]);

impl<'a> Mask<'a> {
    pub fn new(names: &'a [String]) -> Self {
        Self(names)
    }

    /// The value with masked fields; borrowed when there is nothing to mask.
    pub fn json<'v>(&self, value: &'v RawValue) -> Cow<'v, RawValue> {
        if self.0.is_empty() {
            return Cow::Borrowed(value);
        }
        let mut text = String::with_capacity(value.get().len());
        self.write(value, 0, &mut text);
        Cow::Owned(json::written(text))
    }

    pub fn optional<'v>(&self, value: Option<&'v RawValue>) -> Option<Cow<'v, RawValue>> {
        value.map(|value| self.json(value))
    }

    fn write(&self, value: &RawValue, depth: usize, out: &mut String) {
        if depth > MAX_DEPTH {
            out.push_str(MASK);
        } else if let Ok(fields) = Fields::parse(value.get()) {
            self.write_object(&fields, depth, out);
        } else if let Some(elements) = json::elements(value) {
            out.push('[');
            for (index, element) in elements.into_iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                self.write(element, depth + 1, out);
            }
            out.push(']');
        } else {
            out.push_str(value.get());
        }
    }

    fn write_object(&self, fields: &Fields<'_>, depth: usize, out: &mut String) {
        out.push('{');
        for (index, (name, value)) in fields.iter().enumerate() {
            out.push_str(if index > 0 { ", " } else { "" });
            out.push_str(&serde_json::Value::from(name).to_string());
            out.push_str(": ");
            if self.0.iter().any(|masked| masked == name) {
                out.push_str(MASK);
            } else {
                self.write(value, depth + 1, out);
            }
        }
        out.push('}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_fields_are_masked_at_any_depth_and_digits_stay() {
        let names = ["password".to_owned()];
        let value =
            json::verbatim(r#"[{"user": {"password": "geheim", "n": 1.50}}, {"password": [1]}]"#.to_owned()).unwrap();
        let masked = Mask::new(&names).json(&value).get().to_owned();
        assert_eq!(masked, r#"[{"user": {"password": "***", "n": 1.50}}, {"password": "***"}]"#);
    }

    #[test]
    fn without_names_nothing_is_copied() {
        let value = json::verbatim("[1]".to_owned()).unwrap();
        assert!(matches!(Mask::new(&[]).json(&value), Cow::Borrowed(_)));
    }
}
