//! Converts messages between kombu's JSON envelope, which the rest of this program reads and writes, and AMQP's properties, headers
//! and body, which are sent to RabbitMQ.
//!
//! Invariant: headers and body are not changed; what only the envelope has (body encoding, delivery tag) is recreated for received
//! messages. Our tag is sent as the property `message-id`, which Celery ignores, so a returned or repeated message is recognised.

use std::borrow::Cow;

use celery::{Envelope, Properties};
use lapin::BasicProperties;
use lapin::message::Delivery;

use super::error::short;
use super::table;
use crate::Error;

/// A message to publish.
pub struct Outbound {
    pub properties: BasicProperties,
    pub body: Vec<u8>,
}

impl Outbound {
    /// Size of the frame with properties and headers.
    pub fn header_frame(&self) -> usize {
        /// The frame's own bytes, class, weight, body size, flags, and the two properties that are numbers.
        const FIXED: usize = 8 + 14 + 2;
        let from = &self.properties;
        let texts = [
            from.content_type(),
            from.content_encoding(),
            from.correlation_id(),
            from.reply_to(),
            from.expiration(),
            from.message_id(),
        ];
        let texts: usize = texts.into_iter().flatten().map(|text| 1 + text.as_str().len()).sum();
        FIXED + texts + from.headers().as_ref().map_or(0, table::size)
    }
}

/// Converts an envelope. `reply_to` replaces its own, if results come over the broker.
///
/// # Errors
/// When it is not an envelope, which would be a bug of ours.
pub fn outbound(envelope: &[u8], tag: &str, reply_to: Option<&str>) -> Result<Outbound, Error> {
    let envelope =
        Envelope::decode(envelope).map_err(|error| Error::Unexpected(format!("an envelope of ours {error}")))?;
    let from = &envelope.properties;
    let mut properties = BasicProperties::default()
        .with_content_type(short(envelope.content_type.as_deref().unwrap_or("application/json"))?)
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(from.delivery_mode)
        .with_priority(from.priority)
        .with_message_id(short(tag)?)
        .with_headers(table::from_json(&envelope.headers));
    // An id that is too long is left out: workers read it from the headers.
    if let Some(id) = from.correlation_id.as_deref().and_then(|id| short(id).ok()) {
        properties = properties.with_correlation_id(id);
    }
    if let Some(queue) = reply_to.or(from.reply_to.as_deref()) {
        properties = properties.with_reply_to(short(queue)?);
    }
    if let Some(expiration) = &from.expiration {
        properties = properties.with_expiration(short(expiration)?);
    }
    Ok(Outbound { properties, body: envelope.body })
}

/// The envelope of a received message. `tag` is the delivery tag for the rest of the program.
pub fn inbound(delivery: &Delivery, tag: &str) -> Vec<u8> {
    let from = &delivery.properties;
    let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(|text| Cow::Owned(text.to_string()));
    let properties = Properties {
        correlation_id: text(from.correlation_id()),
        reply_to: text(from.reply_to()),
        expiration: text(from.expiration()),
        delivery_mode: if *from.delivery_mode() == Some(1) { 1 } else { 2 },
        exchange: delivery.exchange.as_str().into(),
        routing_key: delivery.routing_key.as_str().into(),
        priority: from.priority().unwrap_or(0).min(9),
        delivery_tag: tag.into(),
        redelivered: delivery.redelivered,
    };
    let headers = from.headers().as_ref().map_or_else(|| "{}".to_owned(), table::to_json);
    let content_type = from.content_type().as_ref().map(lapin::types::ShortString::as_str);
    celery::envelope::packed(&headers, content_type.unwrap_or("application/json"), &delivery.data, &properties)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(envelope: &[u8]) -> Envelope {
        let out = outbound(envelope, "t.1", None).unwrap();
        let mut delivery = Delivery::mock(1, "".into(), "celery".into(), true, out.body);
        delivery.properties = out.properties;
        Envelope::decode(&inbound(&delivery, "t.1")).unwrap()
    }

    #[test]
    fn what_goes_out_comes_in_as_it_was() {
        let properties =
            Properties { reply_to: Some("r".into()), priority: 7, ..Properties::task("id", "celery", 0, "t.1") };
        let sent = celery::envelope(r#"{"task":"a","id":"id"}"#, "[[1], {}, {}]", &properties);
        let came = around(&sent);
        assert_eq!(came.body, b"[[1], {}, {}]");
        assert_eq!(came.headers, r#"{"id":"id","task":"a"}"#);
        assert_eq!(came.properties, Properties { redelivered: true, ..properties });
    }
}
