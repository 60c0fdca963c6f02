//! kombu's envelope: the JSON object that is stored in a list or sent through a channel, whatever its content.
//!
//! [`envelope`] is a contract: the same headers, body and properties give the same bytes, for ever. The relay publishes them, and
//! a revoke removes exactly them from their list (`LREM`), without keeping a copy.

use std::borrow::Cow;
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use super::json::{self, Fields};
use super::serial::Serializer;
use super::{DecodeError, bounds};

/// The properties of a message that the transport needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties<'a> {
    /// The task id, for tasks; absent in events and replies.
    pub correlation_id: Option<Cow<'a, str>>,
    /// Used only by Celery's rpc backend.
    pub reply_to: Option<Cow<'a, str>>,
    /// Milliseconds; the Redis transport ignores it.
    pub expiration: Option<Cow<'a, str>>,
    /// 2 (persistent) for tasks and requests, 1 for events and replies.
    pub delivery_mode: u8,
    /// Empty for the default exchange.
    pub exchange: Cow<'a, str>,
    /// The queue's name with the default exchange.
    pub routing_key: Cow<'a, str>,
    /// 0 (first) to 9 (last).
    pub priority: u8,
    /// Unique among all messages: two messages with one tag share an entry in `unacked`.
    pub delivery_tag: Cow<'a, str>,
    /// The message was put back into its queue before.
    pub redelivered: bool,
}

impl<'a> Properties<'a> {
    /// A task for one queue through the default exchange. `reply_to` is absent: no reader of the Redis transport needs it.
    pub fn task(task_id: &'a str, queue: &'a str, priority: u8, delivery_tag: &'a str) -> Self {
        Self {
            correlation_id: Some(task_id.into()),
            reply_to: None,
            expiration: None,
            delivery_mode: 2,
            exchange: "".into(),
            routing_key: queue.into(),
            priority,
            delivery_tag: delivery_tag.into(),
            redelivered: false,
        }
    }

    /// A message for a channel or a reply queue.
    pub fn transient(exchange: &'a str, routing_key: &'a str, delivery_tag: &'a str) -> Self {
        Self {
            correlation_id: None,
            delivery_mode: 1,
            exchange: exchange.into(),
            ..Self::task("", routing_key, 0, delivery_tag)
        }
    }
}

/// The bytes of a message. `headers` and `body` are JSON texts and stand in it verbatim (the body as base64).
pub fn envelope(headers: &str, body: &str, properties: &Properties<'_>) -> Vec<u8> {
    packed(headers, "application/json", body.as_bytes(), properties)
}

/// As [`envelope`], for a body of any type.
pub fn packed(headers: &str, content_type: &str, body: &[u8], properties: &Properties<'_>) -> Vec<u8> {
    let mut out = String::with_capacity(body.len() / 3 * 4 + headers.len() + 480);
    out.push_str("{\"body\": \"");
    STANDARD.encode_string(body, &mut out);
    out.push_str("\", \"content-encoding\": \"utf-8\", \"content-type\": ");
    json::push_string(&mut out, content_type);
    out.push_str(", \"headers\": ");
    out.push_str(headers);
    out.push_str(", \"properties\": {");
    properties.encode(&mut out);
    out.push_str("}}");
    out.into_bytes()
}

impl Properties<'_> {
    fn encode(&self, out: &mut String) {
        push_text(out, "correlation_id", self.correlation_id.as_deref());
        push_text(out, "reply_to", self.reply_to.as_deref());
        out.push_str(if self.delivery_mode == 1 { "\"delivery_mode\": 1" } else { "\"delivery_mode\": 2" });
        if let Some(expiration) = &self.expiration {
            out.push_str(", \"expiration\": ");
            json::push_string(out, expiration);
        }
        out.push_str(", \"delivery_info\": {\"exchange\": ");
        json::push_string(out, &self.exchange);
        out.push_str(", \"routing_key\": ");
        json::push_string(out, &self.routing_key);
        out.push_str(if self.redelivered { ", \"redelivered\": true}, \"priority\": " } else { "}, \"priority\": " });
        out.push(char::from(b'0' + self.priority.min(9)));
        out.push_str(", \"body_encoding\": \"base64\", \"delivery_tag\": ");
        json::push_string(out, &self.delivery_tag);
    }
}

/// A parsed envelope. The body is as it was sent, apart from base64.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// The headers, a JSON object, verbatim; `{}` when there are none.
    pub headers: String,
    pub content_type: Option<String>,
    pub body: Vec<u8>,
    pub properties: Properties<'static>,
}

