//! `upload = { field = "file", max = "100 MiB", store = "default" }`: the endpoint takes a file. It is streamed into a store, and
//! templates name its data: `{file}` (its key in the store), `{file_url}` (an address at which a worker can read it),
//! `{file_name}`, `{file_size}` and `{file_type}`.
//!
//! If the entry lists `types`, a file is checked by its first bytes. They decide; a type without a signature (such as text) is
//! accepted as declared, unless the bytes are those of another type.

use serde::Deserialize;
use serde_json::Value;

use super::Pattern;
use crate::config::value::Bytes;

/// The largest file of an entry that sets no `max`.
const USUAL_MAX: u64 = 100 << 20;
/// The most that a bucket takes in ten thousand parts of 5 MiB, less a reserve.
const MOST: u64 = 48 << 30;
/// The type that a client sends if it knows none.
const UNKNOWN: &str = "application/octet-stream";
/// How many of the first bytes are read to determine the type.
pub const HEAD: usize = 8 << 10;

#[derive(Debug)]
pub struct Upload {
    /// The form field with the file.
    pub field: String,
    /// Bytes.
    pub max: u64,
    pub store: String,
    types: Vec<Pattern>,
    /// The data of the file that templates may use.
    pub(super) names: [String; 5],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    field: String,
    max: Option<Bytes>,
    store: Option<String>,
    #[serde(default)]
    types: Vec<String>,
}

/// The data of a file, for the templates.
#[derive(Debug, Clone)]
pub struct FileFacts<'a> {
    pub key: &'a str,
    /// `None` where no template names it.
    pub url: Option<&'a str>,
    /// The name that the client gave it.
    pub name: &'a str,
    /// Bytes.
    pub size: u64,
    pub kind: &'a str,
}

impl Upload {
    /// # Errors
    /// A sentence that says what is wrong.
    pub(super) fn compile(value: &Value) -> Result<Self, String> {
        let raw: Raw = serde_json::from_value(value.clone())
            .map_err(|error| format!("{error}: write {{ field, max, store, types = [\"image/*\"] }}"))?;
        if raw.field.is_empty() || !raw.field.chars().all(|char| char.is_ascii_alphanumeric() || char == '_') {
            return Err("the field's name has letters, digits and _ only".to_owned());
        }
        let max = raw.max.map_or(USUAL_MAX, |bytes| bytes.0 as u64);
        if !(1..=MOST).contains(&max) {
            return Err("max must be between 1 byte and 48 GiB".to_owned());
        }
        if let Some(strange) = raw.types.iter().find(|kind| !kind.contains('/')) {
            return Err(format!("types: {strange:?} is no media type: write image/png, or image/* for all images"));
        }
        Ok(Self {
            max,
            store: raw.store.unwrap_or_else(|| "default".to_owned()),
            types: raw.types.iter().map(|kind| Pattern::new(kind.to_ascii_lowercase())).collect(),
            names: ["", "_url", "_name", "_size", "_type"].map(|end| format!("{}{end}", raw.field)),
            field: raw.field,
        })
    }

    /// The name by which templates ask for an address.
    pub(super) fn url_name(&self) -> &str {
        &self.names[1]
    }

    /// The accepted media types; empty for all.
    pub fn types(&self) -> Vec<&str> {
        self.types.iter().map(Pattern::as_str).collect()
    }

    /// The type of a file that is declared as `declared` (empty if the client gave none) and begins with these bytes.
    ///
    /// # Errors
    /// Why it is refused, as a sentence.
    pub fn judge(&self, declared: &str, head: &[u8]) -> Result<String, String> {
        let found = infer::get(head).map(|kind| kind.mime_type());
        let kind = found.unwrap_or(if declared.is_empty() { UNKNOWN } else { declared });
        if self.types.is_empty() {
            return Ok(kind.to_owned());
        }
        let takes = |kind: &str| self.types.iter().any(|pattern| pattern.matches(kind));
        let allowed = || self.types().join(", ");
        if !takes(declared) && !declared.is_empty() && declared != UNKNOWN {
            return Err(format!("is called {declared}, which is none of {}", allowed()));
        }
        match found {
            Some(found) if !takes(found) => Err(format!("begins as {found}, which is none of {}", allowed())),
            Some(found) => Ok(found.to_owned()),
            None if kind != UNKNOWN && infer::is_mime_supported(kind) => {
                Err(format!("is called {kind}, and does not begin as one"))
            }
            None if takes(kind) => Ok(kind.to_owned()),
            None => Err(format!("has no type that can be seen, and {} is wanted", allowed())),
        }
    }

    /// The values of the templates, as JSON text.
    pub fn told(&self, facts: &FileFacts<'_>) -> Vec<(String, String)> {
        let text = |text: &str| Value::from(text).to_string();
        let url = facts.url.map_or_else(|| "null".to_owned(), text);
        let values = [text(facts.key), url, text(facts.name), facts.size.to_string(), text(facts.kind)];
        self.names.iter().cloned().zip(values).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n..";

    #[test]
    fn a_file_is_judged_by_its_first_bytes() {
        let upload = Upload::compile(&json!({"field": "file", "types": ["image/*", "text/csv"]})).unwrap();
        assert_eq!(upload.judge("image/png", PNG).unwrap(), "image/png");
        assert_eq!(upload.judge("", PNG).unwrap(), "image/png", "what the client does not say is seen");
        assert_eq!(upload.judge("application/octet-stream", PNG).unwrap(), "image/png");
        assert_eq!(upload.judge("image/jpeg", PNG).unwrap(), "image/png", "what is seen counts");
        assert_eq!(upload.judge("text/csv", b"a,b\n1,2\n").unwrap(), "text/csv", "a text has no marks");
        assert!(upload.judge("text/plain", b"").unwrap_err().contains("is called"));
        assert!(upload.judge("image/png", b"%PDF-1.7").unwrap_err().contains("begins as application/pdf"));
        assert!(upload.judge("image/png", b"hello").unwrap_err().contains("does not begin as one"));
        assert!(upload.judge("", b"hello").unwrap_err().contains("no type that can be seen"));
    }

    #[test]
    fn an_entry_without_types_takes_every_file() {
        let upload = Upload::compile(&json!({"field": "f"})).unwrap();
        assert_eq!((upload.max, upload.store.as_str()), (100 << 20, "default"));
        assert_eq!(upload.judge("x/y", b"hello").unwrap(), "x/y");
        assert_eq!(upload.judge("", b"hello").unwrap(), UNKNOWN);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert!(Upload::compile(&json!({"field": "a b"})).is_err());
        assert!(Upload::compile(&json!({"field": "f", "max": "1 TiB"})).is_err());
        assert!(Upload::compile(&json!({"field": "f", "max": 0})).is_err());
        assert!(Upload::compile(&json!({"field": "f", "types": ["png"]})).unwrap_err().contains("png"));
        assert!(Upload::compile(&json!({"field": "f", "max": "1 MiB", "stor": "x"})).unwrap_err().contains("stor"));
    }
}
