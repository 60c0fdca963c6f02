//! Marks a message that goes back to its queue, so that the next worker knows that it was delivered before.

use super::json::{self, Fields};

/// The envelope with `redelivered` set in its headers and its delivery info, everything else verbatim; `None` when it is not an
/// envelope.
pub fn mark(envelope: &[u8]) -> Option<Vec<u8>> {
    let fields = Fields::parse(std::str::from_utf8(envelope).ok()?).ok()?;
    let mut out = String::with_capacity(envelope.len() + 48);
    rewrite(&mut out, &fields, "headers", flagged);
    let once = std::mem::take(&mut out);
    let fields = Fields::parse(&once).ok()?;
    rewrite(&mut out, &fields, "properties", |properties| {
        let properties = Fields::parse(properties).unwrap_or_default();
        let mut out = String::new();
        rewrite(&mut out, &properties, "delivery_info", flagged);
        out
    });
    Some(out.into_bytes())
}

/// Copies an object with the member `name` changed; an absent member counts as `{}`.
fn rewrite(out: &mut String, fields: &Fields<'_>, name: &str, change: impl Fn(&str) -> String) {
    let mut found = false;
    out.push('{');
    for (key, value) in fields.iter() {
        if out.len() > 1 {
            out.push_str(", ");
        }
        json::push_string(out, key);
        out.push_str(": ");
        if key == name {
            found = true;
            out.push_str(&change(value.get()));
        } else {
            out.push_str(value.get());
        }
    }
    if !found {
        out.extend([if out.len() > 1 { ", " } else { "" }, "\"", name, "\": ", &change("{}")]);
    }
    out.push('}');
}

/// The object with `"redelivered": true` in it.
fn flagged(object: &str) -> String {
    let fields = Fields::parse(object).unwrap_or_default();
    let mut out = String::with_capacity(object.len() + 24);
    rewrite(&mut out, &fields, "redelivered", |_| "true".to_owned());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(text: &str) -> String {
        String::from_utf8(mark(text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn a_message_is_marked_twice_and_otherwise_kept_verbatim() {
        let message = r#"{"body": "W10=", "headers": {"id": "x", "n": 1.50}, "properties": {"delivery_info": {"exchange": "", "routing_key": "celery"}, "priority": 0}}"#;
        let expected = r#"{"body": "W10=", "headers": {"id": "x", "n": 1.50, "redelivered": true}, "properties": {"delivery_info": {"exchange": "", "routing_key": "celery", "redelivered": true}, "priority": 0}}"#;
        assert_eq!(marked(message), expected);
        assert_eq!(marked(expected), expected);
        assert_eq!(mark(b"not json"), None);
    }
}