impl Envelope {
    /// Parses an element of a list or a message of a channel.
    ///
    /// # Errors
    /// When it is not a JSON object, or its body is declared as base64 but is not. Missing members are not an error here.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > bounds::MAX_BYTES {
            return Err(DecodeError::TooLarge { actual: bytes.len(), limit: bounds::MAX_BYTES });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::NotJson)?;
        let repaired;
        let fields = match Fields::parse(text) {
            Ok(fields) => fields,
            Err(_) => {
                repaired = json::quote_bare_words(text);
                Fields::parse(repaired.as_deref().unwrap_or(text)).map_err(|error| not_object(&error))?
            }
        };
        let properties = fields.get("properties").and_then(|value| Fields::parse(value.get()).ok()).unwrap_or_default();
        Ok(Self {
            headers: fields
                .get("headers")
                .map(RawValue::get)
                .filter(|headers| headers.starts_with('{'))
                .unwrap_or("{}")
                .to_owned(),
            content_type: fields.text("content-type"),
            body: body(&fields, properties.text("body_encoding").as_deref())?,
            properties: Properties::decode(&properties),
        })
    }

    /// The body as JSON text. Python's bare `NaN` and `Infinity` have become strings.
    ///
    /// # Errors
    /// When the body has another content type, an unknown compression, or is not JSON.
    pub fn json_body(&self) -> Result<String, DecodeError> {
        match self.content_type.as_deref() {
            Some("application/json" | "json") => json_text(&self.plain_body()?).ok_or(DecodeError::BodyNotJson),
            other => Err(DecodeError::ContentType(other.unwrap_or("none").to_owned())),
        }
    }

    /// As [`Envelope::json_body`], but also reads YAML and MessagePack: workers write events and replies with their own serializer.
    ///
    /// # Errors
    /// As [`Envelope::json_body`].
    pub fn read_body(&self) -> Result<String, DecodeError> {
        let content_type = self.content_type.as_deref().unwrap_or("none");
        match Serializer::of_content_type(content_type) {
            Some(Serializer::Json) => self.json_body(),
            Some(serializer) => serializer.to_json(&self.plain_body()?),
            None => Err(DecodeError::ContentType(content_type.to_owned())),
        }
    }

    fn plain_body(&self) -> Result<Cow<'_, [u8]>, DecodeError> {
        let headers = Fields::parse(&self.headers).map_err(|_| DecodeError::NotJson)?;
        Ok(match headers.text("compression") {
            Some(compression) => Cow::Owned(decompress(&compression, &self.body)?),
            None => Cow::Borrowed(&self.body[..]),
        })
    }
}

impl Properties<'static> {
    fn decode(fields: &Fields<'_>) -> Self {
        let info = fields.get("delivery_info").and_then(|value| Fields::parse(value.get()).ok()).unwrap_or_default();
        let owned = |value: Option<String>| value.map(Cow::Owned);
        let priority = fields.number("priority").or_else(|| fields.text("priority")?.parse().ok()).unwrap_or(0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to one digit")]
        let priority = priority.clamp(0.0, 9.0) as u8;
        Self {
            correlation_id: owned(fields.text("correlation_id")),
            reply_to: owned(fields.text("reply_to")),
            expiration: owned(fields.text("expiration")),
            delivery_mode: if fields.integer("delivery_mode") == Some(1) { 1 } else { 2 },
            exchange: info.text("exchange").unwrap_or_default().into(),
            routing_key: info.text("routing_key").unwrap_or_default().into(),
            priority,
            delivery_tag: fields.text("delivery_tag").unwrap_or_default().into(),
            redelivered: info.boolean("redelivered").unwrap_or(false),
        }
    }
}

/// Decompresses by those of kombu's methods that are supported here.
///
/// # Errors
/// When the method is unknown, the data damaged, or larger than [`bounds::MAX_INFLATED_BYTES`].
pub fn decompress(method: &str, data: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let reader: Box<dyn std::io::Read + '_> = match method {
        // kombu's "gzip" is a bare zlib stream; real gzip is read as well.
        "application/x-gzip" | "gzip" | "zlib" if data.starts_with(&[0x1f, 0x8b]) => {
            Box::new(flate2::read::GzDecoder::new(data))
        }
        "application/x-gzip" | "gzip" | "zlib" => Box::new(flate2::read::ZlibDecoder::new(data)),
        other => return Err(DecodeError::Compression(other.to_owned())),
    };
    let mut plain = Vec::new();
    reader.take(bounds::MAX_INFLATED_BYTES as u64 + 1).read_to_end(&mut plain).map_err(|_| DecodeError::Decompress)?;
    if plain.len() > bounds::MAX_INFLATED_BYTES {
        return Err(DecodeError::TooLarge { actual: plain.len(), limit: bounds::MAX_INFLATED_BYTES });
    }
    Ok(plain)
}

/// Bytes as JSON text, with Python's bare words quoted; `None` when they are not JSON.
pub(super) fn json_text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    if serde_json::from_str::<&RawValue>(text).is_ok() {
        return Some(text.to_owned());
    }
    json::quote_bare_words(text).filter(|text| serde_json::from_str::<&RawValue>(text).is_ok())
}

fn push_text(out: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        out.extend(["\"", name, "\": "]);
        json::push_string(out, value);
        out.push_str(", ");
    }
}

fn not_object(error: &serde_json::Error) -> DecodeError {
    if error.is_data() { DecodeError::NotAnObject } else { DecodeError::NotJson }
}

fn body(fields: &Fields<'_>, encoding: Option<&str>) -> Result<Vec<u8>, DecodeError> {
    let Some(text) = fields.text("body") else { return Ok(Vec::new()) };
    match encoding {
        Some("base64") => STANDARD.decode(text.trim_end()).map_err(|_| DecodeError::Base64),
        _ => Ok(text.into_bytes()),
    }
}
