//! The request body of an entry: its JSON Schema, compiled once.
//!
//! Unknown fields are refused unless the schema allows them explicitly. A `$ref` cannot point outside the document: neither files
//! nor the network are read.

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind as Kind;
use serde_json::{Map, Value};

use super::Invalid;
use celery::spelling::nearest;

/// The number of errors that are reported.
const MAX_ERRORS: usize = 20;
/// Error messages quote the wrong value; a longer message is cut.
const MAX_DETAIL: usize = 300;

#[derive(Debug)]
pub struct Body {
    /// As published in OpenAPI: with the limits and the refusal of unknown fields that the catalog adds.
    pub schema: Value,
    validator: Validator,
    /// Names that a template may use.
    pub fields: Vec<String>,
    /// Whether error messages must not quote values.
    masked: bool,
}

impl Body {
    /// `max_items` are limits by field. `masked` keeps values out of error messages.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the schema.
    pub fn compile(mut schema: Value, max_items: &[(String, u64)], masked: bool) -> Result<Self, String> {
        let object = schema.as_object_mut().ok_or("must be a JSON Schema: a table")?;
        if object.get("type").is_some_and(|kind| kind != "object") {
            return Err("must describe an object: arguments are taken from its fields".to_owned());
        }
        object.entry("type").or_insert_with(|| "object".into());
        let fields = declared(object);
        for (field, limit) in max_items {
            limit_items(object, field, *limit)?;
        }
        let is_open =
            ["additionalProperties", "patternProperties", "unevaluatedProperties", "$ref", "allOf", "anyOf", "oneOf"];
        if !is_open.iter().any(|keyword| object.contains_key(*keyword)) {
            object.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
        let validator = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .should_validate_formats(true)
            .offline()
            .build(&schema)
            .map_err(|error| format!("is not a JSON Schema: {error} (at {})", error.instance_path()))?;
        Ok(Self { schema, validator, fields, masked })
    }

    /// The default of a field that is absent, as JSON text.
    pub fn default_of(&self, field: &str) -> Option<String> {
        self.schema.get("properties")?.get(field)?.get("default").map(Value::to_string)
    }

    /// All mistakes in this body; empty when it is valid.
    pub fn check(&self, body: &Value) -> Vec<Invalid> {
        if self.validator.is_valid(body) {
            return Vec::new();
        }
        self.validator.iter_errors(body).flat_map(|error| self.explain(&error)).take(MAX_ERRORS).collect()
    }

    fn explain(&self, error: &jsonschema::ValidationError<'_>) -> Vec<Invalid> {
        let at = error.instance_path().as_str().to_owned();
        match error.kind() {
            Kind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                vec![Invalid::new(format!("{at}/{}", escape(name)), "is required")]
            }
            Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
                unexpected.iter().take(MAX_ERRORS).map(|name| self.unknown(&at, name)).collect()
            }
            Kind::MaxItems { limit } => {
                let actual = error.instance().as_array().map_or(0, Vec::len);
                vec![Invalid::new(at, format!("has {actual} items, at most {limit} are allowed"))]
            }
            _ if self.masked => vec![Invalid::new(at, cut(&error.masked().to_string()))],
            _ => vec![Invalid::new(at, cut(&error.to_string()))],
        }
    }

    fn unknown(&self, at: &str, name: &str) -> Invalid {
        let known = if at.is_empty() { self.fields.as_slice() } else { &[] };
        let detail = match nearest(name, known) {
            Some(nearest) => format!("is not a field of this request; did you mean {nearest}?"),
            None => "is not a field of this request".to_owned(),
        };
        Invalid::new(format!("{at}/{}", escape(name)), detail)
    }
}

fn declared(object: &Map<String, Value>) -> Vec<String> {
    let properties = object.get("properties").and_then(Value::as_object);
    properties.map_or_else(Vec::new, |properties| properties.keys().cloned().collect())
}

fn limit_items(object: &mut Map<String, Value>, field: &str, limit: u64) -> Result<(), String> {
    let property = object.get_mut("properties").and_then(|properties| properties.get_mut(field));
    let property = property
        .and_then(Value::as_object_mut)
        .ok_or_else(|| format!("has no property {field}, which max_items limits"))?;
    property.insert("maxItems".to_owned(), limit.into());
    Ok(())
}

/// A member's name inside a JSON Pointer.
pub fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_DETAIL) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
