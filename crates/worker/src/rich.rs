//! Unwraps types that JSON lacks, as Python clients send them: `{"__type__": "datetime", "__value__": "…"}` becomes the plain text.
//!
//! A Rust handler reads dates, decimals, uuids and bytes from text, so it does not need the wrapper.

use std::borrow::Cow;

use serde_json::value::RawValue;

use celery::bounds::MAX_NESTING;
use celery::json::{self, Fields};

/// `value` without wrappers, at any depth; borrowed when it has none.
pub(super) fn plain(value: &RawValue) -> Cow<'_, RawValue> {
    if !value.get().contains("\"__type__\"") {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(value.get().len());
    push(&mut out, value, 0);
    Cow::Owned(json::written(out))
}

fn push(out: &mut String, value: &RawValue, depth: usize) {
    if depth > MAX_NESTING || !value.get().contains("\"__type__\"") {
        return out.push_str(value.get());
    }
    if let Some(elements) = json::elements(value) {
        return push_items(out, ('[', ']'), &elements, |out, element| push(out, element, depth + 1));
    }
    let Ok(fields) = Fields::parse(value.get()) else { return out.push_str(value.get()) };
    if let Some(text) = unwrapped(&fields) {
        return json::push_string(out, &text);
    }
    let members: Vec<_> = fields.iter().collect();
    push_items(out, ('{', '}'), &members, |out, (name, value)| {
        json::push_string(out, name);
        out.push_str(": ");
        push(out, value, depth + 1);
    });
}

fn push_items<T>(out: &mut String, brackets: (char, char), items: &[T], each: impl Fn(&mut String, &T)) {
    out.push(brackets.0);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        each(out, item);
    }
    out.push(brackets.1);
}

/// The text inside a wrapper: an object with exactly these two members.
fn unwrapped(fields: &Fields<'_>) -> Option<String> {
    if fields.iter().count() != 2 {
        return None;
    }
    fields.text("__type__")?;
    let value = fields.get("__value__")?;
    json::text(value).or_else(|| hyphenated(&Fields::parse(value.get()).ok()?.text("hex")?))
}

fn hyphenated(hex: &str) -> Option<String> {
    Some(uuid::Uuid::try_parse(hex).ok()?.hyphenated().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plained(text: &str) -> String {
        plain(&RawValue::from_string(text.to_owned()).unwrap()).get().to_owned()
    }

    #[test]
    fn wrappers_become_text_at_any_depth_and_nothing_else_changes() {
        assert_eq!(plained(r#"{"__type__": "decimal", "__value__": "1.10"}"#), "\"1.10\"");
        assert_eq!(
            plained(r#"[1, {"a": {"__type__": "uuid", "__value__": {"hex": "0000000000000000000000000000abcd"}}}]"#),
            r#"[1, {"a": "00000000-0000-0000-0000-00000000abcd"}]"#
        );
        assert_eq!(plained(r#"{"__type__": "x", "other": 1}"#), r#"{"__type__": "x", "other": 1}"#);
        assert_eq!(plained("12345678901234567890123"), "12345678901234567890123");
    }
}
