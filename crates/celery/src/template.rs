//! Argument templates: JSON with `{name}` in its strings.
//!
//! A text that is one lone `{name}` becomes the value itself, digit for digit; inside a longer text the value is written into it.
//! `{{` and `}}` stand for braces. Filling cannot fail: what a name may be is checked before, by whoever parsed the template.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::json::{Fields, elements, text as text_of};

/// A JSON value with names to fill in.
#[derive(Debug, Clone)]
pub enum Template {
    /// JSON text without names.
    Literal(String),
    /// The value of this name.
    Whole(String),
    /// A string with values inserted.
    Text(Vec<Part>),
    Array(Vec<Template>),
    Object(Vec<(String, Template)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Name(String),
}

/// Why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("a {{ has no }}: write {{{{ for a brace")]
    Open,
    #[error("a }} has no {{: write }}}} for a brace")]
    Close,
    #[error("{{}} names nothing")]
    Empty,
}

impl Template {
    /// # Errors
    /// When a text has unbalanced braces.
    pub fn parse(value: &Value) -> Result<Self, TemplateError> {
        Ok(match value {
            Value::String(text) => Self::text(parts(text)?),
            Value::Array(items) => Self::Array(items.iter().map(Self::parse).collect::<Result<_, _>>()?),
            Value::Object(members) => {
                let member = |(key, value): (&String, &Value)| Ok((key.clone(), Self::parse(value)?));
                Self::Object(members.iter().map(member).collect::<Result<_, _>>()?)
            }
            other => Self::Literal(other.to_string()),
        })
    }

    /// As [`Template::parse`], of JSON text whose numbers and plain texts stay as they were written.
    ///
    /// # Errors
    /// As [`Template::parse`].
    pub fn read(value: &RawValue) -> Result<Self, TemplateError> {
        let json = value.get();
        if !json.contains(['{', '}']) {
            return Ok(Self::Literal(json.to_owned()));
        }
        if let Some(items) = elements(value) {
            return Ok(Self::Array(items.into_iter().map(Self::read).collect::<Result<_, _>>()?));
        }
        if let Ok(members) = Fields::parse(json) {
            let member = |(key, value): (&str, &RawValue)| Ok((key.to_owned(), Self::read(value)?));
            return Ok(Self::Object(members.iter().map(member).collect::<Result<_, _>>()?));
        }
        text_of(value).map_or_else(|| Ok(Self::Literal(json.to_owned())), |text| Ok(Self::text(parts(&text)?)))
    }

    fn text(parts: Vec<Part>) -> Self {
        match parts.as_slice() {
            [Part::Name(name)] => Self::Whole(name.clone()),
            [] => Self::Literal("\"\"".to_owned()),
            [Part::Text(text)] => Self::Literal(Value::String(text.clone()).to_string()),
            _ => Self::Text(parts),
        }
    }

    /// All names in the template.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Literal(_) => Vec::new(),
            Self::Whole(name) => vec![name],
            Self::Text(parts) => parts.iter().filter_map(Part::name).collect(),
            Self::Array(items) => items.iter().flat_map(Self::names).collect(),
            Self::Object(members) => members.iter().flat_map(|(_, value)| value.names()).collect(),
        }
    }

    /// Whether its text begins with this, whatever its placeholders become.
    pub fn begins_with(&self, first: char) -> bool {
        match self {
            Self::Literal(json) => plain(json).starts_with(first),
            Self::Text(parts) => matches!(parts.first(), Some(Part::Text(text)) if text.starts_with(first)),
            Self::Whole(_) | Self::Array(_) | Self::Object(_) => false,
        }
    }

    /// Appends the filled JSON. `look` returns the JSON text of a name.
    pub fn fill(&self, look: &dyn Fn(&str) -> String, out: &mut String) {
        match self {
            Self::Literal(text) => out.push_str(text),
            Self::Whole(name) => out.push_str(&look(name)),
            Self::Text(parts) => out.push_str(&Value::String(fill_parts(parts, look)).to_string()),
            Self::Array(items) => array(items, look, out),
            Self::Object(members) => object(members, look, out),
        }
    }

    /// The filled value as text: a JSON string loses its quotes, everything else is written as JSON.
    pub fn fill_text(&self, look: &dyn Fn(&str) -> String) -> String {
        let mut json = String::new();
        self.fill(look, &mut json);
        plain(&json)
    }
}

/// `[a,b]` of filled templates.
pub fn array(items: &[Template], look: &dyn Fn(&str) -> String, out: &mut String) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        item.fill(look, out);
    }
    out.push(']');
}

/// `{"k":v}` of filled templates.
pub fn object(members: &[(String, Template)], look: &dyn Fn(&str) -> String, out: &mut String) {
    out.push('{');
    for (index, (key, value)) in members.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        out.push_str(&Value::String(key.clone()).to_string());
        out.push_str(": ");
        value.fill(look, out);
    }
    out.push('}');
}

impl Part {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Text(_) => None,
        }
    }
}

/// Splits a text at its names.
///
/// # Errors
/// When braces are unbalanced.
pub fn parts(text: &str) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' | '}' if chars.peek() == Some(&c) => {
                chars.next();
                plain.push(c);
            }
            '{' => {
                let mut name = String::new();
                loop {
                    match chars.next() {
                        Some('}') => break,
                        Some('{') | None => return Err(TemplateError::Open),
                        Some(c) => name.push(c),
                    }
                }
                if name.trim().is_empty() {
                    return Err(TemplateError::Empty);
                }
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(Part::Name(name.trim().to_owned()));
            }
            '}' => return Err(TemplateError::Close),
            c => plain.push(c),
        }
    }
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

fn fill_parts(parts: &[Part], look: &dyn Fn(&str) -> String) -> String {
    let mut filled = String::new();
    for part in parts {
        match part {
            Part::Text(text) => filled.push_str(text),
            Part::Name(name) => filled.push_str(&plain(&look(name))),
        }
    }
    filled
}

/// A JSON string without its quotes; any other JSON unchanged.
fn plain(json: &str) -> String {
    if json.starts_with('"') { serde_json::from_str(json).unwrap_or_default() } else { json.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(template: &Value) -> String {
        let look = |name: &str| match name {
            "n" => "123456789012345678901234567890.10".to_owned(),
            "s" => "\"a \\\"quoted\\\" word\"".to_owned(),
            _ => "null".to_owned(),
        };
        let mut out = String::new();
        Template::parse(template).unwrap().fill(&look, &mut out);
        out
    }

    #[test]
    fn a_lone_place_keeps_type_and_digits() {
        assert_eq!(filled(&json!("{n}")), "123456789012345678901234567890.10");
        assert_eq!(filled(&json!(["{s}", "{absent}"])), r#"["a \"quoted\" word", null]"#);
    }

    #[test]
    fn inside_a_longer_text_the_value_is_written_into_it() {
        assert_eq!(filled(&json!("<{s}> {n}")), r#""<a \"quoted\" word> 123456789012345678901234567890.10""#);
        assert_eq!(
            filled(&json!({"k": ["x{n}", 1.50, true]})),
            r#"{"k": ["x123456789012345678901234567890.10", 1.5, true]}"#
        );
    }

    #[test]
    fn what_is_read_from_text_keeps_its_digits() {
        let raw = RawValue::from_string(r#"{"a": [123456789012345678901.50, "{n}", "x{{y}}"], "b": null}"#.to_owned())
            .unwrap();
        let mut out = String::new();
        Template::read(&raw).unwrap().fill(&|_| "7".to_owned(), &mut out);
        assert_eq!(out, r#"{"a": [123456789012345678901.50, 7, "x{y}"], "b": null}"#);
    }

    #[test]
    fn doubled_braces_are_braces() {
        assert_eq!(filled(&json!("{{n}}")), r#""{n}""#);
        assert_eq!(parts("{n"), Err(TemplateError::Open));
        assert_eq!(parts("n}"), Err(TemplateError::Close));
        assert_eq!(parts("{ }"), Err(TemplateError::Empty));
    }
}
